"""Many simulations at once: import once and fork, or hand them to a Ray cluster."""

from __future__ import annotations

import gc
import multiprocessing
import os
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from sarathi_plugin.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Job = TypeVar("Job")
Result = TypeVar("Result")


def sweep(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    workers: int | None = None,
    ray_address: str | None = None,
) -> Iterator[tuple[Job, Result]]:
    """Run ``work`` on every job; yields (job, result) as they finish.

    work: a function at the top of a module, pure in its job. workers: processes, all cores when None; they are forked,
    so what is imported by now is not imported again. ray_address: of a Ray cluster ("auto" for the local one), which is
    used instead. Raises ConfigError when Ray is asked for and not installed; an exception of a job is raised here.
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
    context = multiprocessing.get_context("fork")
    try:
        with context.Pool(count) as pool:
            numbered = pool.imap_unordered(partial(_numbered, work), list(enumerate(jobs)))
            for number, result in numbered:
                yield jobs[number], result
    finally:
        gc.unfreeze()  # or what stays frozen is reported as leaked when Python ends


def _numbered(work: Callable[[Job], Result], numbered: tuple[int, Job]) -> tuple[int, Result]:
    """Carries a job's number along: results come in any order, and jobs need not be hashable."""
    number, job = numbered
    return number, work(job)


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
