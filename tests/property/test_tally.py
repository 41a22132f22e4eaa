"""A run is given up only if it would have failed: whatever its requests were, in whatever order they ended."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sarathi_plugin.core import NS_PER_MS, SloClass
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.records import RequestTimeline
from sarathi_plugin.search.criteria import Deadline, Fluid, Sarathi, TbtTtft, TtftTpot
from sarathi_plugin.workload.trace import Trace, TraceRequest

MS = NS_PER_MS
TARGETS = Targets(SloClass("standard", 50 * MS, 0), PrefillCurve(0, 0, 0))
CRITERIA = [
    Fluid(share=0.9), Fluid(share=0.5), Sarathi(tbt_s=0.1, tbt_percentile=90), Deadline(percentile=80),
    TbtTtft(tbt_percentile=80, ttft_percentile=70), TtftTpot(ttft_percentile=80, tpot_percentile=60),
]  # fmt: skip


@st.composite
def timelines(draw) -> list[RequestTimeline]:
    """Requests of 1 to 6 tokens, some late, some failed."""
    found = []
    for number in range(draw(st.integers(1, 25))):
        gaps = draw(st.lists(st.sampled_from([10, 40, 99, 101, 400]), min_size=0, max_size=5))
        times = [draw(st.sampled_from([20, 99, 101, 3000])) * MS]
        for gap in gaps:
            times.append(times[-1] + gap * MS)
        met = draw(st.integers(0, 20))
        delay = draw(st.sampled_from([0, 1999, 2001]))
        status = draw(st.sampled_from(["finished"] * 9 + ["error"]))
        slo = draw(st.sampled_from(["standard", "batch"]))
        found.append(
            RequestTimeline(
                f"r{number}", "simulator", slo, 0, 0, delay * MS, tuple(times), times[-1], status, 5, 50 * MS, 0, 0,
                "c", met, 20 - met,
            )
        )  # fmt: skip
    return found


@settings(max_examples=400, deadline=None)
@given(run=timelines(), which=st.sampled_from(CRITERIA))
def test_a_run_that_passes_is_never_given_up(run: list[RequestTimeline], which):
    requests = tuple(
        TraceRequest(
            request_id=t.request_id,
            offset_ns=0,
            prompt_tokens=5,
            output_tokens=len(t.token_ns),
            slo_class=t.slo_class,
        )
        for t in run
    )
    tally = which.tally(Trace("t", requests), TARGETS)
    lost = False
    for timeline in run:
        tally.ended(timeline)
        lost = lost or tally.lost((), 0)
    if lost:
        assert not which.verdict(1.0, run).passed
        assert tally.reason
