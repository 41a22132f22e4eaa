"""The types everyone speaks: SLO classes, what a policy sees, what it decides. What is recorded: records.py.

All times are integer nanoseconds on one monotonic clock (``time.monotonic_ns``); all sizes are tokens.
Nothing here imports vLLM.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sarathi_plugin.gapcount import GapCount
    from sarathi_plugin.tolerance import Tolerance
    from sarathi_plugin.waits import Waits

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

IntArray = NDArray[np.int64]

StepKind = Literal["decode", "mixed", "prefill", "empty"]
"""``decode``: only decodes; ``mixed``: decodes with prefill tokens; ``prefill``: no decode."""

SloMode = Literal["deadline", "gap"]
"""``deadline``: early tokens bank slack (Etalon). ``gap``: every gap within the target (Sarathi's P99 TBT)."""


@dataclass(frozen=True, slots=True)
class SloClass:
    """Latency targets that a request picks by name.

    tbt_ns: D_d, time allowed for each further token. ttft_slack_ns: S, added to the prefill curve to give D_p.
    completion_ns: time from arrival by which the last token is due, or None. importance: larger is served
    first when not everybody can be.
    """

    name: str
    tbt_ns: int
    ttft_slack_ns: int
    completion_ns: int | None = None
    importance: float = 1.0


@dataclass(slots=True, eq=False)
class RequestRow:
    """What is known of one live request, outside the per-token columns.

    slot: its index in the columns of ``RequestTable``. prefill_deadline_ns: arrival + D_p. computed_tokens and
    total_tokens: prefill progress; their difference is the work left. Of a waiting request what the prefix cache holds
    is as good as computed. preempted: it has lost its place, and with it what was computed, at least once.
    """

    request_id: str
    slot: int
    slo: SloClass
    arrival_ns: int
    prompt_tokens: int
    max_tokens: int
    prefill_ns: int
    prefill_deadline_ns: int
    total_tokens: int
    computed_tokens: int = 0
    preempted: bool = False
    scheduled_ns: int | None = None
    token_ns: list[int] = field(default_factory=list)

    @property
    def remaining_tokens(self) -> int:
        """Prompt tokens still to compute."""
        return self.total_tokens - self.computed_tokens


class Chunk(NamedTuple):
    """One prompt's part of a step: ``tokens`` new ones on top of ``context`` computed ones."""

    tokens: int
    context: int


class StepShape(NamedTuple):
    """What a step carries, as far as its duration depends on it.

    decode_rows: requests that yield a token. decode_tokens: their tokens (more than rows under speculative
    decoding). decode_context: sum of their context lengths. prefill_tokens: prompt tokens. prefill_attention:
    sum over chunks of chunk x (context + chunk / 2), the number of query-key pairs.
    """

    decode_rows: int = 0
    decode_tokens: int = 0
    decode_context: int = 0
    prefill_tokens: int = 0
    prefill_attention: float = 0.0

    @property
    def kind(self) -> StepKind:
        """Which of the step kinds this is."""
        if self.prefill_tokens:
            return "mixed" if self.decode_rows else "prefill"
        return "decode" if self.decode_rows else "empty"

    def with_chunk(self, chunk: Chunk) -> StepShape:
        """This step with one more chunk of prefill."""
        rows, tokens, context, prefill, pairs = self
        added, before = chunk
        return StepShape(rows, tokens, context, prefill + added, pairs + added * (before + added / 2))


class StepTimeModel(Protocol):
    """Predicts how long a step takes and learns from the steps that ran.

    A model may also have ``predict_many_ns(shape, tokens, pairs) -> list[int]``: what ``predict_ns`` says of the
    decodes of ``shape`` with each of so many prompt tokens and query-key pairs. It saves time in every step. And
    ``seen_tokens``: most prompt tokens of a step it has learned from, of twice as many it is asked; None for any.
    """

    @property
    def ready(self) -> bool:
        """Whether enough steps were seen to size chunks by prediction."""

    @property
    def margin(self) -> float:
        """Share by which a step may exceed its prediction, from recent residuals (0.1 is 10 %)."""

    def predict_ns(self, shape: StepShape) -> int:
        """Expected duration of a step of this shape, in nanoseconds (no margin)."""

    def learn(self, steps: Sequence[tuple[StepShape, int]]) -> None:
        """Learn from finished steps: shapes and durations in nanoseconds, in order."""


class Prompts(NamedTuple):
    """Unfinished prompts as columns of shape (n,), good for the plan that asks for them.

    First come those under way, as in ``StepView.prefills``, then the waiting ones by slot.
    slots: of their rows. due_ns: when the first token is due. slo_index: of the class in ``StepView.tolerance``.
    left_tokens: prompt tokens still to compute; context_tokens: those before them, computed or cached.
    preempted: 1 of those that have lost their place before, else 0.
    """

    slots: IntArray
    arrival_ns: IntArray
    due_ns: IntArray
    slo_index: IntArray
    left_tokens: IntArray
    context_tokens: IntArray
    preempted: IntArray


class StepView:
    """What a policy sees of the engine before one step. Long-lived and refilled in place; read-only for policies.

    decode_deadline_ns: when the token that this step would yield is due, per decode, steps in flight counted;
    decode_tbt_ns: their D_d.
    previous_ns: ``now_ns`` of the plan before. free_at_ns: when the engine is expected to be done with the steps in
    flight (``now_ns`` when idle). tolerance: how long answers are, per class, as far as is known.
    waits: how long recent first tokens took. gaps: how many gaps were late, where that is counted (gap mode).
    previous_empty: the last plan scheduled nothing although there was work and nothing was in flight; whatever this
    plan holds back then runs all the same.
    resting: waiting requests (their ids) to which steps were left a moment ago without one coming in: their grammar is
    not ready, their LoRA adapter has no room, vLLM is paused. A plan that leaves out those under way for one is not
    followed.
    """

    __slots__ = (
        "block_size", "decode_context", "decode_deadline_ns", "decode_tbt_ns", "decode_tokens", "decodes",
        "free_at_ns", "free_blocks", "gaps", "load_need", "load_overtake", "load_prompts", "load_row",
        "load_waiting", "max_model_tokens", "max_requests", "max_tokens", "min_decode_tbt_ns", "model", "now_ns",
        "prefills", "previous_empty", "previous_ns", "resting", "step", "tolerance", "total_blocks",
        "waiting_count", "waits",
    )  # fmt: skip

    def __init__(self, model: StepTimeModel, tolerance: Tolerance) -> None:
        self.model = model
        self.tolerance = tolerance
        self.step = 0
        self.now_ns = 0
        self.previous_ns = 0
        self.free_at_ns = 0
        self.max_tokens = 0
        self.max_requests = 0
        self.max_model_tokens = 0
        self.decodes = 0
        self.decode_tokens = 0
        self.decode_context = 0
        self.decode_deadline_ns: IntArray = np.empty(0, np.int64)
        self.decode_tbt_ns: IntArray = np.empty(0, np.int64)
        self.min_decode_tbt_ns = 0
        self.prefills: Sequence[RequestRow] = ()
        self.waiting_count = 0
        self.load_waiting: Callable[[], Sequence[RequestRow]] = tuple
        self.load_prompts: Callable[[], Prompts]
        self.load_row: Callable[[int], RequestRow]
        self.load_need: Callable[[RequestRow], int]
        self.load_overtake: Callable[[RequestRow], bool] = lambda _row: True
        self.free_blocks = 0
        self.total_blocks = 0
        self.block_size = 1
        self.previous_empty = False
        self.resting: frozenset[str] = frozenset()
        self.waits: Waits
        self.gaps: GapCount | None = None

    @property
    def running(self) -> int:
        """Requests that hold a place in the batch."""
        return self.decodes + len(self.prefills)

    @property
    def waiting(self) -> Sequence[RequestRow]:
        """Requests not yet admitted, in queue order. Built on demand: reading it costs time per waiting request.

        While prompts are under way, without the ``resting``.
        """
        return self.load_waiting()

    @property
    def prompts(self) -> Prompts:
        """All unfinished prompts, far cheaper than ``waiting`` when there are many. Built on demand."""
        return self.load_prompts()

    def row(self, slot: int) -> RequestRow:
        """The request in a slot."""
        return self.load_row(slot)

    def blocks_needed(self, row: RequestRow) -> int:
        """KV blocks that admitting a waiting request would take from the free ones; a lookup as long as its prompt."""
        return self.load_need(row)

    def may_overtake(self, row: RequestRow) -> bool:
        """Whether a waiting request would come in first if the prompts under way were left out of this step.

        Under vLLM's priority policy only the first of the queue, when nobody under way has a higher priority.
        """
        return row.request_id not in self.resting and self.load_overtake(row)

    @property
    def has_prefill_work(self) -> bool:
        """Whether any prompt is unfinished, admitted or not."""
        return bool(self.prefills) or self.waiting_count > 0

    @property
    def decode_shape(self) -> StepShape:
        """The step that carries the decodes and nothing else."""
        return StepShape(self.decodes, self.decode_tokens, self.decode_context)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one step may do. The default plan is stock vLLM: no lever touched.

    budget: most tokens the step may carry; raised to the decodes' need, with drafts by so many as one more decode
    may take unless ``token_budget`` forbids it, to a whole block for a hybrid model, and cut to the engine's limit;
    None leaves the engine's own. limit: what bound the budget, for the metrics. prefills: running prompts in the order
    in which they get budget (those left out follow, in arrival order); None keeps the engine's order of everything.
    waiting: admission order of the queue, most urgent first; None keeps it. skip_decodes, skip_prefills: leave out for
    this step only, with ``reason`` (skip_prefills with nobody admitted, or for the first of ``waiting`` if it
    ``StepView.may_overtake``);
    skip_some: the same for some of the decodes, by their places in ``StepView.decode_deadline_ns``.
    max_running: admit nobody beyond so many running requests. whole_prompts: never split a prompt. available_ns:
    time the plan may take, for the record. relegated: requests stepped back in this plan that were not before.
    """

    budget: int | None = None
    limit: str = "stock"
    prefills: Sequence[RequestRow] | None = None
    waiting: Sequence[RequestRow] | None = None
    skip_decodes: bool = False
    skip_prefills: bool = False
    skip_some: Sequence[int] = ()
    reason: str = ""
    max_running: int | None = None
    whole_prompts: bool = False
    available_ns: int | None = None
    relegated: int = 0
