import threading
import time

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_MS
from sarathi_plugin.load.client import Outcome
from sarathi_plugin.load.dispatch import LEAD_NS, Progress, dispatch_lag_ns, run_open_loop
from sarathi_plugin.records import RequestTimeline
from sarathi_plugin.workload.model import ScheduledRequest, Workload


def workload(*offsets_ms):
    requests = [
        ScheduledRequest(request_id=f"r{i}", offset_ns=at * NS_PER_MS, prompt="x", max_tokens=1)
        for i, at in enumerate(offsets_ms)
    ]
    return Workload.ordered("test", requests)


def outcome(request, arrival_ns, sent_ns, status="finished"):
    timeline = RequestTimeline(
        request.request_id,
        "client",
        "",
        arrival_ns,
        sent_ns,
        None,
        (sent_ns,),
        sent_ns,
        status,
        1,
        1,
        1,
        1,
        "",
        1,
        0,
    )
    return Outcome(request, timeline)


def test_nobody_waits_for_answers():
    gate = threading.Event()
    sent = []

    def send(request, arrival_ns):
        sent.append(request.request_id)
        if len(sent) == 3:
            gate.set()
        assert gate.wait(5), "a later request waited for this one"
        return outcome(request, arrival_ns, time.monotonic_ns())

    result = run_open_loop(workload(0, 5, 10), send)
    assert sent == ["r0", "r1", "r2"]
    assert [o.request.request_id for o in result.outcomes] == ["r0", "r1", "r2"]


def test_intended_times_are_kept_when_the_client_lags():
    now = [0]

    def sleep(seconds):
        now[0] += round(seconds * 1e9) + 3 * NS_PER_MS  # every sleep is 3 ms too long

    result = run_open_loop(
        workload(0, 100, 101),
        lambda request, arrival_ns: outcome(request, arrival_ns, now[0]),
        clock=lambda: now[0],
        sleep=sleep,
    )
    assert result.start_ns == LEAD_NS
    assert [t.arrival_ns - result.start_ns for t in result.timelines] == [0, 100 * NS_PER_MS, 101 * NS_PER_MS]
    assert result.dispatch_lag_p99_ns <= 3 * NS_PER_MS
    assert dispatch_lag_ns(result.timelines, 100) == 3 * NS_PER_MS


def test_lag_of_nothing():
    assert dispatch_lag_ns([]) == 0


def test_progress_counts_up_to_the_end():
    seen = []
    run_open_loop(
        workload(0, 1, 2),
        lambda request, arrival_ns: outcome(
            request, arrival_ns, arrival_ns, "error" if request.request_id == "r1" else "finished"
        ),
        progress=seen.append,
    )
    assert seen[-1] == Progress(total=3, started=3, finished=3, failed=1)
    assert [p.finished for p in seen] == sorted(p.finished for p in seen)


def test_a_bug_in_send_is_shown_after_all_are_through():
    done = []

    def send(request, arrival_ns):
        if request.request_id == "r0":
            raise ZeroDivisionError
        done.append(request.request_id)
        return outcome(request, arrival_ns, arrival_ns)

    with pytest.raises(ZeroDivisionError):
        run_open_loop(workload(0, 20), send)
    assert done == ["r1"]


def test_workloads_are_checked():
    a = ScheduledRequest(request_id="a", offset_ns=5, prompt="x", max_tokens=1)
    b = ScheduledRequest(request_id="b", offset_ns=3, prompt="x", max_tokens=1)
    with pytest.raises(ConfigError, match="ascend"):
        Workload("w", (a, b))
    with pytest.raises(ConfigError, match="id of its own"):
        Workload("w", (a, a))
    assert Workload.ordered("w", [a, b]).span_ns == 2
