"""The one document behind page, ``sarathi top`` and JSON API. Its version changes when a field changes its meaning.

Moments are milliseconds before the document was made (``ago_ms``; larger is earlier), durations milliseconds unless
the name says seconds. None means: nothing to tell, which is not 0.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

VERSION: Literal[1] = 1

ServerState = Literal["live", "partial", "starting", "gone", "stock"]
"""live: every engine reports. partial: some do. starting: none has yet. gone: none does any more. stock: vLLM's own
scheduler serves, which reports nothing."""

EngineState = Literal["live", "starting", "gone"]


class Part(BaseModel):
    """Unknown keys are errors, instances do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassTargets(Part):
    """An SLO class as configured."""

    name: str
    tbt_ms: float = Field(description="D_d: time allowed per further token.")
    ttft_slack_ms: float


class Fluidity(Part):
    """Share of deadlines met over windows of time; None where no deadline was decided."""

    last_10_s: float | None
    last_10_s_with_overdue: float | None = Field(
        description="As if what is overdue had its token now: the misses that the counters do not hold yet are in it."
    )
    last_60_s: float | None
    last_300_s: float | None
    since_start: float | None


class Overdue(Part):
    """What is past its next deadline now. A stream has output under way; a prompt waits for its first token."""

    streams: int
    prompts: int
    oldest_stream_s: float = Field(description="How long the worst stream has been overdue.")
    oldest_prompt_s: float
    uncounted_misses: int = Field(
        description="Deadlines that have passed meanwhile; the counters take them when the token comes."
    )


class Latency(Part):
    """One distribution over the chosen window. Quantiles are interpolated in a bucket; None without observations."""

    count: int
    p50_ms: float | None
    p99_ms: float | None
    counts: list[int] = Field(description="By bucket; the last is beyond the last edge.")


class ClassLive(Part):
    """One SLO class now."""

    name: str
    fluidity: Fluidity
    met: int = Field(description="Deadlines met since start.")
    missed: int
    requests: int = Field(description="Alive now.")
    overdue: Overdue
    tokens_per_s: float = Field(description="Over the last 10 s, or up to one less.")
    finished: int
    fluid: int = Field(description="Ended with no error and a fluidity-index of at least 0.9.")
    aborted: int
    errors: int
    tbt: Latency
    ttft: Latency


class StepInFlight(Part):
    """The step that runs now."""

    running_ms: float
    predicted_ms: float | None
    decodes: int
    prefill_tokens: int
    budget: int


class EngineLive(Part):
    """One engine now. After ``message`` nothing here is live unless ``state`` is."""

    index: int
    state: EngineState
    message: str
    step: StepInFlight | None = None
    last_step_ago_ms: float | None = None
    running: int | None = None
    waiting: int | None = None
    kv_used: float | None = Field(default=None, description="Share of the KV blocks in use.")
    policy_enabled: bool | None = None
    longest_stall_last_minute_s: float | None = None


class Errors(Part):
    """Since start, all engines of the selection."""

    preemptions: int
    relegations: int
    policy_fallbacks: int
    plugin_errors: int
    unknown_slo_class: int
    untracked_requests: int


class History(Part):
    """The last five minutes, a point every few seconds; fluidity over the 10 s before each."""

    ago_s: list[int]
    fluidity: dict[str, list[float | None]]
    running: list[int | None]
    waiting: list[int | None]
    kv_used: list[float | None]


class Steps(Part):
    """The last steps of one engine, oldest first, in columns."""

    engine: int
    ago_ms: list[int] = Field(description="When each ended.")
    duration_ms: list[float]
    predicted_ms: list[float | None]
    decode_tokens: list[int]
    prefill_tokens: list[int]
    budget: list[int]


class Chunk(Part):
    """Part of a prompt computed in one step; end None while it runs."""

    start_ago_ms: int
    end_ago_ms: int | None
    tokens: int


class RequestLive(Part):
    """One of the latest requests. Of its tokens and chunks the latest are kept."""

    key: str = Field(description="engine:number, unique while the server runs.")
    id: str
    engine: int
    slo_class: str
    state: Literal["waiting", "prefill", "decoding", "finished", "aborted", "error", "timeout"]
    arrived_ago_ms: int
    first_due_ago_ms: int
    ended_ago_ms: int | None
    prompt_tokens: int
    max_tokens: int
    ttft_ms: float | None
    tokens: int
    met: int
    missed: int
    overdue_ms: int = Field(description="Past its next deadline by so much now; 0 when it is not.")
    on_time_ago_ms: list[int]
    late_ago_ms: list[int]
    chunks: list[Chunk]


class LiveDocument(Part):
    """Everything."""

    version: Literal[1] = VERSION
    unix_s: float = Field(description="When it was made, by the server's wall clock.")
    state: ServerState
    message: str
    server: str = Field(description="Changes when the server is another one.")
    model: str
    policy: str
    plugin_version: str
    vllm_version: str
    selected_class: str | None
    selected_engine: int | None
    window_s: int = Field(description="Window of the distributions.")
    targets: list[ClassTargets]
    engines: list[EngineLive]
    classes: list[ClassLive]
    errors: Errors
    edges_ms: list[float] = Field(description="Upper edges of the buckets of all distributions.")
    history: History
    steps: Steps | None
    requests: list[RequestLive] = Field(description="Latest first.")
