"""Write what is generated under ``monitoring/``: rules, dashboards, a copy of the runbooks for Prometheus to serve.

python scripts/monitoring_files.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

from sarathi_plugin.monitoring import rulefiles, stall
from sarathi_plugin.monitoring.dashboards import compare, fluidity, scheduler

ROOT = Path(__file__).resolve().parent.parent
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


def main() -> int:
    """Write, or with ``--check`` only compare; 1 when something differs."""
    check = "--check" in sys.argv[1:]
    stale = [
        (path, text)
        for path, text in wanted().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in stale:
        print(f"{path.relative_to(ROOT)}: {'out of date, run: make generate' if check else 'written'}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
