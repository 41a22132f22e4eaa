"""Every item is computed: each has data that pass and data that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sarathi_plugin.evaluate.arms import resolve
from sarathi_plugin.evaluate.checklist import checklist
from sarathi_plugin.evaluate.evidence import Evidence, Item
from sarathi_plugin.evaluate.knobs import STOCK_KNOBS, Trial, Tuning
from sarathi_plugin.evaluate.report import one_traffic
from tests.unit.evaluate.experiments import experiment, results, run, settings

ENVIRONMENT = {"hardware": "h", "packages": {"vllm": "0.32"}, "code": "abc"}
STOCK, OURS = settings()["arms"]
CHATS: dict[str, Any] = settings()["workloads"][0]
SPACE = {name: knob.model_dump(exclude_none=True) for name, knob in STOCK_KNOBS.items()}


def tuning(
    arm: str,
    trials: int,
    *,
    space: dict[str, Any] | None = None,
    seeds: tuple[int, ...] = (0,),
    score: float = 0.5,
) -> Tuning:
    return Tuning(
        arm, tuple(Trial({}, score) for _ in range(trials)), seeds, SPACE if space is None else space
    )


def items(shares: dict[str, float] | None = None, **more: Any) -> dict[str, Item]:
    """The checklist of an experiment in which every arm has these shares of fluid requests, by its first words."""
    tuned = more.pop("tuning", {"stock": tuning("stock", 20)})
    changed = {key: more.pop(key) for key in ("decode_ms", "samples", "environments", "runs") if key in more}
    wanted = experiment(seeds=[11, 12, 13], **more)
    arms = {arm.name: arm.facts() for arm in resolve(wanted, {})}
    found = changed.get("runs") or [
        run(arm, seed, (shares or {}).get(arm, 0.9) + (0.1 if load == 2 else 0), load=load)
        for arm in arms
        for seed in wanted.seeds
        for load in (2.0, 4.0)
    ]
    evidence = Evidence(
        wanted,
        arms,
        tuned,
        results(found),
        changed.get("environments", {"e": ENVIRONMENT}),
        changed.get("decode_ms", 10.0),
        changed.get("samples", {"stock": 200}),
    )
    return {" ".join(item.question.split()[:4]): item for item in checklist(evidence)}


ALIKE, TOLD, TUNED = "Are arms alike but", "Is the cost of", "Was the baseline tuned"
OTHER, SOURCES, SPREAD = "Was tuning done on", "Is there more than", "Do prompt lengths spread"
SHOWN, NORMALISED, SPECULATIVE = (
    "Are distributions shown, on",
    "Does no claim rest",
    "Is speculative decoding judged",
)
VALID, PAIRS, LOADS = "Is every run valid?", "Are there 3 pairs", "Do the loads reach"
DEADLINE, TURNS, SAME = "Is every D_d longer", "Did the arms take", "Did all runs have"

DOCUMENTS = CHATS | {"name": "documents", "source": "arxiv-like"}
PASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "arms alike": (ALIKE, {}),
    "tuned settings may differ": (ALIKE, {"arms": [STOCK | {"engine": {"max_num_seqs": 16}}, OURS]}),
    "ablation": (TOLD, {"ablations": True}),
    "tuned": (TUNED, {}),
    "tuned alike": (TUNED, {"tuning": {"stock": tuning("stock", 20), "ours": tuning("ours", 20)}}),
    "other seeds": (OTHER, {}),
    "two sources": (SOURCES, {"workloads": [CHATS, DOCUMENTS]}),
    "wide lengths": (SPREAD, {}),
    "enough requests": (SHOWN, {}),
    "per token": (NORMALISED, {}),
    "speculation by fluidity": (
        SPECULATIVE,
        {"arms": [STOCK, OURS | {"engine": {"speculation": {"tokens": 2, "acceptance": 0.5}}}]},
    ),
    "all valid": (VALID, {}),
    "three seeds": (PAIRS, {}),
    "loads reach": (LOADS, {}),
    "deadline": (DEADLINE, {}),
    "one environment": (SAME, {}),
}
FAILS: dict[str, tuple[str, dict[str, Any], str]] = {
    "crippled flag": (
        ALIKE,
        {"arms": [STOCK | {"engine": {"enable_prefix_caching": True}}, OURS]},
        "arms differ in enable_prefix_caching",
    ),
    "crippled batch": (
        ALIKE,
        {"arms": [STOCK | {"engine": {"max_num_seqs": 2}}, OURS], "tuning": {}},
        "arms differ in max_num_seqs",
    ),
    "crippled budget": (
        TUNED,
        {"arms": [STOCK | {"engine": {"max_num_batched_tokens": 64}}, OURS], "tuning": {}},
        "the baseline was not tuned",
    ),
    "fewer trials": (
        TUNED,
        {"tuning": {"stock": tuning("stock", 5), "ours": tuning("ours", 20)}},
        "5 trials of the baseline, 20 of the subject",
    ),
    "trials that were refused": (
        TUNED,
        {
            "tuning": {
                "stock": Tuning("stock", (Trial({}, 0.9), *[Trial({"x": 1}, None, "no")] * 19), (0,), SPACE),
                "ours": tuning("ours", 20),
            }
        },
        "stock: 1 trials, ours: 20 trials; 1 trials of the baseline, 20 of the subject",
    ),
    "one budget": (
        TUNED,
        {"tuning": {"stock": tuning("stock", 20, space={"max_num_batched_tokens": {"choices": [64]}})}},
        "only 1 values of max_num_batched_tokens were allowed",
    ),
    "no budget": (
        TUNED,
        {"tuning": {"stock": tuning("stock", 20, space={"max_num_seqs": {"choices": [64]}})}},
        "max_num_batched_tokens was not among its knobs",
    ),
    "tuned where nobody is served": (
        TUNED,
        {"tuning": {"stock": tuning("stock", 20, score=0.03)}},
        "at best 3% of requests were fluid where it was tuned",
    ),
    "better default": (
        TUNED,
        {"shares": {"stock": 0.5, "default": 0.8}, "arms": [STOCK, OURS, {"name": "default"}]},
        "default beats it: +30.0 points",
    ),
    "no ablation": (TOLD, {}, "ablations: true adds it"),
    "same seeds": (
        OTHER,
        {"tuning": {"stock": tuning("stock", 20, seeds=(11,))}},
        "tuned on seeds 11, compared on 11, 12, 13",
    ),
    "one source": (SOURCES, {}, "1 source: sharegpt-like"),
    "few requests": (SHOWN, {"samples": {"stock": 99}}, "fewest judged requests of an arm: 99"),
    "normalised": (NORMALISED, {"metric": "tpot_p50"}, "the claim is about time per output token P50"),
    "speculation by median": (
        SPECULATIVE,
        {
            "metric": "tbt_p50",
            "arms": [STOCK, OURS | {"engine": {"speculation": {"tokens": 2, "acceptance": 0.5}}}],
        },
        "the claim is about TBT P50",
    ),
    "invalid": (
        VALID,
        {"runs": [run("stock", 11, 0.9, reasons=("x",)), run("ours", 11, 0.9)]},
        "1 of 2 runs are invalid and not used",
    ),
    "one pair": (
        PAIRS,
        {"runs": [run("stock", 11, 0.9), run("ours", 11, 0.9)]},
        "1 repeats with valid pairs",
    ),
    "never all fluid": (LOADS, {"shares": {"stock": 0.5, "ours": 0.6}}, "from 50.0% to 70.0% fluid"),
    "always all fluid": (
        LOADS,
        {"runs": [run("stock", 11, 1.0), run("ours", 11, 1.0)]},
        "from 100.0% to 100.0% fluid",
    ),
    "impossible deadline": (DEADLINE, {"decode_ms": 60.0}, "0.8 times a lone decode step of 60.0 ms"),
    "all of one arm first": (
        TURNS,
        {
            "runs": [
                run(arm, s, 0.9, started_ns=1, ended=f"{i}{s}")
                for i, arm in enumerate(("stock", "ours"))
                for s in (1, 2, 3)
            ]
        },
        "differ by 60%",
    ),
    "two environments": (
        SAME,
        {"runs": [run("stock", 11, 0.9), run("ours", 11, 0.9, environment="f")]},
        "2 environments",
    ),
}
NONE = {
    "nothing tuned": (OTHER, {"tuning": {}}),
    "nobody speculates": (SPECULATIVE, {}),
    "unknown machine": (DEADLINE, {"decode_ms": None}),
    "simulated": (TURNS, {}),
}


@pytest.mark.parametrize(("question", "data"), PASSES.values(), ids=PASSES.keys())
def test_passes(question: str, data: dict[str, Any]):
    assert items(**data)[question].verdict == "pass", items(**data)[question].figure


@pytest.mark.parametrize(("question", "data", "figure"), FAILS.values(), ids=FAILS.keys())
def test_fails(question: str, data: dict[str, Any], figure: str):
    found = items(**data)[question]
    assert found.verdict == "fail"
    assert figure in found.figure


@pytest.mark.parametrize(("question", "data"), NONE.values(), ids=NONE.keys())
def test_does_not_apply(question: str, data: dict[str, Any]):
    assert items(**data)[question].verdict == "none"


def test_a_replayed_trace_was_tuned_on_whatever_the_seeds_are(tmp_path: Path):
    (tmp_path / "t.csv").write_text(
        "arrived_at,num_prefill_tokens,num_decode_tokens\n"
        + "\n".join(f"{i},{100 + i},10" for i in range(60))
    )
    verdicts = {}
    for name, more in (("replayed", ""), ("drawn", "arrivals: {process: poisson}\n")):
        file = tmp_path / f"{name}.yaml"
        file.write_text(f"trace: t.csv\n{more}")
        case = CHATS | {"source": str(file)}
        found = items(workloads=[case])[OTHER]
        verdicts[name] = found.verdict
        notes = one_traffic(experiment(seeds=[11, 12, 13], workloads=[case]))
        assert bool(notes) is (name == "replayed")
        assert ("the same requests under every seed" in found.figure) is (name == "replayed")
    assert verdicts == {"replayed": "fail", "drawn": "pass"}
    assert (
        one_traffic(experiment(seeds=[11], workloads=[CHATS | {"source": str(tmp_path / "replayed.yaml")}]))
        == []
    )


def test_arms_that_take_turns_pass():
    runs = [
        run(arm, s, 0.9, started_ns=1, ended=f"{s}{(i + s) % 2}")
        for i, arm in enumerate(("stock", "ours"))
        for s in range(8)
    ]
    assert items(runs=runs)[TURNS].verdict == "pass"


def test_known_anti_patterns_carry_their_number_and_ours_say_so():
    found = items()
    assert {q: i.source for q, i in found.items() if i.source != "ours"} == {
        ALIKE: "AP1", TOLD: "AP1", TUNED: "AP2", SOURCES: "AP4", SPREAD: "AP4", SHOWN: "AP7", NORMALISED: "AP8",
    }  # fmt: skip
    assert len(found) == 15
