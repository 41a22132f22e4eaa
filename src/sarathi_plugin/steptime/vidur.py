"""Step-time profiles from operator tables in the columns of Vidur (arXiv 2405.05465).

mlp.csv and all_reduce.csv give the linear part of a step by its tokens, attention.csv the attention. The tables hold
medians in milliseconds, per layer and device. The linear part is kept as a staircase of tens of knots, not as a
table: the mean error of doing so stands in the profile.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.config import ConfigError
from sarathi_plugin.steptime.profile import ModelFacts, Provenance, Residuals, StepTimeProfile
from sarathi_plugin.steptime.residuals import lognormal_quantiles
from sarathi_plugin.steptime.roofline import Attention, DecodeSamples, PrefillSamples, fit_attention
from sarathi_plugin.steptime.staircase import non_negative_least_squares, ramps, tile_knots

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Table = dict[str, NDArray[np.float64]]

OPERATORS = (
    "attn_pre_proj",
    "attn_post_proj",
    "mlp_up_proj",
    "mlp_down_proj",
    "mlp_act",
    "input_layernorm",
    "post_attention_layernorm",
    "attn_rope",
    "add",
)
"""Counted once a layer each, as Vidur does. A layer adds the residual twice, but vLLM fuses that into the norms."""

TILES = ((64, 1024), (128, 2048), (256, 4096), (4096, 1 << 30))
"""Tokens of a stair, and up to where: narrower ones halve no error but double the profile."""

LEAST_SIZES = 8
LAUNCH_S = 20e-6
"""Launch of an all-reduce, twice a layer (Vidur's default)."""

BYTES = 2
"""Of a number in half precision."""

HEAD_AND_HOST_S = 2e-3
"""Output layer, sampling and host work of a step, which the tables leave out."""

SIGMA = 0.03
MS = 1e-3


def import_tables(
    mlp_csv: Path,
    *,
    name: str,
    model: ModelFacts,
    hardware: str,
    memory_bytes: int,
    attention: Attention | Path,
    tensor_parallel: int = 1,
    all_reduce_csv: Path | None = None,
    source: str = "operator tables of Vidur (microsoft/vidur)",
) -> StepTimeProfile:
    """A profile of one rank. Raises ConfigError on tables that cannot be used.

    attention: a roofline, or the path of an attention.csv to fit one to. all_reduce_csv: needed beyond one device.
    """
    roofline = attention if isinstance(attention, Attention) else read_attention(attention)
    tokens, seconds, vocabulary = _linear(mlp_csv, model, tensor_parallel)
    if tensor_parallel > 1:
        sizes = tokens * model.hidden_size * BYTES
        seconds = seconds + 2 * model.layers * (
            _all_reduce(all_reduce_csv, tensor_parallel, sizes) + LAUNCH_S
        )
    knots = tile_knots(int(tokens[-1]), TILES)
    curve, error = _staircase(tokens, seconds, knots)
    head_s = min(
        vocabulary * model.hidden_size * BYTES / tensor_parallel / roofline.bytes_per_s, HEAD_AND_HOST_S
    )
    residuals = lognormal_quantiles(SIGMA)
    return StepTimeProfile(
        name=name,
        model=model,
        hardware=hardware,
        memory_bytes=memory_bytes,
        tensor_parallel=tensor_parallel,
        linear_s=[(n, _round(s + head_s)) for n, s in zip(knots, curve, strict=True)],
        host_s=_round(HEAD_AND_HOST_S - head_s),
        residuals=Residuals(decode=residuals, prefill=residuals),
        provenance=_provenance(source, mlp_csv, all_reduce_csv, roofline, error, head_s),
        **_attention_costs(roofline, model, tensor_parallel),
    )


def _attention_costs(roofline: Attention, model: ModelFacts, workers: int) -> dict[str, float]:
    """The attention coefficients of a profile: all layers, the heads of one device."""
    width = model.heads * model.head_dim / workers
    kv_bytes = 2 * max(1.0, model.kv_heads / workers) * model.head_dim * model.kv_scalar_bytes
    layer = {
        "decode_step_s": roofline.decode_layer_s,
        "decode_context_token_s": kv_bytes / roofline.bytes_per_s,
        "prefill_step_s": roofline.prefill_layer_s,
        "prefill_token_s": width * roofline.prefill_width_s,
        "prefill_pair_s": 4 * width / roofline.flops_per_s,
    }
    return {name: _round(model.layers * seconds) for name, seconds in layer.items()}


def read_attention(path: Path) -> Attention:
    """The roofline of an attention.csv, over all models and tensor-parallel degrees in it. Raises ConfigError."""
    kernels = [
        f"time_stats.attn_{kernel}.median"
        for kernel in ("input_reshape", "output_reshape", "prefill", "decode")
    ]
    sizes = ["batch_size", "prefill_chunk_size", "kv_cache_size"]
    shape = ["n_embd", "n_q_head", "n_kv_head", "num_tensor_parallel_workers"]
    table = _read(path, [*sizes, *shape], may_be_empty=kernels)
    prompts = table["prefill_chunk_size"] > 0
    if min(prompts.sum(), (~prompts).sum()) < LEAST_SIZES:
        raise ConfigError(f"{path} needs {LEAST_SIZES} or more rows each with and without a prompt's chunk.")
    seconds = MS * np.sum([table[kernel] for kernel in kernels], axis=0)
    if seconds.min() <= 0:
        raise ConfigError(f"{path} has rows without a time above zero: profile those sizes again.")
    chunk, context, workers = table["prefill_chunk_size"], table["kv_cache_size"], table[shape[3]]
    width, pairs = table["n_embd"] / workers, chunk * (context + chunk / 2)
    kv_heads = np.maximum(1, table["n_kv_head"] / workers)
    kv_bytes = table["batch_size"] * context * 2 * kv_heads * table["n_embd"] / table["n_q_head"] * BYTES
    return fit_attention(
        PrefillSamples(seconds[prompts], chunk[prompts], width[prompts], pairs[prompts]),
        DecodeSamples(seconds[~prompts], kv_bytes[~prompts]),
        f"roofline fitted to {path.name}",
    )


def _linear(
    path: Path, model: ModelFacts, workers: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Token counts (ascending), seconds of all layers, and the vocabulary, of one model and degree."""
    times = [f"time_stats.{operator}.median" for operator in OPERATORS]
    shape = {"n_head": model.heads, "n_kv_head": model.kv_heads, "n_embd": model.hidden_size}
    table = _read(path, [*times, *shape, "vocab_size", "num_tokens", "num_tensor_parallel_workers"])
    mine = np.all([table[column] == value for column, value in shape.items()], axis=0)
    if not mine.any():
        wanted = ", ".join(f"{column} {value}" for column, value in shape.items())
        raise ConfigError(f"{path} has no rows for {model.name} ({wanted}).")
    present = np.unique(table["num_tensor_parallel_workers"][mine]).astype(int).tolist()
    if workers not in present:
        raise ConfigError(f"{path} has no rows for {workers} tensor-parallel devices, only for {present}.")
    mine &= table["num_tensor_parallel_workers"] == workers
    vocabularies = np.unique(table["vocab_size"][mine])
    if len(vocabularies) > 1:
        raise ConfigError(
            f"{path} holds more than one model of this shape: give a table of {model.name} alone."
        )
    layer_ms = np.sum([table[column][mine] for column in times], axis=0)
    tokens, medians = _medians(table["num_tokens"][mine], layer_ms)
    if len(tokens) < LEAST_SIZES:
        raise ConfigError(f"{path} needs {LEAST_SIZES} or more token counts, it has {len(tokens)}.")
    if tokens[0] < 1 or medians.min() <= 0:
        raise ConfigError(f"{path} has rows without tokens or without a time above zero.")
    return tokens, model.layers * MS * medians, float(vocabularies[0])


def _all_reduce(path: Path | None, workers: int, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds of one all-reduce of so many bytes; beyond the table the last slope goes on."""
    if path is None:
        raise ConfigError(f"A profile of {workers} devices needs an all_reduce.csv as well.")
    table = _read(path, ["time_stats.all_reduce.median", "num_workers", "devices_per_node", "size"])
    alone = table["num_workers"] == table["devices_per_node"]
    mine = alone & (table["num_workers"] == workers)
    if np.unique(table["size"][mine]).size < 2:
        present = np.unique(table["num_workers"][alone]).astype(int).tolist()
        raise ConfigError(f"{path} has no rows for {workers} devices of one node, only for {present}.")
    known, medians = _medians(table["size"][mine], table["time_stats.all_reduce.median"][mine])
    half = len(known) // 2
    slope = max(0.0, float((medians[-1] - medians[half]) / (known[-1] - known[half])))
    beyond = np.maximum(sizes - known[-1], 0) * slope
    return np.asarray(MS * (np.interp(sizes, known, medians) + beyond), np.float64)


def _staircase(
    tokens: NDArray[np.float64], seconds: NDArray[np.float64], knots: list[int]
) -> tuple[list[float], str]:
    """Values at the knots that never fall, and what they miss, as text."""
    rows = ramps(tokens, knots)
    found = non_negative_least_squares(rows / seconds[:, None], np.ones_like(seconds))
    errors = np.abs(rows @ found / seconds - 1)
    worst = int(errors.argmax())
    text = (
        f"linear part as a staircase of {len(knots)} knots: mean error {errors.mean():.2%} over {len(tokens)} "
        f"token counts, worst {errors[worst]:.1%} at {tokens[worst]:.0f} tokens"
    )
    values = np.maximum(np.cumsum(found), 1e-6)
    return values.tolist(), text


def _provenance(
    source: str, mlp_csv: Path, all_reduce_csv: Path | None, roofline: Attention, error: str, head_s: float
) -> Provenance:
    reduced = f"; all-reduce twice a layer ({all_reduce_csv.name})" if all_reduce_csv else ""
    return Provenance(
        source=source,
        method=f"sum of kernel medians per layer ({mlp_csv.name}; residual add once){reduced}; attention by "
        "roofline. No run of vLLM is behind it.",
        measured=f"kernels of the linear layers{' and all-reduce' if all_reduce_csv else ''}",
        fitted=f"{error}; {roofline.origin}",
        scaled=f"{roofline.scaled or 'attention'}; to the heads, layers and devices of this model",
        assumed=f"output layer {head_s * 1e3:.2f} ms (its weights read once, in the table) and host work "
        f"{(HEAD_AND_HOST_S - head_s) * 1e3:.2f} ms a step (host_s), together 2 ms; residuals lognormal with sigma "
        f"{SIGMA}; half precision; kernels add up without gaps",
    )


def _medians(
    keys: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distinct keys, ascending, and the median value of each."""
    found = np.unique(keys)
    return found, np.array([np.median(values[keys == key]) for key in found])


def _read(path: Path, columns: Sequence[str], may_be_empty: Sequence[str] = ()) -> Table:
    """Columns of a CSV file as arrays of floats; 0 for a cell that may be empty and is. Raises ConfigError."""
    every = [*columns, *may_be_empty]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [column for column in every if column not in (reader.fieldnames or ())]
            rows = [] if missing else [[float(row[column] or "nan") for column in every] for row in reader]
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{path} is no table of numbers: {error}.") from error
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConfigError(f"{path} has no column {missing[0]}{more}: give a table as Vidur profiles it.")
    if not rows:
        raise ConfigError(f"{path} has no rows: give a table as Vidur profiles it.")
    table = dict(zip(every, np.array(rows, np.float64).T, strict=True))
    for column in may_be_empty:
        table[column] = np.nan_to_num(table[column])
    for column, values in table.items():
        if not np.isfinite(values).all():
            raise ConfigError(f"{path} has an empty cell in column {column}: profile those sizes again.")
    return table


def _round(value: float) -> float:
    return float(f"{value:.5g}")
