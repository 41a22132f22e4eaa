"""``sarathi demo`` behind its flags: folders, models, screen, report."""

from __future__ import annotations

import importlib
import signal
import time
from typing import TYPE_CHECKING, NoReturn

from sarathi_plugin.demo import models, picture, report
from sarathi_plugin.demo.arms import sarathi_arm
from sarathi_plugin.demo.console import Screen
from sarathi_plugin.demo.run import Demo, MakeArm
from sarathi_plugin.demo.scenario import FAST, REAL
from sarathi_plugin.outputs import make_folder

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from sarathi_plugin.demo.run import ArmResult, Machine


def demo(*, fast: bool, out: Path, seed: int, second: MakeArm = sarathi_arm) -> None:
    """Run the demo and show it. Raises ConfigError for bad input, ServerError when a server fails.

    second: the arm beside stock vLLM. The comparison does not decide whether this succeeds.
    """
    importlib.import_module("matplotlib")  # what is missing is to be missed now, not after ten minutes

    began_s = time.monotonic()
    make_folder(out)
    # Plain signals would end us without stopping the servers.
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with Screen() as screen:
            screen.stage("Preparing the model")
            cache = models.cache_folder()
            model = models.tiny_model(cache) if fast else models.smollm2_model(cache)
            scenario = FAST if fast else REAL
            job = Demo(model, scenario, out, seed, screen, second)
            machine = job.run()
            screen.stage("Drawing")
            _write(job, machine)
            _show(job, (time.monotonic() - began_s) / 60)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(signum: int, _frame: FrameType | None) -> NoReturn:
    """End by an exception, so that servers are stopped; more such signals must not disturb that."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + signum)


def _write(job: Demo, machine: Machine) -> None:
    report.write_json(job.out / "demo.json", job, machine)
    picture.draw(job.out / "timelines.png", [panel(result) for result in job.results], machine.slo)


def panel(result: ArmResult) -> picture.Panel:
    """One arm's run as a panel of the picture."""
    rows = []
    for outcome in result.run.outcomes:
        timeline, request = outcome.timeline, outcome.request
        size = f" ({timeline.prompt_tokens:,} tokens)" if request.kind == "document" else ""
        rows.append(picture.row(timeline, result.run.start_ns, request.request_id.replace("-", " ") + size))
    s = result.summary
    subtitle = (
        f"longest freeze {report.duration(s.longest_freeze_ns)}; fluidity-index {s.fluidity_index:.3f}; "
        f"{s.fluid_share:.0%} of requests fluid; TTFT P50 {report.duration(s.ttft_p50_ns)}; "
        f"{s.tokens_per_s:.0f} tokens/s"
    )
    return picture.Panel(result.arm.title, subtitle, tuple(rows))


def _show(job: Demo, minutes: float) -> None:
    screen = job.screen
    screen.say("")
    screen.console.print(report.table(job.results))
    for sentence in report.warnings(job.results):
        screen.say(f"Mind: {sentence}")
    if job.answer:
        screen.say(f"\nThe model, asked over the same API:\n  {job.answer}")
    screen.say(f"\nEvery token of both runs: {job.out / 'timelines.png'}")
    screen.say(f"Timelines, figures, curve and server logs: {job.out}")
    screen.say(
        f"Took {minutes:.1f} minutes. One run on one machine shows what happens; it takes repeats to decide anything."
    )
