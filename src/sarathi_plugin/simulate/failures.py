"""What a server survives: in a simulation its figures would be taken for those of the policy."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

from sarathi_plugin.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.engine.driver import Driver
    from sarathi_plugin.records import StepRecord
    from sarathi_plugin.simulate.loop import EngineLoop


def check_policy(name: str, loops: Sequence[EngineLoop], steps: Sequence[Sequence[StepRecord]]) -> None:
    """Raise ConfigError when the policy of this name failed at any step of these engines.

    It goes on with stock decisions then. steps: their records, as far as they are kept.
    """
    drivers = _drivers(loops)
    failed, how = sum(driver.failed_steps for driver in drivers), ""
    if failed:
        how = next(driver.last_failure for driver in drivers if driver.failed_steps)
    elif failed := sum(_is_odd(record) for records in steps for record in records):
        how = "TypeError: of a plan, available_ns must be an int or None, relegated an int, and limit a str"
    if failed:
        raise ConfigError(
            f"The policy {name!r} failed at {failed} of {sum(loop.steps for loop in loops)} steps "
            f"({' '.join(how.split())[:300]}); nothing of such a run is the policy's."
        )


def check_tracking(loops: Sequence[EngineLoop]) -> None:
    """Raise ConfigError when our own part of any of these engines failed: what it told the policy is wrong since."""
    if lost := next((driver.lost_track for driver in _drivers(loops) if driver.lost_track), ""):
        raise ConfigError(
            f"The plugin lost track of the requests ({' '.join(lost.split())[:300]}); the figures of such a run would "
            "be wrong."
        )


def _drivers(loops: Sequence[EngineLoop]) -> list[Driver]:
    """Those of our schedulers; the stock one has none."""
    return [driver for loop in loops if (driver := getattr(loop.scheduler, "sarathi", None)) is not None]


def _is_odd(record: StepRecord) -> bool:
    """Whether a plan left something in the record that no file of steps can hold."""
    available: object = record.available_ns
    relegated: object = record.relegations
    limit: object = record.limit
    whole = (available is None or isinstance(available, Integral)) and isinstance(relegated, Integral)
    return not whole or not isinstance(limit, str)
