"""The parts of a report, each from the data of one experiment."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sarathi_plugin.evaluate.document import Section, Table
from sarathi_plugin.evaluate.metrics import CAPACITY, METRICS
from sarathi_plugin.yamlfile import dump

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sarathi_plugin.evaluate.analysis import Cell, Results
    from sarathi_plugin.evaluate.document import Block
    from sarathi_plugin.evaluate.evidence import Item
    from sarathi_plugin.evaluate.knobs import Tuning
    from sarathi_plugin.evaluate.metrics import Metric
    from sarathi_plugin.evaluate.spec import Experiment
    from sarathi_plugin.evaluate.statistics import Estimate
    from sarathi_plugin.records import RequestTimeline, StepRecord

TABLE = (
    "fluid_share", "fluidity_index", "ttft_p50", "ttft_p90", "ttft_p99", "tbt_p50", "tbt_p90", "tbt_p99", "delay_p50",
    "delay_p99", "longest_freeze", "tokens_per_s",
)  # fmt: skip

SHARED = ("classes", "default_class", "prefill_curve")
"""Settings of the plugin that are those of all arms: the deadlines."""


@dataclass(slots=True)
class Data:
    """What the parts are made of.

    judged: valid timelines by arm and cell, warm-up left out, with D_p and D_d; known: the same where the time of the
    first chunk is known (from the server or the simulator); steps: by arm, of the hardest cell.
    """

    wanted: Experiment
    results: Results
    arms: Mapping[str, Mapping[str, Any]]
    judged: dict[str, dict[Cell, list[RequestTimeline]]] = field(default_factory=lambda: defaultdict(dict))
    known: dict[str, dict[Cell, list[RequestTimeline]]] = field(default_factory=lambda: defaultdict(dict))
    steps: dict[str, list[StepRecord]] = field(default_factory=dict)

    @property
    def hardest(self) -> Cell | None:
        """The highest load of the first workload: where arms differ most."""
        cells = [cell for cell in self.results.cells() if cell[0] == self.wanted.workloads[0].name]
        return max(cells, key=lambda cell: cell[1], default=None)

    def all_of(self, arm: str, cell: Cell | None = None) -> list[RequestTimeline]:
        """Judged timelines of an arm, of one cell or all."""
        cells = self.judged.get(arm, {})
        return [t for where, found in cells.items() if cell in (None, where) for t in found]


def answers(data: Data) -> Section:
    """The subject against every other arm, on the metric of the answer and some more."""
    wanted, results = data.wanted, data.results
    names = list(
        dict.fromkeys(
            [
                wanted.metric,
                *([CAPACITY] if wanted.capacity else []),
                "fluid_share",
                "ttft_p50",
                "ttft_p99",
                "tbt_p99",
            ]
        )
    )
    others = [arm for arm in results.arms if arm != wanted.subject]
    rows = []
    for other in [wanted.baseline, *(arm for arm in others if arm != wanted.baseline)]:
        cells = [results.claim(METRICS[name], wanted.subject, other).text() for name in names]
        rows.append([other, str(data.arms[other]["role"]), *cells])
    head = ["against", "what it is", *(METRICS[name].title for name in names)]
    caption = (
        f"{wanted.subject} against each arm, paired by traffic and load: shares by difference, the rest by ratio. "
        "One of these is the answer; among so many intervals some miss the truth."
    )
    by_cell = [
        [
            f"{workload}, {load:g} requests/s",
            results.claim(METRICS["fluid_share"], wanted.subject, wanted.baseline, [(workload, load)]).text(),
        ]
        for workload, load in results.cells()
    ]
    return Section(
        "The comparison",
        [
            Table(head, rows, caption),
            Table(
                ["where", "fluid requests"],
                by_cell,
                f"{wanted.subject} against {wanted.baseline} at each load",
            ),
        ],
    )


def checks(items: Sequence[Item]) -> Section:
    """The checklist."""
    words = {"pass": "pass", "fail": "FAIL", "none": "not applicable"}
    rows = [[item.source, words[item.verdict], item.question, item.figure] for item in items]
    passed = sum(item.verdict == "pass" for item in items)
    failed = sum(item.verdict == "fail" for item in items)
    text = (
        f"{passed} passed, {failed} failed, {len(items) - passed - failed} not applicable; each computed from "
        'the runs. AP numbers are anti-patterns of "On Evaluating Performance of LLM Inference Serving Systems" (arXiv '
        "2507.09019), as far as they are known to us; the other items are ours."
    )
    head = ["source", "verdict", "question", "figure behind it"]
    return Section("Checklist", [text, Table(head, rows, marks=[item.verdict for item in items])])


def estimate(found: Estimate | None, metric: Metric) -> str:
    """A mean with its interval."""
    if found is None:
        return "-"
    if found.n == 1:
        return f"{metric.text(found.value)} (one value)"
    return f"{metric.text(found.value)} ({metric.text(found.low)} to {metric.text(found.high)})"


def tables(data: Data) -> Section:
    """P50, P90, P99 of everything, by load and arm, with intervals."""
    blocks: list[Block] = [
        "Means over runs with the 95 % interval of the mean, over the same blocks as the comparison. TTFT and "
        "scheduling delay are per request, TBT per token. Failed requests are not left out: they count as not fluid, "
        "and those that timed out with what they had waited for their next token by then."
    ]
    for workload, load in data.results.cells():
        cell = (workload, load)
        rows = [["valid runs", *(str(len(data.results.of(arm, cell))) for arm in data.results.arms)]]
        for metric in (METRICS[name] for name in TABLE):
            means = (data.results.mean(metric, arm, cell) for arm in data.results.arms)
            rows.append([metric.title, *(estimate(mean, metric) for mean in means)])
        blocks.append(Table(["", *data.results.arms], rows, f"{workload} at {load:g} requests/s"))
    return Section("Figures", blocks)


def tuning(data: Data, found: Mapping[str, Tuning]) -> Section:
    """What was tried of every tuned arm."""
    if not found:
        return Section("Tuning", ["Nothing was tuned."])
    rows = []
    for arm, one in found.items():
        refused = sum(trial.score is None for trial in one.trials)
        first = one.trials[0].score
        chosen = ", ".join(
            f"{name} = {value:.3g}" if isinstance(value, float) else f"{name} = {value}"
            for name, value in one.best.knobs.items()
        )
        rows.append([
            arm, str(len(one.trials)), str(refused), ", ".join(one.space), "-" if first is None else f"{first:.4f}",
            f"{one.best.score or 0:.4f}", chosen or "as written",
        ])  # fmt: skip
    head = ["arm", "trials", "refused", "knobs", "score as written", "best score", "chosen"]
    share = data.wanted.tune.load_share if data.wanted.tune else 1.0
    loads = "" if share == 1 else f" at {share:.3g} times the loads compared at"
    text = (
        f"In the simulator, on training seeds{loads}. Score: mean share of fluid requests, ties broken by "
        "the fluidity-index; the first trial is the arm as it was written."
    )
    return Section("Tuning", [text, Table(head, rows)])


def runs(data: Data) -> Section:
    """Every run that was not used, and what was checked of all."""
    bad = [[run.unit.name, "; ".join(run.reasons)] for run in data.results.invalid]
    checked = [run.facts["validity"] for run in data.results.runs if "validity" in run.facts]
    lag = max((v.get("lag_p99_ms", 0.0) for v in checked), default=0.0)
    cpu = max((v["client_cpu"] for v in checked if v.get("client_cpu") is not None), default=None)
    text = (
        f"{len(data.results.runs)} runs, {len(bad)} invalid. Slowest dispatch P99 of a run: {lag:.1f} ms; busiest "
        f"client: {'-' if cpu is None else f'{cpu:.0%} of a core'}. A run is invalid when its client "
        "lagged or was busy, a request failed, or lengths were not as asked; it is kept, listed here, and used nowhere."
    )
    return Section(
        "Validity of the runs", [text, *([Table(["run", "why it is not used"], bad)] if bad else [])]
    )


def setting(data: Data, environments: Mapping[str, Mapping[str, Any]]) -> Section:
    """What was run on what."""
    wanted = data.wanted
    simulated, live = (
        f"simulated on the profile {_short(wanted.profile)}",
        f"live, model {_short(wanted.live.model)}",
    )
    slo = (f"{n}: D_d {s.tbt_ms:g} ms, TTFT slack {s.ttft_slack_ms:g} ms" for n, s in wanted.classes.items())
    rows = [
        ["mode", simulated if wanted.mode == "simulated" else live],
        ["deadlines", ", ".join(slo)],
        ["seeds, repeats", f"{', '.join(map(str, wanted.seeds))}; {wanted.repeats}"],
    ]
    for case in wanted.workloads:
        loads = ", ".join(f"{load:g}" for load in case.loads)
        what = f"{_short(case.source)}, lengths x {case.prompt_scale:g} and x {case.output_scale:g}"
        counts = f"{case.requests} judged requests after {case.warm_up} of warm-up"
        rows.append([f"workload {case.name}", f"{what}, at {loads} requests/s; {counts}"])
    for env in environments.values():
        packages = ", ".join(f"{name} {version}" for name, version in env["packages"].items())
        git = env["git"]
        state = f"commit {git['commit'][:12]}, {git['changed_files']} files changed" if git else "no checkout"
        where = f"{env['hardware']}; {env['system']}; Python {env['python']}"
        rows.append(["environment", f"{where}; {packages}; {state}"])
    arms = [
        [
            name,
            str(arm["role"]),
            _settings(arm["engine"], "sarathi"),
            _settings(arm["engine"].get("sarathi", {}), *SHARED) or "-",
            " ".join(arm["flags"]) or "-",
        ]
        for name, arm in data.arms.items()
    ]
    head = ["arm", "role", "engine", "settings of ours", "flags"]
    return Section("Setting", [Table(["", ""], rows), Table(head, arms)])


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _settings(found: Mapping[str, Any], *but: str) -> str:
    """In one line, as YAML has them; without those of some names."""
    return dump(
        {key: value for key, value in found.items() if key not in but},
        default_flow_style=True, sort_keys=False, width=math.inf,
    ).strip()[1:-1]  # fmt: skip
