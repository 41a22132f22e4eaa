"""Items of the checklist about baselines: alike, told apart from their implementation, tuned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarathi_plugin.evaluate.arms import PLUGIN_ONLY
from sarathi_plugin.evaluate.evidence import Evidence, Item, mark
from sarathi_plugin.evaluate.knobs import BUDGET, BUDGETS
from sarathi_plugin.evaluate.metrics import METRICS
from sarathi_plugin.evaluate.store import replayed

if TYPE_CHECKING:
    from collections.abc import Iterable

STOCK_SCHEDULERS = ("stock", "vllm")
FEWEST_BUDGETS = 4
"""A search over fewer token budgets than this could not have found a good one."""

LEAST_SERVED = 0.5
"""A search whose best setting leaves more than half of the requests late was done where no setting serves."""


def implementation(found: Evidence) -> Item:
    """AP1: one engine for all arms, alike but for scheduler and tuned settings."""
    given = {name: arm for name, arm in found.arms.items() if not str(arm["role"]).startswith("ablation")}
    settings = {
        name: {**arm["engine"], "flags": arm["flags"], "profile": arm["profile"], "url": arm["url"]}
        for name, arm in given.items()
    }
    keys = {key for one in settings.values() for key in one} - {"scheduler", "sarathi", BUDGET}
    differs = [
        key
        for key in sorted(keys)
        if len({repr(one.get(key)) for name, one in settings.items() if key not in _space(found, name)}) > 1
    ]
    figure = f"arms differ in {', '.join(differs)}" if differs else "one vLLM, the same flags in every arm"
    return Item("AP1", "Are arms alike but for scheduler and tuned settings?", mark(not differs), figure)


def _space(found: Evidence, arm: str) -> set[str]:
    return set(found.tuning[arm].space) if arm in found.tuning else set()


def ablation(found: Evidence) -> Item:
    """AP1: is the plugin's own cost told from what its decisions are worth?"""
    question = "Is the cost of the implementation told apart from the algorithm (ablations)?"
    if PLUGIN_ONLY not in found.arms:
        return Item("AP1", question, "fail", f"no arm {PLUGIN_ONLY!r}: ablations: true adds it")
    claim = found.results.claim(METRICS[found.wanted.metric], PLUGIN_ONLY, found.wanted.baseline)
    return Item(
        "AP1",
        question,
        "pass",
        f"the plugin with the baseline's decisions against the baseline: {claim.text()}",
    )


def tuned(found: Evidence) -> Item:
    """AP2: was the baseline tuned, with as many trials as the subject, over enough, and to a good end?"""
    question = "Was the baseline tuned for this setting, with as many trials as the subject?"
    base, subject = found.wanted.baseline, found.wanted.subject
    trials = {name: _ran(found, name) for name in (base, subject)}
    why = []
    if trials[base] == 0:
        why.append("the baseline was not tuned")
    elif trials[base] < trials[subject]:
        why.append(f"{trials[base]} trials of the baseline, {trials[subject]} of the subject")
    why += _narrow(found, base)
    why += _in_vain(found, base)
    why += _beaten(found, base)
    counts = f"{base}: {trials[base]} trials, {subject}: {trials[subject]} trials"
    return Item("AP2", question, mark(not why), "; ".join([counts, *why]))


def _ran(found: Evidence, arm: str) -> int:
    """Trials of an arm's tuning that gave a score: one that was refused tells nothing."""
    return sum(trial.score is not None for trial in found.tuning[arm].trials) if arm in found.tuning else 0


def _narrow(found: Evidence, base: str) -> list[str]:
    """A search that could not have found a good budget is none."""
    if (
        base not in found.tuning
        or found.arms[base]["engine"].get("scheduler", "stock") not in STOCK_SCHEDULERS
    ):
        return []
    knob = found.tuning[base].space.get(BUDGET)
    if knob is None:
        return [f"{BUDGET} was not among its knobs"]
    choices = knob.get("choices")
    covered = len(choices) if choices else sum(knob["low"] <= float(b or 0) <= knob["high"] for b in BUDGETS)
    return [f"only {covered} values of {BUDGET} were allowed"] if covered < FEWEST_BUDGETS else []


def _in_vain(found: Evidence, base: str) -> list[str]:
    """Where hardly anybody is served under any setting, the search cannot tell one setting from another."""
    score = (found.tuning[base].best.score or 0.0) if base in found.tuning else 1.0
    if score >= LEAST_SERVED:
        return []
    return [
        f"at best {score:.0%} of requests were fluid where it was tuned: a profile of this machine "
        "(sarathi profile record) or a lower load_share would tell settings apart"
    ]


def _beaten(found: Evidence, base: str) -> list[str]:
    """Another arm of vLLM's own that does better shows that the baseline is not at its best."""
    better = []
    for name, arm in found.arms.items():
        if name in (base, PLUGIN_ONLY) or arm["engine"].get("scheduler", "stock") not in STOCK_SCHEDULERS:
            continue
        claim = found.results.claim(METRICS[found.wanted.metric], name, base)
        if claim.shown and claim.better:
            better.append(f"{name} beats it: {claim.amount()}")
    return better


def disjoint(found: Evidence) -> Item:
    """Tuned on other traffic than compared on?"""
    question = "Was tuning done on other traffic than the comparison?"
    used = {seed for tuning in found.tuning.values() for seed in tuning.seeds}
    if not used:
        return Item("ours", question, "none", "nothing was tuned")
    both = used & set(found.wanted.seeds)
    figure = f"tuned on seeds {_list(used)}, compared on {_list(found.wanted.seeds)}"
    same = replayed(found.wanted)
    if same:
        figure += f"; {', '.join(same)}: a replayed trace is the same requests under every seed"
    return Item("ours", question, mark(not both and not same), figure)


def _list(values: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(values)))
