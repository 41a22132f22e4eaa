"""Many jobs at once: every result beside its job, and errors are not swallowed."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.simulate.sweep import sweep


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    """What a sweep froze for its workers is collected again in other tests."""
    yield
    gc.unfreeze()


def square(number: int) -> int:
    return number * number


def slow_first(number: int) -> int:
    time.sleep(0.3 if number == 0 else 0)
    return number + 100


def who(_: object) -> int:
    return os.getpid()


def total(job: dict[str, list[int]]) -> int:
    return sum(job["numbers"])


def fail_at_three(number: int) -> int:
    if number == 3:
        raise ConfigError("Three is not possible.")
    return number


@pytest.mark.parametrize("workers", [1, 2, None])
def test_every_job_comes_back_once_with_its_own_result(workers: int | None):
    jobs = list(range(20))
    found = list(sweep(square, jobs, workers=workers))
    assert sorted(found) == [(n, n * n) for n in jobs]


def test_results_come_as_they_finish_and_still_match():
    found = list(sweep(slow_first, [0, 1, 2, 3], workers=2))
    assert found[-1] == (0, 100)
    assert sorted(found) == [(n, n + 100) for n in range(4)]


def test_one_worker_is_this_process_and_keeps_the_order():
    assert list(sweep(who, [3, 1, 2], workers=1)) == [(n, os.getpid()) for n in (3, 1, 2)]


def test_one_job_needs_no_other_process():
    assert list(sweep(who, ["only"], workers=8)) == [("only", os.getpid())]


def test_more_workers_are_other_processes():
    assert os.getpid() not in {pid for _, pid in sweep(who, [1, 2, 3], workers=2)}


@pytest.mark.parametrize("workers", [1, 2])
def test_jobs_may_be_equal_and_need_not_be_hashable(workers: int):
    jobs = [{"numbers": [1, 2]}, {"numbers": [1, 2]}, {"numbers": [5]}]
    found = list(sweep(total, jobs, workers=workers))
    assert sorted(result for _, result in found) == [3, 3, 5]
    assert all(total(job) == result for job, result in found)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_job_reaches_the_caller(workers: int):
    with pytest.raises(ConfigError, match=r"^Three is not possible\.$"):
        list(sweep(fail_at_three, [1, 2, 3, 4], workers=workers))


def test_no_jobs_are_no_results():
    assert list(sweep(square, [])) == []


def test_ray_that_is_not_installed_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError) as caught:
        list(sweep(square, [1], ray_address="auto"))
    assert str(caught.value) == "A Ray address was given, but Ray is not installed: pip install ray."


def kill_own_process(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(30)
    return number


def test_a_killed_worker_is_told_at_once_instead_of_waited_for():
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"^A worker process was killed .*: try with fewer workers\.$"):
        list(sweep(kill_own_process, [1, 2, 3], workers=2))
    assert time.monotonic() - began < 20
    assert not multiprocessing.active_children()


def test_who_stops_taking_results_waits_for_no_job():
    began = time.monotonic()
    results = sweep(sleep_for, [0.0, 30.0, 30.0], workers=2)
    assert next(results) == (0.0, 0.0)
    results.close()
    assert time.monotonic() - began < 20
    assert not multiprocessing.active_children()


def sleep_for(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


ENDLESS = """
import os, signal, time
from sarathi_plugin.simulate.sweep import sweep

def work(number):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)
list(sweep(work, [1, 2, 3], workers=2))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends the workers")
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_command(sig: signal.Signals):
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            workers = [int(process.stdout.readline()) for _ in range(2)]
            process.send_signal(sig)
            process.wait(20)
        finally:
            process.kill()
        deadline = time.monotonic() + 20
        while any(map(alive, workers)):
            assert time.monotonic() < deadline, f"a worker outlived {sig.name}"
            time.sleep(0.05)
