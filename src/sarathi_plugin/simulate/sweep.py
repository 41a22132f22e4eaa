"""Many simulations at once: import once and fork, or hand them to a Ray cluster."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, TypeVar

from sarathi_plugin.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Job = TypeVar("Job")
Result = TypeVar("Result")

PR_SET_PDEATHSIG = 1
KILLED = "A worker process was killed from outside, as happens when memory runs out: try with fewer workers."


def sweep(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    workers: int | None = None,
    ray_address: str | None = None,
) -> Iterator[tuple[Job, Result]]:
    """Run ``work`` on every job; yields (job, result) as they finish.

    work: a function at the top of a module, pure in its job. workers: processes, all cores when None; they are forked,
    so what is imported by now is not imported again, and end with this process, whatever ends it. ray_address: of a
    Ray cluster ("auto" for the local one), which is used instead. Raises ConfigError when Ray is asked for and not
    installed, and when a worker is killed; an exception of a job is raised here.
    """
    if ray_address is not None:
        yield from _on_ray(work, jobs, ray_address)
        return
    count = min(workers or len(os.sched_getaffinity(0)), max(1, len(jobs)))
    if count == 1:
        for job in jobs:
            yield job, work(job)
        return
    gc.collect()
    gc.freeze()  # forked processes then share what is there: their collections do not touch it
    try:
        yield from _in_processes(work, jobs, count)
    finally:
        gc.unfreeze()  # or what stays frozen is reported as leaked when Python ends


def _in_processes(
    work: Callable[[Job], Result], jobs: Sequence[Job], count: int
) -> Iterator[tuple[Job, Result]]:
    context, others = multiprocessing.get_context("fork"), multiprocessing.active_children()
    with ProcessPoolExecutor(count, context, bind_to_parent) as pool:
        pending = {pool.submit(work, job): job for job in jobs}
        ours = [process for process in multiprocessing.active_children() if process not in others]
        try:
            for done in as_completed(pending):
                yield pending.pop(done), done.result()
        except BrokenProcessPool as error:
            raise ConfigError(KILLED) from error
        finally:
            if pending:  # nobody waits for these any more, and one may take minutes
                for process in ours:
                    process.kill()


def bind_to_parent() -> None:
    """In a worker process: end with the command, whatever ends it, and leave Ctrl-C to the command."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent.pid:  # it ended before we asked to end with it
            os._exit(1)


def _on_ray(work: Callable[[Job], Result], jobs: Sequence[Job], address: str) -> Iterator[tuple[Job, Result]]:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError("A Ray address was given, but Ray is not installed: pip install ray.") from error
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    remote = ray.remote(work)
    pending = {remote.remote(job): job for job in jobs}
    while pending:
        done, _ = ray.wait(list(pending))
        for reference in done:
            yield pending.pop(reference), ray.get(reference)
