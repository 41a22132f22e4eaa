"""Write what is generated under ``monitoring/``: rules, dashboards, a copy of the runbooks for Prometheus to serve.

python scripts/monitoring_files.py [--check]
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sarathi_plugin.monitoring import rulefiles, stall
from sarathi_plugin.monitoring.dashboards import compare, fluidity, scheduler
from scripts.generated import ROOT, settle

if TYPE_CHECKING:
    from pathlib import Path

RECORDED_STALL = ROOT / "tests" / "data" / "stall.jsonl.gz"


def wanted() -> dict[Path, str]:
    """Every generated file and its content."""
    folder = ROOT / "monitoring"
    dashboards = folder / "grafana" / "dashboards"
    return {
        folder / "prometheus" / "rules" / "recording.yml": rulefiles.recording_rules(),
        folder / "prometheus" / "rules" / "alerts.yml": rulefiles.alert_rules(),
        folder / "prometheus" / "assets" / "runbooks.md": (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8"),
        folder / "prometheus" / "tests" / "recorded_stall.yml": stall.rule_test(RECORDED_STALL),
        dashboards / "fluidity.json": fluidity.build(),
        dashboards / "scheduler.json": scheduler.build(),
        dashboards / "compare.json": compare.build(),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(settle(wanted()))
