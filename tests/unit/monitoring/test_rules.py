"""Rules: valid for promtool, each alert fired by one test and left alone by another, each with a runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from sarathi_plugin.monitoring.alerts import ALERTS
from sarathi_plugin.monitoring.recording import RECORDED, RECORDINGS

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "monitoring" / "prometheus"
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [shutil.which("promtool") or "promtool", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def all_tests() -> list[dict]:
    return [test for path in TESTS for test in yaml.safe_load(path.read_text())["tests"]]


@pytest.mark.prometheus
def test_promtool_accepts_the_configuration_and_its_rules():
    done = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout
    assert f"{len(RECORDED)} rules found" in done.stdout


@pytest.mark.prometheus
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules(path: Path):
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
@pytest.mark.parametrize(
    ("rules", "right", "wrong", "test"),
    [
        ("alerts", "sarathi_oldest_overdue_seconds) > 5", "sarathi_oldest_overdue_seconds) > 50", "recorded_stall"),
        ("alerts", "keep_firing_for: 1m", "keep_firing_for: 1s", "stall"),
        ("alerts", "sarathi_policy_enabled == 0", "sarathi_policy_enabled == 2", "health"),
        ("recording", "/ 0.01", "/ 0.1", "recording"),
        ("recording", "/ 0.01", "/ 0.1", "burn"),
    ],
)  # fmt: skip
def test_a_broken_rule_fails_its_test(tmp_path: Path, rules: str, right: str, wrong: str, test: str):
    """The tests above can fail."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "rules").mkdir()
    copy = tmp_path / "tests" / f"{test}.yml"
    copy.write_text((PROMETHEUS / "tests" / copy.name).read_text())
    for path in (PROMETHEUS / "rules").glob("*.yml"):
        text = path.read_text()
        if path.stem == rules:
            assert right in text
            text = text.replace(right, wrong)
        (tmp_path / "rules" / path.name).write_text(text)
    assert promtool("test", "rules", copy).returncode != 0


@each_alert
def test_every_alert_is_fired_by_a_test_and_left_alone_by_another(alert):
    cases = [case for test in all_tests() for case in test.get("alert_rule_test", ())]
    own = [bool(case.get("exp_alerts")) for case in cases if case["alertname"] == alert.name]
    assert set(own) == {True, False}


def test_every_recorded_series_is_tested():
    exprs = " ".join(case["expr"] for test in all_tests() for case in test.get("promql_expr_test", ()))
    families = {name.partition(":rate")[0] for name in RECORDED}
    assert {family for family in families if family in exprs} == families


@each_alert
def test_every_alert_has_a_runbook_with_its_three_parts(alert):
    text = (ROOT / "docs" / "runbooks.md").read_text()
    section = re.search(rf"^## {alert.name}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section, alert.name
    for part in ("**What it means.**", "**What to look at.**", "**What to do.**"):
        assert part in section[1]
    assert alert.severity.replace("info", "information") in section[1].lower()


def test_there_is_no_runbook_without_an_alert():
    text = (ROOT / "docs" / "runbooks.md").read_text()
    assert set(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == {alert.name for alert in ALERTS}
    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= {alert.anchor for alert in ALERTS}


@each_alert
def test_every_alert_says_what_who_and_how_urgent(alert):
    assert alert.severity in ("critical", "warning", "info")
    assert alert.summary.endswith(".")
    assert alert.description.endswith(".")
    assert "$labels" in alert.summary


def test_burn_rates_are_recorded_for_every_window_that_is_compared():
    compared = {name for alert in ALERTS for name in re.findall(r"sarathi:\S+", alert.expr)}
    assert compared <= RECORDED
    assert len({rule.record for rules in RECORDINGS.values() for rule in rules}) == sum(
        map(len, RECORDINGS.values())
    )
