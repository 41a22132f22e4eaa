"""``sarathi report --compare A B``: any two stored runs, whatever wrote them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_MS
from sarathi_plugin.evaluate import charts, metrics
from sarathi_plugin.evaluate.analysis import Claim
from sarathi_plugin.evaluate.document import Chart, Report, Section, Table
from sarathi_plugin.evaluate.metrics import CAPACITY, METRICS, metric_named
from sarathi_plugin.evaluate.pictures import WORST
from sarathi_plugin.evaluate.statistics import block_bootstrap, block_bootstrap_apart
from sarathi_plugin.evaluate.store import RUN, TIMELINES, read_run, writing
from sarathi_plugin.load.timelines import read_timelines
from sarathi_plugin.telemetry import parquet
from sarathi_plugin.telemetry.recording import read_recording

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sarathi_plugin.evaluate.statistics import Estimate, Indices
    from sarathi_plugin.records import RequestTimeline

COMPARED = (
    "fluid_share",
    "fluidity_index",
    "ttft_p50",
    "ttft_p90",
    "ttft_p99",
    "tbt_p50",
    "tbt_p90",
    "tbt_p99",
    "longest_freeze",
)
OVER = "requests"
RESAMPLES = 300


@dataclass(frozen=True, slots=True)
class Run:
    """One stored run. reasons: why it must not be used."""

    name: str
    timelines: list[RequestTimeline]
    reasons: list[str]


def read(path: Path) -> Run:
    """A run's folder, a Parquet file, timelines in JSON lines or a server's recording. Raises ConfigError."""
    if path.is_dir():
        if (path / RUN).is_file():
            stored = read_run(path)
            return Run(path.name, stored.timelines(skip=stored.facts.get("warm_up", 0)), stored.reasons)
        if (path / TIMELINES).is_file():
            return Run(path.name, parquet.read_timelines(path / TIMELINES), [])
        raise ConfigError(f"{path} holds no run: give the folder of one run, or a file of timelines.")
    if not path.is_file():
        raise ConfigError(f"Cannot read {path}: No such file or directory.")
    if path.suffix == ".parquet":
        return Run(path.stem, parquet.read_timelines(path), [])
    try:
        found = read_timelines(path)
    except ConfigError:
        found = read_recording(path).timelines
    return Run(path.name.partition(".")[0], found, [])


def compare(first: Path, second: Path, out: Path, metric_name: str, *, say: Callable[[str], None]) -> None:
    """Write the report of two runs. Raises ConfigError for runs that cannot be compared."""
    metric = metric_named(metric_name)
    if metric.name == CAPACITY:
        raise ConfigError("One run has no capacity; choose another --metric.")
    a, b = read(first), read(second)
    if a.name == b.name:
        a, b = Run(f"A ({first})", a.timelines, a.reasons), Run(f"B ({second})", b.timelines, b.reasons)
    check(a, b)
    report = build(a, b, metric)
    with writing(out):
        report.write(out, "compare")
    say(report.answer)
    say(f"report: {out / 'compare.html'} and {out / 'compare.md'}")


def check(a: Run, b: Run) -> None:
    """Raise ConfigError unless both may be used and are judged alike."""
    for run in (a, b):
        if not run.timelines:
            raise ConfigError(f"{run.name} holds no request; nothing can be compared.")
        if run.reasons:
            raise ConfigError(f"{run.name} is an invalid run and is not compared: {'; '.join(run.reasons)}.")
    curves = {t.curve for run in (a, b) for t in run.timelines}
    if len(curves) > 1:
        raise ConfigError(
            f"The runs were judged by different prefill curves ({', '.join(sorted(curves))}); run one of them "
            "again with the curve of the other."
        )
    promises: dict[str, set[tuple[int, int]]] = {}
    for timeline in (*a.timelines, *b.timelines):
        promises.setdefault(timeline.slo_class, set()).add((timeline.tbt_ns, timeline.ttft_slack_ns))
    if different := sorted(name for name, found in promises.items() if len(found) > 1):
        raise ConfigError(
            f"The runs were judged by different deadlines (class {different[0]}); run one of them again with the "
            "deadlines of the other."
        )


def build(a: Run, b: Run, metric: metrics.Metric) -> Report:
    """The report. B against A: paired by request where both had the same ones."""
    # Kinds of traffic number their requests: the same ids of two seeds are not the same requests.
    same = {(t.request_id, t.prompt_tokens) for t in a.timelines} & {
        (t.request_id, t.prompt_tokens) for t in b.timelines
    }
    paired = len(same) == len(a.timelines) == len(b.timelines)
    ours = sorted(b.timelines, key=lambda t: (t.arrival_ns, t.request_id))
    theirs = sorted(a.timelines, key=lambda t: (t.arrival_ns, t.request_id))
    if paired:
        place = {t.request_id: i for i, t in enumerate(ours)}
        theirs.sort(key=lambda t: place[t.request_id])
    claims = {
        name: Claim(
            METRICS[name], b.name, a.name, difference(METRICS[name], ours, theirs, paired=paired), OVER
        )
        for name in dict.fromkeys((metric.name, *COMPARED))
    }
    notes = [
        "One run of each: the interval tells how far this rests on the requests of these runs, not how far another run "
        "would differ; repeats (sarathi evaluate) tell that.",
        "Both runs had the same requests: they are compared request by request."
        if paired
        else "The runs had different requests: they are compared as wholes.",
    ]
    runs = {a.name: a.timelines, b.name: b.timelines}
    return Report(
        f"{b.name} against {a.name}", claims[metric.name].sentence(), notes, _sections(runs, claims)
    )


def difference(
    metric: metrics.Metric,
    ours: Sequence[RequestTimeline],
    theirs: Sequence[RequestTimeline],
    *,
    paired: bool,
) -> Estimate | None:
    """Difference or ratio of a figure, by block bootstrap over requests; not paired: each run apart."""

    def statistic(mine: Indices, his: Indices) -> float | None:
        a, b = metric.of([ours[i] for i in mine]), metric.of([theirs[i] for i in his])
        if a is None or b is None:
            return None
        if not metric.by_ratio:
            return a - b
        return a / b if b else None

    if paired:
        return block_bootstrap(len(ours), lambda indices: statistic(indices, indices), resamples=RESAMPLES)
    return block_bootstrap_apart((len(ours), len(theirs)), statistic, resamples=RESAMPLES)


def _sections(runs: dict[str, list[RequestTimeline]], claims: dict[str, Claim]) -> list[Section]:
    names = list(runs)
    rows = [
        [METRICS[name].title, *(METRICS[name].text(METRICS[name].of(found)) for found in runs.values()),
         claim.text()]
        for name, claim in claims.items()
    ]  # fmt: skip
    counts = ["requests", *(str(len(found)) for found in runs.values()), ""]
    panels: list[tuple[str, dict[str, list[float]], charts.Scale]] = [
        ("TTFT, ms", {name: metrics.ttft_ms(found) for name, found in runs.items()}, "log"),
        ("TBT, ms, per token", {name: metrics.tbt_ms(found) for name, found in runs.items()}, "log"),
        ("fluidity-index", {name: metrics.fluidity(found) for name, found in runs.items()}, "linear"),
    ]
    worst = []
    for name, found in runs.items():
        lowest = sorted(found, key=lambda t: (t.fluidity_index, -t.missed))[:WORST]
        worst.append((name, [(f"{t.prompt_tokens} tokens, index {t.fluidity_index:.2f}", t) for t in lowest]))
    tbt = sorted({t.tbt_ns / NS_PER_MS for found in runs.values() for t in found})
    deadlines = f"D_d {', '.join(f'{value:g}' for value in tbt)} ms"
    return [
        Section(
            "Figures", [Table(["", *names, f"{names[1]} against {names[0]}"], [counts, *rows], deadlines)]
        ),
        Section(
            "Distributions",
            [Chart("distributions", charts.distributions("distributions", panels, names), deadlines)],
        ),
        Section(
            "The worst requests",
            [
                Chart(
                    "worst",
                    charts.timelines("worst", worst),
                    "A tick for every token; red: past its deadline.",
                )
            ],
        ),
    ]
