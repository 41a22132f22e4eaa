"""Replay of a recording: the same scheduler, told the same things at the same clock readings, must decide the same."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from sarathi_plugin.config import ConfigError, explain
from sarathi_plugin.engine.parts import Clock
from sarathi_plugin.simulate.build import make_scheduler
from sarathi_plugin.simulate.requests import STOP, TOKEN
from sarathi_plugin.simulate.spec import EngineSpec
from sarathi_plugin.steptime.online import OnlineModel
from sarathi_plugin.steptime.profile import ModelFacts, Provenance, StepTimeProfile
from sarathi_plugin.telemetry.journal import Arrived, Hashed, Left, Scheduled, Updated

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.telemetry.recording import Recording

SHOWN = 5


@dataclass
class ReplayReport:
    """steps: scheduling decisions compared. differences: (number of the step, recorded, replayed), the first few."""

    steps: int = 0
    different: int = 0
    preemptions: int = 0
    cached_tokens: int = 0
    differences: list[tuple[int, dict[str, int], dict[str, int]]] = field(default_factory=list)


class ReplayClock:
    """Says what the recorded clocks said."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.wall_s = 0.0

    def as_clock(self) -> Clock:
        """What the driver reads."""
        return Clock(lambda: self.now_ns, lambda: self.wall_s, lambda: 0)


def engine_of(recording: Recording) -> tuple[EngineSpec, StepTimeProfile]:
    """The engine a recording was made on, and a stand-in profile with its model. Raises ConfigError."""
    head = recording.head
    try:
        facts = dict(head["engine"])
        ranks = facts.pop("tensor_parallel_size")
        if facts.pop("speculative_tokens"):
            raise ConfigError(
                "A run with speculative decoding cannot be replayed: its drafts are not recorded."
            )
        settings = dict(head["settings"])
        scheduler = settings.pop("scheduler", "sarathi")
        settings.pop("step_time_profile", None)  # the model's own state is recorded
        spec = EngineSpec(scheduler=scheduler, sarathi=settings, **facts)
        model = ModelFacts(**head["model"])
    except KeyError as error:
        raise ConfigError(
            f"The recording does not say its {error.args[0]}: record it again with this version."
        ) from error
    except ValidationError as error:
        raise ConfigError(explain(error, "the head of the recording")) from error
    profile = StepTimeProfile(
        name="recorded",
        model=model,
        hardware="",
        memory_bytes=1,
        tensor_parallel=ranks,
        linear_s=[(1, 1.0)],
        provenance=Provenance(source="a recording", method="facts of the engine alone, no times"),
    )
    return spec.model_copy(update={"kv_cache_memory_bytes": 2**40}), profile


def replay(recording: Recording, *, progress: Callable[[int], None] | None = None) -> ReplayReport:
    """Play a journal against a scheduler of our own and compare every decision.

    Raises ConfigError when the recording has no journal, or one with gaps.
    """
    if not recording.steps and not recording.events:
        raise ConfigError(
            "The recording holds no step: the server did nothing, or was killed before it wrote."
        )
    if not any(isinstance(event, Scheduled) for event in recording.events):
        raise ConfigError("The recording holds no scheduling decisions: record it again with this version.")
    if recording.step_time.get("dropped"):
        raise ConfigError(
            f"{recording.step_time['dropped']} records were dropped while recording (the disk was too slow), "
            "so it cannot be replayed."
        )
    player = _Player(recording)
    for number, event in enumerate(recording.events):
        player.take(event)
        if progress is not None:
            progress(number)
    player.scheduler.shutdown()
    return player.report


class _Player:
    """Feeds one scheduler."""

    def __init__(self, recording: Recording) -> None:
        spec, profile = engine_of(recording)
        self._clock = ReplayClock()
        self.scheduler = make_scheduler(spec, profile, self._clock.as_clock(), {})
        state = recording.head.get("model_state")
        if state is not None:
            self.scheduler.sarathi.use_model(OnlineModel.from_state(state))
        self.report = ReplayReport()
        self._flights: deque[tuple[Any, list[str]]] = deque()
        arrived = [event for event in recording.events if isinstance(event, Arrived)]
        self._hashes = {event.request_id: list(event.hashes) for event in arrived}
        for event in recording.events:
            if isinstance(event, Hashed):
                self._hashes.setdefault(event.request_id, []).extend(event.hashes)
        self._caches = spec.enable_prefix_caching

    def take(self, event: Any) -> None:
        """One event of the journal."""
        if isinstance(event, Scheduled):
            self._clock.now_ns = event.now_ns
            self._schedule(event)
        elif isinstance(event, Updated):
            self._clock.now_ns = event.now_ns
            self._update(event)
        elif isinstance(event, Arrived):
            self._clock.now_ns, self._clock.wall_s = event.now_ns, event.wall_s
            self.scheduler.add_request(self._request(event))
        elif isinstance(event, Left):
            self._clock.now_ns = event.now_ns
            self.scheduler.finish_requests(event.request_ids, RequestStatus[event.status])

    def _request(self, event: Arrived) -> Request:
        return Request(
            request_id=event.request_id,
            prompt_token_ids=[TOKEN] * event.prompt_tokens,
            sampling_params=SamplingParams(
                max_tokens=event.max_tokens,
                ignore_eos=True,
                stop_token_ids=[STOP],
                temperature=0.0,
                extra_args={"slo_class": event.slo_class} if event.slo_class else None,
            ),
            pooling_params=None,
            arrival_time=event.arrival_s,
            priority=event.priority,
            block_hasher=self._hash_blocks if self._caches else None,
        )

    def _hash_blocks(self, request: Any) -> list[bytes]:
        """The recorded hashes of blocks that are full by now."""
        known = self._hashes.get(request.request_id, [])
        start, end = len(request.block_hashes), request.num_tokens // self.scheduler.block_size
        missing = [f"{request.request_id}/{i}".encode() for i in range(max(start, len(known)), end)]
        return [bytes.fromhex(value) for value in known[start:end]] + missing

    def _schedule(self, event: Scheduled) -> None:
        output = self.scheduler.schedule()
        decided = dict(output.num_scheduled_tokens)
        recorded = dict(zip(event.names, event.tokens, strict=True))
        preempted = tuple(sorted(output.preempted_req_ids or ()))
        self.report.steps += 1
        self.report.preemptions += len(preempted)
        for data in output.scheduled_new_reqs:
            self.report.cached_tokens += data.num_computed_tokens
        if list(decided.items()) != list(recorded.items()) or preempted != event.preempted:
            self.report.different += 1
            if len(self.report.differences) < SHOWN:
                self.report.differences.append((self.report.steps, recorded, decided))
        requests = self.scheduler.requests
        due = [name for name in decided if not requests[name].is_prefill_chunk]
        self._flights.append((output, due))

    def _update(self, event: Updated) -> None:
        output, due = self._flights.popleft()
        names = list(output.num_scheduled_tokens)
        yields = set(due)
        sampled = [self._sampled(event, name) if name in yields else [] for name in names]
        result = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: i for i, name in enumerate(names)},
            sampled_token_ids=sampled,
        )
        self.scheduler.update_from_output(output, result)

    @staticmethod
    def _sampled(event: Updated, name: str) -> list[int]:
        count = event.emitted.get(name, 1)
        tokens = [TOKEN] * max(1, count)
        if name in event.stopped:
            tokens[-1] = STOP
        return tokens
