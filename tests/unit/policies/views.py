"""Views built by hand, and a step-time model that is known exactly: what tests of policies feed them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sarathi_plugin.core import NS_PER_MS, NS_PER_S, Prompts, RequestRow, SloClass, StepView
from sarathi_plugin.policies.base import blocks_for
from sarathi_plugin.tolerance import Tolerance
from sarathi_plugin.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.core import StepShape, StepTimeModel

STANDARD = SloClass("standard", tbt_ns=100 * NS_PER_MS, ttft_slack_ns=NS_PER_S)
INTERACTIVE = SloClass("interactive", tbt_ns=50 * NS_PER_MS, ttft_slack_ns=300 * NS_PER_MS)
CLASSES = (STANDARD, INTERACTIVE)
NOW = 1_000 * NS_PER_S


@dataclass
class LinearModel:
    """A machine that takes 10 ms a step, 1 ms a decode and 0.1 ms a prompt token, unless told otherwise.

    chunk_ms: what having any prompt tokens costs.
    """

    step_ms: float = 10.0
    decode_ms: float = 1.0
    token_ms: float = 0.1
    pair_ms: float = 0.0
    chunk_ms: float = 0.0
    ready: bool = True
    margin: float = 0.0
    seen_tokens: int | None = None

    def predict_ns(self, shape: StepShape) -> int:
        ms = (
            self.step_ms
            + self.decode_ms * shape.decode_tokens
            + self.token_ms * shape.prefill_tokens
            + self.pair_ms * shape.prefill_attention
            + self.chunk_ms * (shape.prefill_tokens > 0)
        )
        return round(ms * NS_PER_MS)

    def learn(self, steps: Sequence[tuple[StepShape, int]]) -> None:
        raise AssertionError("a policy must not teach the model")


def make_row(
    name: str = "prompt",
    tokens: int = 1000,
    computed: int = 0,
    *,
    arrived_ms: float = -100,
    due_ms: float = 1000,
    slo: SloClass = STANDARD,
    preempted: bool = False,
) -> RequestRow:
    """A prompt that arrived and is due so many milliseconds after now."""
    return RequestRow(
        request_id=name,
        slot=0,
        slo=slo,
        arrival_ns=NOW + round(arrived_ms * NS_PER_MS),
        prompt_tokens=tokens,
        max_tokens=100,
        prefill_ns=NS_PER_MS,
        prefill_deadline_ns=NOW + round(due_ms * NS_PER_MS),
        total_tokens=tokens,
        computed_tokens=computed,
        preempted=preempted,
    )


def prompts_of(rows: Sequence[RequestRow], classes: Sequence[SloClass]) -> Prompts:
    """The rows as columns; a row's slot is its place."""
    column = lambda values: np.array(list(values), np.int64)  # noqa: E731
    return Prompts(
        column(range(len(rows))),
        column(row.arrival_ns for row in rows),
        column(row.prefill_deadline_ns for row in rows),
        column(classes.index(row.slo) for row in rows),
        column(row.remaining_tokens for row in rows),
        column(row.computed_tokens for row in rows),
        column(row.preempted for row in rows),
    )


def make_view(
    decodes_due_ms: Sequence[float] = (),
    prefills: Sequence[RequestRow] = (),
    waiting: Sequence[RequestRow] = (),
    *,
    model: StepTimeModel | None = None,
    tbt_ms: float = 100.0,
    free_at_ms: float = 0.0,
    decode_tokens: int | None = None,
    step: int = 1,
    max_tokens: int = 8192,
    max_requests: int = 256,
    max_model_tokens: int = 4096,
    free_blocks: int = 1000,
    total_blocks: int = 4096,
    previous_empty: bool = False,
    previous_ms: float = -20.0,
) -> StepView:
    """A view of an engine: one decode per entry of ``decodes_due_ms``, due so many milliseconds after now."""
    view = StepView(model or LinearModel(), Tolerance(CLASSES))
    view.waits = Waits()
    view.step = step
    view.now_ns = NOW
    view.previous_ns = NOW + round(previous_ms * NS_PER_MS)
    view.free_at_ns = NOW + round(free_at_ms * NS_PER_MS)
    view.max_tokens = max_tokens
    view.max_requests = max_requests
    view.max_model_tokens = max_model_tokens
    view.decodes = len(decodes_due_ms)
    view.decode_tokens = view.decodes if decode_tokens is None else decode_tokens
    view.decode_context = 500 * view.decodes
    view.decode_deadline_ns = np.array([NOW + round(due * NS_PER_MS) for due in decodes_due_ms], np.int64)
    view.min_decode_tbt_ns = round(tbt_ms * NS_PER_MS)
    view.decode_tbt_ns = np.full(view.decodes, view.min_decode_tbt_ns, np.int64)
    rows = [*prefills, *waiting]
    view.load_prompts = lambda: prompts_of(rows, CLASSES)
    view.load_row = rows.__getitem__
    view.load_need = lambda row: blocks_for(row.remaining_tokens, view.block_size)
    view.prefills = list(prefills)
    view.waiting_count = len(waiting)
    view.load_waiting = lambda: list(waiting)
    view.free_blocks = free_blocks
    view.total_blocks = total_blocks
    view.block_size = 16
    view.previous_empty = previous_empty
    return view
