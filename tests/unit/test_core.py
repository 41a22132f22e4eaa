"""The shared types: what their derived values say."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version

import pytest

import sarathi_plugin
from sarathi_plugin.core import Chunk, RequestRow, SloClass, StepPlan, StepShape, StepView
from sarathi_plugin.records import RequestTimeline, StepRecord
from sarathi_plugin.tolerance import Tolerance
from tests.unit.policies.views import LinearModel

SLO = SloClass("standard", 100, 1000)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (StepShape(), "empty"),
        (StepShape(decode_rows=1, decode_tokens=1, decode_context=9), "decode"),
        (StepShape(prefill_tokens=5), "prefill"),
        (StepShape(decode_rows=1, decode_tokens=1, decode_context=9, prefill_tokens=5), "mixed"),
    ],
)
def test_the_kind_of_a_step_follows_from_what_it_carries(shape: StepShape, kind: str):
    assert shape.kind == kind


def test_a_chunk_adds_its_tokens_and_query_key_pairs():
    shape = StepShape(2, 3, 400, 10, 50.0).with_chunk(Chunk(tokens=8, context=100))
    assert shape == StepShape(2, 3, 400, 18, 50.0 + 8 * (100 + 4))


@pytest.mark.parametrize("split", [1, 17, 99])
def test_a_prompt_has_the_same_pairs_in_one_chunk_or_two(split: int):
    whole = StepShape().with_chunk(Chunk(100, 0))
    parts = StepShape().with_chunk(Chunk(split, 0)).with_chunk(Chunk(100 - split, split))
    assert parts == whole


def test_remaining_tokens_are_those_not_computed():
    row = RequestRow("r", 0, SLO, 0, 100, 10, 0, 0, total_tokens=120, computed_tokens=50)
    assert row.remaining_tokens == 70


def timeline(**changes: object) -> RequestTimeline:
    given: dict[str, object] = {
        "request_id": "r", "source": "server", "slo_class": "standard", "arrival_ns": 100, "sent_ns": None,
        "scheduled_ns": 120, "token_ns": (150, 150, 190), "end_ns": 190, "status": "finished", "prompt_tokens": 9,
        "tbt_ns": 10, "ttft_slack_ns": 5, "prefill_ns": 20, "curve": "c", "met": 9, "missed": 1,
    }  # fmt: skip
    return RequestTimeline(**(given | changes))


def test_a_timeline_knows_ttft_and_gaps_per_token():
    assert timeline().ttft_ns == 50
    assert timeline().gaps_ns == [0, 40]
    assert timeline(token_ns=()).ttft_ns is None
    assert timeline(token_ns=()).gaps_ns == []


@pytest.mark.parametrize(
    ("changes", "fluidity"),
    [
        ({}, 0.9),
        ({"met": 0, "missed": 4}, 0.0),
        ({"met": 0, "missed": 0}, 1.0),
        ({"met": 0, "missed": 0, "status": "aborted"}, 0.0),
        ({"met": 0, "missed": 0, "status": "error"}, 0.0),
        ({"met": 0, "missed": 0, "status": "timeout"}, 0.0),
        ({"met": 3, "missed": 1, "status": "aborted"}, 0.75),
    ],
)
def test_fluidity_of_a_timeline_and_a_failure_without_deadlines_is_zero(
    changes: dict[str, object], fluidity: float
):
    assert timeline(**changes).fluidity_index == fluidity


def test_the_default_plan_touches_no_lever():
    assert StepPlan() == StepPlan(
        budget=None, prefills=None, waiting=None, skip_decodes=False, skip_prefills=False, skip_some=(),
        max_running=None, whole_prompts=False,
    )  # fmt: skip


def test_a_record_lasts_from_start_to_end():
    record = StepRecord(
        1, 100, 130, 190, StepShape(), 0, 0, None, 1, "stock", 0, 0, 0, 0, 0, 0, fallback=False
    )
    assert record.duration_ns == 60


@pytest.mark.parametrize("cls", [SloClass, StepPlan, StepRecord, RequestTimeline])
def test_what_crosses_a_thread_or_process_cannot_be_changed(cls: type):
    assert cls.__dataclass_params__.frozen
    first = dataclasses.fields(cls)[0].name
    thing = cls.__new__(cls)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(thing, first, 1)


def test_an_empty_view_has_no_work():
    view = StepView(LinearModel(), Tolerance([]))
    assert (view.running, list(view.waiting), view.has_prefill_work) == (0, [], False)
    assert view.decode_shape == StepShape()


def test_a_view_reads_the_queue_only_when_asked():
    view = StepView(LinearModel(), Tolerance([]))
    calls = []
    row = RequestRow("r", 0, SLO, 0, 1, 1, 0, 0, 1)

    def load() -> list[RequestRow]:
        calls.append(1)
        return [row]

    view.load_waiting, view.waiting_count = load, 1
    assert view.has_prefill_work
    assert not calls
    assert view.waiting == [row]
    assert len(calls) == 1


def test_a_view_counts_running_requests_of_both_kinds():
    view = StepView(LinearModel(), Tolerance([]))
    view.decodes, view.decode_tokens, view.decode_context = 3, 6, 900
    view.prefills = [RequestRow("r", 0, SLO, 0, 1, 1, 0, 0, 1)]
    assert view.running == 4
    assert view.has_prefill_work
    assert view.decode_shape == StepShape(3, 6, 900)


def test_the_package_knows_its_version_and_nothing_else():
    assert sarathi_plugin.__version__ == version("sarathi-plugin")
    with pytest.raises(AttributeError, match="no attribute 'versoin'"):
        sarathi_plugin.versoin  # noqa: B018
