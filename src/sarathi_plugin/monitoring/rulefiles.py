"""The rules as Prometheus reads them."""

from __future__ import annotations

from typing import Any

import yaml

from sarathi_plugin.monitoring.alerts import ALERTS, RUNBOOKS, Alert
from sarathi_plugin.monitoring.recording import RECORDINGS

HEAD = "# Generated from sarathi_plugin.monitoring by `make generate`; do not edit.\n"


def recording_rules() -> str:
    """``recording.yml``."""
    groups = [
        {"name": name, "rules": [{"record": rule.record, "expr": rule.expr} for rule in rules]}
        for name, rules in RECORDINGS.items()
    ]
    return dump({"groups": groups})


def alert_rules() -> str:
    """``alerts.yml``."""
    return dump({"groups": [{"name": "sarathi-alerts", "rules": [_rule(alert) for alert in ALERTS]}]})


def _rule(alert: Alert) -> dict[str, Any]:
    rule: dict[str, Any] = {"alert": alert.name, "expr": alert.expr}
    if alert.lasting != "0s":
        rule["for"] = alert.lasting
    if alert.keep_firing:
        rule["keep_firing_for"] = alert.keep_firing
    rule["labels"] = {"severity": alert.severity}
    rule["annotations"] = {
        "summary": alert.summary,
        "description": alert.description,
        "runbook_url": f"{RUNBOOKS}#{alert.anchor}",
    }
    return rule


def dump(content: dict[str, Any]) -> str:
    """A generated YAML file; equal content gives equal text."""
    return HEAD + yaml.safe_dump(content, sort_keys=False, width=110, allow_unicode=True)
