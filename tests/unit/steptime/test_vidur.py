"""Operator tables in Vidur's columns: what comes out of small made-up ones, and what is refused."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S, StepShape
from sarathi_plugin.steptime import import_command
from sarathi_plugin.steptime.machine import ProfileModel
from sarathi_plugin.steptime.profile import StepTimeProfile, read_profile
from sarathi_plugin.steptime.roofline import DEVICES, Attention
from sarathi_plugin.steptime.vidur import HEAD_AND_HOST_S, import_tables, read_attention
from tests.unit.steptime.machines import FACTS

ATTENTION = Attention(
    prefill_layer_s=5e-6,
    prefill_width_s=2e-11,
    flops_per_s=1e14,
    decode_layer_s=1e-5,
    bytes_per_s=1e12,
    origin="made up",
)
SIZES = [1, 2, 4, *range(8, 641, 8)]
VOCABULARY = 32_000
OPERATORS = ["attn_pre_proj", "attn_rope", "attn_post_proj", "mlp_up_proj", "mlp_act", "mlp_down_proj"]
OPERATORS += ["input_layernorm", "post_attention_layernorm", "add"]

Rows = list[dict[str, Any]]


def layer_ms(tokens: int) -> float:
    """One layer on one device: stairs of 64 tokens with a slope on each."""
    return 0.5 + 0.25 * ((tokens + 63) // 64) + 0.001 * tokens


def mlp_rows(workers: tuple[int, ...] = (1, 2)) -> Rows:
    shape = {"n_head": 8, "n_kv_head": 2, "n_embd": 512, "vocab_size": VOCABULARY}
    return [
        {f"time_stats.{operator}.median": layer_ms(n) / devices / len(OPERATORS) for operator in OPERATORS}
        | shape
        | {"num_tokens": n, "num_tensor_parallel_workers": devices}
        for devices in workers
        for n in SIZES
    ]


def all_reduce_rows(workers: int = 2) -> Rows:
    shape = {"num_workers": workers, "devices_per_node": workers}
    return [
        {"time_stats.all_reduce.median": 0.01 + size * 1e-6, "size": size} | shape
        for size in range(1024, 400_000, 2048)
    ]


def attention_rows(truth: Attention) -> Rows:
    """Two devices, so 4 query heads of 64 and one key-value head on each."""
    shape = {"n_embd": 512, "n_q_head": 8, "n_kv_head": 2, "num_tensor_parallel_workers": 2}
    rows: Rows = []
    for chunk in (64, 128, 512, 2048):
        for context in (0, 1024, 4096):
            pairs = chunk * (context + chunk / 2)
            s = (
                truth.prefill_layer_s
                + truth.prefill_width_s * 256 * chunk
                + 4 * 256 * pairs / truth.flops_per_s
            )
            sizes = {"batch_size": 1, "prefill_chunk_size": chunk, "kv_cache_size": context}
            rows.append(kernels(prefill=s * 1e3) | shape | sizes)
    for batch in (1, 8, 64):
        for context in (64, 1024, 4096):
            s = truth.decode_layer_s + batch * context * 2 * 64 * 2 / truth.bytes_per_s
            sizes = {"batch_size": batch, "prefill_chunk_size": 0, "kv_cache_size": context}
            rows.append(kernels(decode=s * 1e3) | shape | sizes)
    return rows


def kernels(prefill: float | str = "", decode: float | str = "") -> dict[str, Any]:
    """Cells of one row; a tenth of the time goes to reshaping."""
    whole = prefill or decode
    assert not isinstance(whole, str)
    names = {"input_reshape": 0.04 * whole, "output_reshape": 0.06 * whole}
    names |= {"prefill": prefill and 0.9 * whole, "decode": decode and 0.9 * whole}
    return {f"time_stats.attn_{name}.median": value for name, value in names.items()}


def write(path: Path, rows: Rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def imported(mlp: Path, **changed: Any) -> StepTimeProfile:
    fields = {
        "name": "imported",
        "model": FACTS,
        "hardware": "a machine",
        "memory_bytes": 10**9,
        "attention": ATTENTION,
    }
    return import_tables(mlp, **(fields | changed))


def linear_s(profile: StepTimeProfile, tokens: int) -> float:
    """The table alone: a step of so many decodes without context, less the constant of decodes."""
    return ProfileModel(profile).predict_ns(StepShape(tokens, tokens)) / NS_PER_S - profile.decode_step_s


def test_operators_are_summed_over_layers_and_keep_their_stairs(tmp_path: Path):
    found = imported(write(tmp_path / "mlp.csv", mlp_rows()))
    head_s = VOCABULARY * 512 * 2 / 1e12
    for tokens in (1, 8, 64, 72, 128, 136, 256, 264, 320, 512, 520, 640):
        assert linear_s(found, tokens) == pytest.approx(4 * layer_ms(tokens) / 1e3 + head_s, rel=0.005)
    assert len(found.linear_s) == 20
    assert found.host_s == pytest.approx(HEAD_AND_HOST_S - head_s, rel=1e-3)
    assert "staircase of 20 knots: mean error 0.0" in found.provenance.fitted
    assert "residual add once" in found.provenance.method


def test_attention_is_scaled_to_layers_heads_and_devices(tmp_path: Path):
    mlp = write(tmp_path / "mlp.csv", mlp_rows())
    one = imported(mlp)
    assert one.decode_step_s == pytest.approx(4 * 1e-5)
    assert one.decode_context_token_s == pytest.approx(4 * (2 * 2 * 64 * 2) / 1e12)
    assert one.prefill_step_s == pytest.approx(4 * 5e-6)
    assert one.prefill_token_s == pytest.approx(4 * 512 * 2e-11)
    assert one.prefill_pair_s == pytest.approx(4 * 4 * 512 / 1e14)
    two = imported(mlp, tensor_parallel=2, all_reduce_csv=write(tmp_path / "ar.csv", all_reduce_rows()))
    assert two.prefill_pair_s == pytest.approx(one.prefill_pair_s / 2)
    assert two.decode_context_token_s == pytest.approx(one.decode_context_token_s / 2)


def test_a_layer_reduces_twice_and_launches_twice(tmp_path: Path):
    mlp = write(tmp_path / "mlp.csv", mlp_rows())
    two = imported(mlp, tensor_parallel=2, all_reduce_csv=write(tmp_path / "ar.csv", all_reduce_rows()))
    head_s = VOCABULARY * 512 * 2 / 2 / 1e12
    for tokens in (64, 256, 320, 640):  # 640 tokens are more bytes than the table holds
        reduce_s = 2 * 4 * (0.01e-3 + tokens * 512 * 2 * 1e-9 + 20e-6)
        expected = 4 * layer_ms(tokens) / 2 / 1e3 + reduce_s + head_s
        assert linear_s(two, tokens) == pytest.approx(expected, rel=0.01)


def test_the_curve_never_falls_where_the_table_does(tmp_path: Path):
    rng = np.random.default_rng(3)
    rows = mlp_rows((1,))
    for row in rows:
        for operator in OPERATORS:
            row[f"time_stats.{operator}.median"] *= rng.uniform(0.9, 1.1)
    found = imported(write(tmp_path / "mlp.csv", rows))
    seconds = [s for _, s in found.linear_s]
    assert seconds == sorted(seconds)


def test_rows_of_one_size_count_as_their_median(tmp_path: Path):
    rows = mlp_rows((1,))
    for factor in (1.0, 50.0):
        rows += [
            row | {f"time_stats.{o}.median": row[f"time_stats.{o}.median"] * factor for o in OPERATORS}
            for row in mlp_rows((1,))
        ]
    once = imported(write(tmp_path / "once.csv", mlp_rows((1,))))
    assert imported(write(tmp_path / "thrice.csv", rows)).linear_s == once.linear_s


def test_a_roofline_is_found_again_in_its_table(tmp_path: Path):
    path = write(tmp_path / "attention.csv", attention_rows(ATTENTION))
    found = read_attention(path)
    assert found.prefill_layer_s == pytest.approx(5e-6, rel=1e-6)
    assert found.prefill_width_s == pytest.approx(2e-11, rel=1e-6)
    assert found.flops_per_s == pytest.approx(1e14, rel=1e-6)
    assert found.decode_layer_s == pytest.approx(1e-5, rel=1e-6)
    assert found.bytes_per_s == pytest.approx(1e12, rel=1e-6)
    assert "mean error of attention alone 0.0% (prompts), 0.0% (decodes)" in found.origin
    mlp = write(tmp_path / "mlp.csv", mlp_rows())
    assert imported(mlp, attention=path).prefill_pair_s == imported(mlp).prefill_pair_s


def test_another_device_is_scaled_by_its_peaks_and_says_so():
    faster = ATTENTION.on("h100")
    assert faster.flops_per_s == pytest.approx(1e14 * 989 / 312)
    assert faster.bytes_per_s == pytest.approx(1e12 * 3.35 / 2.039)
    assert faster.decode_layer_s == ATTENTION.decode_layer_s
    assert "a100 to h100" in faster.scaled


def test_the_built_in_attention_is_what_the_shipped_profile_holds():
    shipped, layers, width = read_profile("a100-llama-3-8b-tp1"), 32, 4096
    a100 = DEVICES["a100"]
    assert shipped.prefill_pair_s == pytest.approx(layers * 4 * width / a100.flops_per_s, rel=1e-3)
    assert shipped.prefill_token_s == pytest.approx(layers * width * a100.prefill_width_s, rel=1e-3)
    assert shipped.decode_context_token_s == pytest.approx(layers * 4096 / a100.bytes_per_s, rel=1e-3)
    assert shipped.decode_step_s == pytest.approx(layers * a100.decode_layer_s, rel=1e-3)


def without(rows: Rows, column: str) -> Rows:
    return [{key: value for key, value in row.items() if key != column} for row in rows]


BAD_MLP: dict[str, tuple[Callable[[Rows], Rows], dict[str, Any], str]] = {
    "no column": (
        lambda rows: without(without(rows, "num_tokens"), "vocab_size"),
        {},
        "has no column vocab_size and 1 more: give a table as Vidur profiles it.",
    ),
    "other degree": (
        lambda rows: rows,
        {"tensor_parallel": 4},
        r"4 tensor-parallel devices, only for \[1, 2\]",
    ),
    "other model": (
        lambda rows: [row | {"n_head": 16} for row in rows],
        {},
        r"has no rows for a model \(n_head 8, n_kv_head 2, n_embd 512\)",
    ),
    "two models": (
        lambda rows: rows + [row | {"vocab_size": 1} for row in rows],
        {},
        "holds more than one model of this shape",
    ),
    "few sizes": (lambda rows: rows[:5], {}, "needs 8 or more token counts, it has 5"),
    "no numbers": (lambda rows: [row | {"num_tokens": "many"} for row in rows], {}, "is no table of numbers"),
    "an empty cell": (
        lambda rows: [*rows, rows[0] | {"time_stats.add.median": ""}],
        {},
        "has an empty cell in column time_stats.add.median",
    ),
    "no time": (
        lambda rows: [row | {f"time_stats.{o}.median": 0 for o in OPERATORS} for row in rows],
        {},
        "without tokens or without a time above zero",
    ),
    "no all-reduce": (lambda rows: rows, {"tensor_parallel": 2}, "2 devices needs an all_reduce.csv as well"),
}


@pytest.mark.parametrize(("change", "arguments", "complaint"), BAD_MLP.values(), ids=BAD_MLP.keys())
def test_a_table_that_cannot_be_used_is_refused_in_one_sentence(
    tmp_path: Path, change: Callable[[Rows], Rows], arguments: dict[str, Any], complaint: str
):
    path = write(tmp_path / "mlp.csv", change(mlp_rows()))
    with pytest.raises(ConfigError, match=complaint) as caught:
        imported(path, **arguments)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_or_empty_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"Cannot read .*none\.csv: No such file"):
        imported(tmp_path / "none.csv")
    path = write(tmp_path / "mlp.csv", mlp_rows())
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(ConfigError, match=r"mlp\.csv has no rows: "):
        imported(path)


def test_an_all_reduce_table_of_other_devices_is_refused(tmp_path: Path):
    mlp = write(tmp_path / "mlp.csv", mlp_rows())
    reduce = write(tmp_path / "ar.csv", all_reduce_rows(4))
    with pytest.raises(ConfigError, match=r"ar\.csv has no rows for 2 devices of one node, only for \[4\]"):
        imported(mlp, tensor_parallel=2, all_reduce_csv=reduce)


def test_an_attention_table_without_decodes_or_times_is_refused(tmp_path: Path):
    rows = attention_rows(ATTENTION)
    with pytest.raises(ConfigError, match="needs 8 or more rows each with and without"):
        read_attention(write(tmp_path / "a.csv", rows[:12]))
    with pytest.raises(ConfigError, match="rows without a time above zero"):
        read_attention(write(tmp_path / "b.csv", [*rows, rows[0] | dict.fromkeys(kernels(prefill=1.0), "")]))


def test_a_table_is_not_overwritten_by_the_profile(tmp_path: Path):
    mlp, facts = write(tmp_path / "mlp.csv", mlp_rows()), tmp_path / "facts.json"
    facts.write_text(FACTS.model_dump_json())
    for out in (mlp, facts):
        before = out.read_bytes()
        with pytest.raises(ConfigError, match="would destroy it"):
            import_command.run(mlp, facts, "h", 80, mlp, None, 1, out, say=print)
        assert out.read_bytes() == before
