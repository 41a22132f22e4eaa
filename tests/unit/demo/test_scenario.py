import numpy as np
import pytest

from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.demo.arms import sarathi_arm, slo_for
from sarathi_plugin.demo.scenario import FAST, REAL, exact_document

CURVE = PrefillCurve(0.01, 2e-4, 0.0)


def tokenize(text):
    return list(text.encode())


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("scenario", [FAST, REAL])
def test_traffic(scenario):
    workload = scenario.build(CURVE, 0.01, tokenize, rng())
    chats = [r for r in workload.requests if r.kind == "chat"]
    documents = [r for r in workload.requests if r.kind == "document"]
    assert len(chats) == scenario.early_chats + scenario.late_chats
    assert len(documents) == scenario.documents
    assert {len(r.prompt) for r in documents} == {scenario.document_tokens}
    assert len({r.prompt for r in documents}) == len(documents)
    early = chats[: scenario.early_chats]
    assert max(r.offset_ns for r in early) < documents[0].offset_ns
    assert all(r.is_chat and r.ignore_eos for r in chats)
    assert workload == scenario.build(CURVE, 0.01, tokenize, rng())


def test_documents_come_at_the_pace_of_the_machine():
    slow = REAL.build(PrefillCurve(0.0, 5e-3, 0.0), 0.07, tokenize, rng())
    at = [r.offset_ns / NS_PER_S for r in slow.requests if r.kind == "document"]
    every = 2048 * 5e-3 / REAL.load
    assert np.diff(at).mean() == pytest.approx(every, rel=0.25)


def test_short_texts_are_lengthened():
    assert len(exact_document(500, lambda text: list(range(len(text) // 100)), rng())) == 500


def test_arms(tmp_path):
    slo = slo_for(0.072)
    assert (slo.tbt_ns, slo.ttft_slack_ns) == (288 * NS_PER_MS, 1440 * NS_PER_MS)
    arm = sarathi_arm(slo, tmp_path / "curve.json")
    assert arm.flags[:6] == (
        *("--scheduler", "sarathi", "--sarathi-tbt-ms", "288.000"),
        *("--sarathi-ttft-slack-ms", "1440.000"),
    )
    assert (tmp_path / "sarathi.yaml").read_text() == 'prefill_curve: "curve.json"\n'
