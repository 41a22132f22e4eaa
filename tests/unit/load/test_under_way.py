"""Stalls while they last."""

from sarathi_plugin.core import NS_PER_MS
from sarathi_plugin.load.stream import CompletionStream
from sarathi_plugin.load.under_way import Overdue, UnderWay, overdue

MS = NS_PER_MS


def stream_of(*times_ms):
    stream = CompletionStream()
    for time_ms in times_ms:
        stream.take('{"choices": [{"text": "x"}]}', time_ms * MS)
    return stream


def test_a_request_is_overdue_from_its_deadline_on():
    waiting = UnderWay(CompletionStream(), arrival_ns=0, first_ns=300 * MS, tbt_ns=100 * MS)
    assert waiting.overdue_ns(300 * MS) == 0
    assert waiting.overdue_ns(420 * MS) == 120 * MS


def test_early_tokens_bank_time_and_late_ones_begin_anew():
    stream = stream_of(100, 150)
    request = UnderWay(stream, arrival_ns=0, first_ns=300 * MS, tbt_ns=100 * MS)
    assert request.overdue_ns(499 * MS) == 0  # due at 300, 400, 500
    assert request.overdue_ns(650 * MS) == 150 * MS
    stream.take('{"choices": [{"text": "x"}]}', 650 * MS)
    assert request.overdue_ns(660 * MS) == 0
    assert request.overdue_ns(760 * MS) == 10 * MS


def test_the_worst_of_many():
    requests = [UnderWay(stream_of(), 0, first, 50 * MS) for first in (100 * MS, 200 * MS, 900 * MS)]
    assert overdue(requests, 500 * MS) == Overdue(2, 400 * MS)
    assert overdue([], 0) == Overdue()
    assert Overdue(1, 5) + Overdue(2, 3) == Overdue(3, 5)
