"""Write the prefill curves of the shipped step-time profiles: what a lone prompt takes on each machine.

python scripts/prefill_curves.py [--check]
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from sarathi_plugin.config import CURVES
from sarathi_plugin.simulate.targets import prefill_curve
from sarathi_plugin.steptime.profile import read_profile, shipped_profiles
from scripts.generated import settle

if TYPE_CHECKING:
    from pathlib import Path


def wanted() -> dict[Path, str]:
    """Every curve and its content."""
    return {
        CURVES / f"{name}.json": json.dumps(
            prefill_curve(read_profile(name)).model_dump(mode="json"), indent=1
        )
        + "\n"
        for name in shipped_profiles()
    }


if __name__ == "__main__":
    sys.exit(settle(wanted()))
