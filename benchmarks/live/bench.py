"""Runs units: what is not yet done, on servers that start only if something is missing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from live.servers import DEFAULT, OURS, all_up
from live.units import Unit, measure
from sarathi_plugin.search.capacity import Verdict, find_capacity

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from live.servers import Promise
    from live.units import Store
    from sarathi_plugin.load.server import RunningServer, ServerSpec

CAPACITY_SHARE, CAPACITY_STEP, CAPACITY_RESOLUTION = 0.95, 1.25, 0.08
CAPACITY_RUNS = 6
CAPACITY_ARMS = (DEFAULT, OURS)
"""Who is searched, about so many runs each time."""


class NotDoneError(Exception):
    """A result is asked for that is not there, and no server to get it from."""


class Bench:
    """Runs what is not yet done. done: every result asked for so far."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.done: dict[Unit, dict[str, Any]] = {}

    def units(
        self, units: list[Unit], specs: dict[str, ServerSpec], promise: Promise
    ) -> dict[Unit, dict[str, Any]]:
        """Results in the order of the units; servers start only if something is missing."""
        found = {unit: result for unit in units if (result := self.store.get(unit)) is not None}
        missing = [unit for unit in units if unit not in found]
        if missing:
            needed = {arm: specs[arm] for arm in specs if any(unit.arm == arm for unit in missing)}
            with all_up(needed, promise) as servers:
                for number, unit in enumerate(missing, 1):
                    left = sum(later.expected_s for later in missing[number - 1 :])
                    say(f"{number}/{len(missing)}, about {left / 60:.0f} min left: {unit.file}")
                    found[unit] = self.run(unit, servers[unit.arm], promise)
        self.done |= found
        return {unit: found[unit] for unit in units}

    def run(self, unit: Unit, server: RunningServer | None, promise: Promise) -> dict[str, Any]:
        """One unit, from before or now. Raises NotDoneError without a server when it is not done yet."""
        result = self.store.get(unit)
        if result is None:
            if server is None:
                raise NotDoneError(unit.file)
            result = measure(unit, server, promise.targets)
            self.store.put(unit, result)
            say(
                f"  {result['fluid_share']:.1%} fluid, index {result['fluidity_index']:.3f} {result['marked']}"
            )
        self.done[unit] = result
        return result

    def capacity(
        self, options: argparse.Namespace, specs: Mapping[str, ServerSpec], promise: Promise
    ) -> dict[str, list[float]]:
        """Fluid capacity at 95 % (of every class) of stock's default and of ours, once a repeat, in turns."""
        try:
            return self.capacities(options, {}, promise)
        except NotDoneError:
            with all_up({arm: specs[arm] for arm in CAPACITY_ARMS}, promise) as servers:
                return self.capacities(options, servers, promise)

    def capacities(
        self, options: argparse.Namespace, servers: Mapping[str, RunningServer], promise: Promise
    ) -> dict[str, list[float]]:
        """By arm, a rate a repeat. Raises NotDoneError when a run is missing and its server is not there."""
        found: dict[str, list[float]] = {arm: [] for arm in CAPACITY_ARMS}
        start, total = min(options.rates), options.capacity * len(CAPACITY_ARMS)
        for repeat in range(options.capacity):
            for arm in rotated(CAPACITY_ARMS, repeat):
                done = sum(map(len, found.values()))
                minutes = (total - done) * CAPACITY_RUNS * (options.requests / start + 15) / 60
                if servers:
                    say(f"capacity {done + 1}/{total}, about {minutes:.0f} min left: {arm}")
                capacity = find_capacity(
                    self.judge(options, arm, repeat, servers.get(arm), promise),
                    start=start,
                    lowest=start / 8,
                    highest=start * 8,
                    resolution=CAPACITY_RESOLUTION,
                    step=CAPACITY_STEP,
                )
                found[arm].append(round(capacity.rate, 3))
        return found

    def judge(
        self,
        options: argparse.Namespace,
        arm: str,
        repeat: int,
        server: RunningServer | None,
        promise: Promise,
    ) -> Callable[[float], Verdict]:
        """One live run at a rate."""

        def judged(rate: float) -> Verdict:
            rate = round(rate, 4)
            unit = Unit(
                "capacity",
                arm,
                rate,
                repeat,
                5000 + repeat,
                options.requests,
                options.scale,
                promise.key,
                options.traffic,
            )
            share = min(self.run(unit, server, promise)["fluid_by_class"].values())
            return Verdict(rate, share >= CAPACITY_SHARE, share, None, f"{share:.1%} fluid")

        return judged


def rotated(arms: tuple[str, ...], by: int) -> tuple[str, ...]:
    """The arms, beginning with another one each time."""
    at = by % len(arms)
    return arms[at:] + arms[:at]


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)
