"""Traffic after a grid: its rate from what the grid took, requests at their times, a failed one is an error."""

from __future__ import annotations

import numpy as np
import pytest

from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.load.grid import GridCell
from sarathi_plugin.load.server import ServerError
from sarathi_plugin.load.traffic import BUSY, NOTES, Pace, design_traffic, drive_traffic, pace_of
from sarathi_plugin.records import RequestTimeline
from sarathi_plugin.workload.synthetic import GRID_ID
from sarathi_plugin.workload.trace import Trace, TraceRequest
from tests.unit.load.answers import answer, own_body

CELLS = [
    GridCell(0, 64, (100, 300)),
    GridCell(2, 64, (50,)),
    GridCell(4, 64, (50,)),
    GridCell(4, 2000, (50,)),
]


def timeline(prompt: int, ttft_ms: float, gaps_ms: tuple[float, ...] = ()) -> RequestTimeline:
    at = np.cumsum([ttft_ms, *gaps_ms]) * NS_PER_MS
    return RequestTimeline(
        "x", "client", "none", 0, 0, None, tuple(at.astype(int).tolist()), int(at[-1]), "finished", prompt, 1, 0,
        0, "", 0, 0,
    )  # fmt: skip


def stream(context: int, gap_ms: float) -> RequestTimeline:
    """One that met a prompt or two."""
    return timeline(context, 900, (gap_ms, gap_ms, 500.0, gap_ms, gap_ms))


GRID = [
    [timeline(100, 20), timeline(300, 60)],
    [*[stream(64, 5.0)] * 2, timeline(50, 700)],
    [*[stream(64, 10.0)] * 4, timeline(50, 700)],
    [*[stream(2000, 16.0)] * 4, timeline(50, 700)],
]


@pytest.mark.parametrize(("context", "gap_s"), [(10, 0.010), (900, 0.010), (1200, 0.016), (9000, 0.016)])
def test_the_pace_is_that_of_lone_prompts_and_of_all_streams_at_such_a_context(context: int, gap_s: float):
    pace = pace_of(CELLS, GRID, context)
    assert (pace.streams, pace.gap_s) == (4, pytest.approx(gap_s))
    assert pace.prompt_token_s == pytest.approx(0.0002)


def test_all_streams_and_their_prompts_are_what_a_server_can_take():
    # 10 streams of 50 tokens at 20 ms take 1 s, their prompts 10 x 100 x 1 ms another.
    assert Pace(0.001, 0.02, 10).most_per_s(100, 50) == pytest.approx(5)


@pytest.mark.parametrize("without", ["lone prompts", "gaps"])
def test_a_grid_that_tells_no_pace_is_an_error(without: str):
    cells, grid = (CELLS[1:], GRID[1:]) if without == "lone prompts" else (CELLS[:1], GRID[:1])
    with pytest.raises(ServerError, match="too few tokens to tell"):
        pace_of(cells, grid, 64)


def design(seconds: float = 40, max_context: int = 4096, seed: int = 3) -> Trace:
    return design_traffic(CELLS, GRID, seconds=seconds, max_context=max_context, seed=seed)


def means(trace: Trace) -> tuple[float, float]:
    prompts, outputs = zip(*((r.prompt_tokens, r.output_tokens) for r in trace.requests), strict=True)
    return float(np.mean(prompts)), float(np.mean(outputs))


def test_the_rate_keeps_the_server_as_busy_as_wanted_and_grows():
    trace = design(seconds=2000)
    rate = len(trace.requests) / 2000
    assert rate == pytest.approx(BUSY * pace_of(CELLS, GRID, 700).most_per_s(*means(trace)), rel=0.1)
    assert trace.span_ns / NS_PER_S == pytest.approx(2000, rel=0.1)
    half = sum(r.offset_ns < 1000 * NS_PER_S for r in trace.requests)
    assert 0.3 < half / len(trace.requests) < 0.45, "the second half should be the busier one"


def test_it_takes_about_the_time_asked_for_whatever_the_machine():
    slow = [
        [timeline(t.prompt_tokens, 30 * 20) if len(t.token_ns) == 1 else t for t in cell] for cell in GRID
    ]
    for grid in (GRID, slow):
        trace = design_traffic(CELLS, grid, seconds=200, max_context=4096, seed=1)
        assert trace.span_ns / NS_PER_S == pytest.approx(200, rel=0.35)
    assert len(design(seconds=0.001).requests) == 1


@pytest.mark.parametrize("max_context", [256, 1024, 4096])
def test_requests_are_of_unequal_length_and_fit_the_contexts_of_the_grid(max_context: int):
    trace = design(seconds=100, max_context=max_context)
    assert max(r.total_tokens for r in trace.requests) <= max_context + 1
    assert len({r.prompt_tokens for r in trace.requests}) > 20
    assert min(min(r.prompt_tokens, r.output_tokens) for r in trace.requests) >= 1


def test_a_seed_gives_it_again():
    assert design(seed=1) == design(seed=1)
    assert design(seed=1) != design(seed=2)


def small(count: int) -> Trace:
    """One every 50 ms."""
    return Trace(
        "traffic",
        tuple(
            TraceRequest(
                request_id=f"t-{i}", offset_ns=i * 50 * NS_PER_MS, prompt_tokens=5 + i, output_tokens=2
            )
            for i in range(count)
        ),
    )


def test_every_request_is_sent_in_full_and_progress_is_told(stand_in):
    server, told = stand_in(answer), []
    timelines = drive_traffic(server.url, "m", small(6), 0, note=told.append)
    assert sorted(len(body["prompt"]) for body in server.bodies) == [5, 6, 7, 8, 9, 10]
    assert all(body["max_tokens"] == 2 and body["ignore_eos"] for body in server.bodies)
    assert [t.status for t in timelines] == ["finished"] * 6
    assert not any(GRID_ID in headers["X-Request-Id"] for _, headers in server.headers)
    assert told[0] == "traffic: 6 requests, 20 a second"
    assert told[1:] == [f"{n} of 6 requests answered" for n in (2, 3, 5, 6)]
    assert len(told) == 1 + NOTES


def test_a_request_that_fails_is_an_error_of_the_server(stand_in):
    def script(handler):
        if len(own_body(handler)["prompt"]) == 6:
            handler.send_error(503)
        else:
            answer(handler)

    with pytest.raises(ServerError, match=r"^1 requests of the traffic failed, first: http 503"):
        drive_traffic(stand_in(script).url, "m", small(3), 0)
