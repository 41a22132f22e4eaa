"""A model for quick runs: Llama, 4 layers of 256, random weights, one token a byte.

Its decode steps and its prefill stand to each other on a CPU as those of a 7B model on a data-centre GPU. It answers
with noise. Everything is written by us, so it needs no download and no tokenizer library.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SPECIAL = ("<|pad|>", "<|bos|>", "<|eos|>", "<|start|>", "<|end|>")
VOCABULARY = 512
"""Rounded up: the ids beyond bytes and special tokens decode to nothing."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def byte_characters() -> list[str]:
    """A visible character for each byte, in byte order, as byte-level tokenizers expect it (GPT-2's mapping)."""
    visible = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return [chr(byte if byte in visible else next(hidden)) for byte in range(256)]


def tokenizer() -> dict[str, Any]:
    """The content of ``tokenizer.json``: special tokens first, then the 256 bytes, no merges."""
    names = [*SPECIAL, *byte_characters()]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": name, **flags} for i, name in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {name: i for i, name in enumerate(names)},
            "merges": [],
        },
    }


def config() -> dict[str, Any]:
    """The content of ``config.json``."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 256,
        "intermediate_size": 640,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "num_hidden_layers": 4,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 16_384,
        "rms_norm_eps": 1e-05,
        "rope_theta": 500_000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "dtype": "float32",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def write(folder: Path) -> None:
    """Write the model (all but weights: they are made up at load time) into an existing folder."""
    files: dict[str, dict[str, Any]] = {
        "config.json": config(),
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|bos|>",
            "eos_token": "<|eos|>",
            "pad_token": "<|pad|>",
            "model_max_length": 16_384,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    }
    for name, content in files.items():
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
