"""Answers 24 mixed prompts greedily with one scheduler, in one process; run by ``test_greedy``.

argv: model folder, scheduler name or ``stock``, ``on`` or ``off`` for prefix caching, output file (JSON).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")

SUBJECTS = ("rain", "bread", "the moon", "a bicycle", "salt", "paper", "a violin", "wool")
FILLER = (
    "The river rises in the hills, passes three villages and a mill, and reaches the sea by the old harbour. "
)


def prompts() -> list[str]:
    """Short questions, medium texts and long ones that share a beginning; lengths from about 10 to 700 tokens."""
    short = [f"Explain in one sentence what {subject} is." for subject in SUBJECTS]
    medium = [FILLER * 4 + f"What does this text say about {subject}?" for subject in SUBJECTS]
    long = [
        FILLER * (12 + 2 * i) + f"Write a sentence about {subject}." for i, subject in enumerate(SUBJECTS)
    ]
    return [prompt for group in zip(short, medium, long, strict=True) for prompt in group]


def main() -> None:
    """Write one list of [token id, log-probability, runner-up's log-probability] per prompt."""
    model, name, caching, out = sys.argv[1:5]
    from vllm import LLM, SamplingParams

    from sarathi_plugin.engine import engine_arguments

    chosen = {} if name == "stock" else engine_arguments(name, tbt_ms=400.0)
    llm = LLM(
        model, dtype="float32", enforce_eager=True, max_model_len=2048, max_num_seqs=16, seed=0,
        enable_prefix_caching=caching == "on", disable_log_stats=True, **chosen,
    )  # fmt: skip
    tokenizer = llm.get_tokenizer()
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        for prompt in prompts()
    ]
    sampling = SamplingParams(temperature=0.0, max_tokens=24, logprobs=2)
    answers = []
    for answer in llm.generate(texts, sampling, use_tqdm=False):
        best = []
        for token, ranked in zip(answer.outputs[0].token_ids, answer.outputs[0].logprobs, strict=True):
            others = [entry.logprob for other, entry in ranked.items() if other != token]
            best.append([token, ranked[token].logprob, max(others)])
        answers.append({"text": answer.outputs[0].text, "tokens": best})
    Path(out).write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
