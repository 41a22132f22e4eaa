"""The checklist, every item computed: pass, fail or not applicable, and the figure behind it.

AP1, AP2, AP4, AP7 and AP8 are anti-patterns of "On Evaluating Performance of LLM Inference Serving Systems" (arXiv
2507.09019), by the names and questions of that paper as far as they are known to us. The other items are ours.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from sarathi_plugin.evaluate.baselines import ablation, disjoint, implementation, tuned
from sarathi_plugin.evaluate.evidence import Evidence, Item, mark
from sarathi_plugin.evaluate.metrics import METRICS
from sarathi_plugin.evaluate.store import trace_of

if TYPE_CHECKING:
    from collections.abc import Mapping

ENOUGH_PAIRS = 3
ENOUGH_REQUESTS = 100
"""A P99 rests on at least so many requests."""

ENOUGH_SPREAD = 3.0
"""P90 over P50 of prompt lengths, or the longest median over the shortest between workloads."""


def checklist(found: Evidence) -> list[Item]:
    """All items in order."""
    return [
        implementation(found),
        ablation(found),
        tuned(found),
        disjoint(found),
        workloads(found),
        lengths(found),
        distributions(found),
        normalised(found),
        speculative(found),
        validity(found),
        repeats(found),
        load_range(found),
        deadlines(found),
        interleaved(found),
        same_everything(found),
    ]


def workloads(found: Evidence) -> Item:
    """AP4: more than one source of traffic?"""
    sources = {case.source for case in found.wanted.workloads}
    names = ", ".join(sorted(source.rpartition("/")[2] for source in sources))
    figure = f"{len(sources)} source{'s' * (len(sources) != 1)}: {names}"
    return Item("AP4", "Is there more than one source of traffic?", mark(len(sources) > 1), figure)


def lengths(found: Evidence) -> Item:
    """AP4: do prompt lengths spread?"""
    medians, spreads, texts = [], [], []
    for case in found.wanted.workloads:
        prompts = sorted(
            r.prompt_tokens for r in trace_of(case, case.loads[0], found.wanted.seeds[0]).requests
        )
        middle, ninth = statistics.median(prompts), prompts[int(0.9 * (len(prompts) - 1))]
        medians.append(middle)
        spreads.append(ninth / middle)
        texts.append(f"{case.name} P50 {middle:.0f}, P90 {ninth} tokens")
    widest = max(*spreads, max(medians) / min(medians))
    figure = f"{'; '.join(texts)}; widest ratio {widest:.1f}"
    return Item(
        "AP4",
        f"Do prompt lengths spread by a factor of {ENOUGH_SPREAD:g} or more?",
        mark(widest >= ENOUGH_SPREAD),
        figure,
    )


def distributions(found: Evidence) -> Item:
    """AP7: distributions and tails, on enough requests?"""
    fewest = min(found.samples.values(), default=0)
    figure = f"CDFs and P50, P90, P99 of all arms; fewest judged requests of an arm: {fewest}"
    enough = fewest >= ENOUGH_REQUESTS
    return Item(
        "AP7", f"Are distributions shown, on {ENOUGH_REQUESTS} requests or more?", mark(enough), figure
    )


def normalised(found: Evidence) -> Item:
    """AP8: does the claim rest on a figure that is divided by a length?"""
    metric = METRICS[found.wanted.metric]
    figure = f"the claim is about {metric.title}; TBT is shown per token, with the longest freeze"
    return Item(
        "AP8", "Does no claim rest on a normalised figure alone?", mark(not metric.normalised), figure
    )


def speculative(found: Evidence) -> Item:
    """Speculative decoding: judged at the tail and by fluidity?"""
    question = "Is speculative decoding judged at P99 and by fluidity?"
    speaks = [
        n
        for n, arm in found.arms.items()
        if arm["engine"].get("speculation") or "--speculative-config" in arm["flags"]
    ]
    if not speaks:
        return Item("ours", question, "none", "no arm speculates")
    name = found.wanted.metric
    fits = name in ("fluid_share", "fluidity_index", "capacity") or name.endswith("_p99")
    other = found.wanted.baseline if found.wanted.subject in speaks else found.wanted.subject
    arm = found.wanted.subject if found.wanted.subject in speaks else speaks[0]
    texts = [
        f"{m.title} {found.results.claim(m, arm, other).amount()}"
        for m in (METRICS["tbt_p50"], METRICS["tbt_p99"])
    ]
    return Item(
        "ours",
        question,
        mark(fits),
        f"the claim is about {METRICS[name].title}; {arm} over {other}: {', '.join(texts)}",
    )


def validity(found: Evidence) -> Item:
    """Were runs left out because they were invalid?"""
    bad, total = len(found.results.invalid), len(found.results.runs)
    return Item(
        "ours", "Is every run valid?", mark(bad == 0), f"{bad} of {total} runs are invalid and not used"
    )


def repeats(found: Evidence) -> Item:
    """Are there enough pairs for an interval?"""
    claim = found.results.claim(METRICS[found.wanted.metric], found.wanted.subject, found.wanted.baseline)
    n = claim.estimate.n if claim.estimate else 0
    figure = f"{n} {claim.over} with valid pairs, {found.wanted.repeats} repeats of each"
    return Item(
        "ours",
        f"Are there {ENOUGH_PAIRS} pairs or more behind the interval?",
        mark(n >= ENOUGH_PAIRS),
        figure,
    )


def load_range(found: Evidence) -> Item:
    """Do the loads reach from where all is well to where something breaks?"""
    question = "Do the loads reach from all fluid to not all fluid?"
    shares = [
        mean.value
        for cell in found.results.cells()
        for arm in found.results.arms
        if (mean := found.results.mean(METRICS["fluid_share"], arm, cell)) is not None
    ]
    if not shares:
        return Item("ours", question, "fail", "no valid run")
    return Item(
        "ours",
        question,
        mark(min(shares) < 0.99 <= max(shares)),
        f"from {min(shares):.1%} to {max(shares):.1%} fluid",
    )


def deadlines(found: Evidence) -> Item:
    """Can the machine keep D_d at all when nothing interferes?"""
    question = "Is every D_d longer than a decode step without interference?"
    if found.decode_ms is None:
        return Item("ours", question, "none", "the machine's own decode step is not known")
    tightest = min(slo.tbt_ms for slo in found.wanted.classes.values())
    times = tightest / found.decode_ms
    figure = f"tightest D_d {tightest:g} ms, {times:.1f} times a lone decode step of {found.decode_ms:.1f} ms"
    return Item("ours", question, mark(tightest > found.decode_ms), figure)


def interleaved(found: Evidence) -> Item:
    """Did arms take turns?"""
    question = "Did the arms take turns, so that drift hits all alike?"
    started: dict[str, list[int]] = {
        run.unit.arm: [] for run in found.results.runs if "started_ns" in run.facts
    }
    if not started:
        return Item("ours", question, "none", "simulated: there is no drift")
    order = sorted(
        (run for run in found.results.runs if "started_ns" in run.facts),
        key=lambda r: str(r.facts.get("ended")),
    )
    for place, run in enumerate(order):
        started[run.unit.arm].append(place)
    means = [statistics.fmean(places) for places in started.values()]
    apart = (max(means) - min(means)) / max(1, len(order) - 1)
    return Item(
        "ours",
        question,
        mark(apart < 0.2),
        f"mean places of the arms in the order of runs differ by {apart:.0%}",
    )


def same_everything(found: Evidence) -> Item:
    """One code, one machine for all runs?"""
    used = {str(run.facts.get("environment")) for run in found.results.runs}
    what = [
        f"{env['hardware']}, vLLM {_vllm(env)}, code {env['code']}"
        for key, env in found.environments.items()
        if key in used
    ]
    figure = f"{len(used)} environment{'s' * (len(used) != 1)}: {'; '.join(what)}"
    return Item(
        "ours", "Did all runs have the same code, versions and machine?", mark(len(used) == 1), figure
    )


def _vllm(env: Mapping[str, Any]) -> str:
    return str(env["packages"].get("vllm", "unknown"))
