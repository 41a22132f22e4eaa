"""What was sent and what was not, also when a run is stopped in the moment it begins."""

from __future__ import annotations

import contextlib
import time

import pytest

from sarathi_plugin.load.client import Interrupted
from sarathi_plugin.workload.model import ScheduledRequest, Workload

gevent = pytest.importorskip("gevent")

WORKLOAD = Workload(
    "w", tuple(ScheduledRequest(request_id=f"r{i}", offset_ns=0, prompt="x", max_tokens=1) for i in range(5))
)


@pytest.mark.parametrize("begin", [True, False])
def test_every_request_of_a_stopped_run_is_told_or_unsent(begin: bool):
    from sarathi_plugin.loadtest.dispatcher import Dispatcher

    told: list[str] = []

    def send(request: ScheduledRequest, _due_ns: int) -> str:
        with contextlib.suppress(Interrupted):
            gevent.sleep(30)
        return request.request_id

    dispatcher = Dispatcher(WORKLOAD, send, told.append)
    run = gevent.spawn(dispatcher.run, time.monotonic_ns())
    gevent.sleep(0)  # all are handed to greenlets, of which none has run
    if begin:
        gevent.sleep(0)
    dispatcher.stop()
    run.join()
    ids = [request.request_id for request in WORKLOAD.requests]
    assert sorted(told + dispatcher.unsent) == ids
    assert dispatcher.sent == len(told) == (5 if begin else 0)
