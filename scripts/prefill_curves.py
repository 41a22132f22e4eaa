"""Write the prefill curves of the shipped step-time profiles: what a lone prompt takes on each machine.

python scripts/prefill_curves.py [--check]
"""

from __future__ import annotations

import json
import sys

from sarathi_plugin.config import CURVES
from sarathi_plugin.simulate.targets import prefill_curve
from sarathi_plugin.steptime.profile import read_profile, shipped_profiles


def main() -> int:
    """Write, or with ``--check`` only compare; 1 when something differs."""
    stale = []
    for name in shipped_profiles():
        path = CURVES / f"{name}.json"
        text = json.dumps(prefill_curve(read_profile(name)).model_dump(mode="json"), indent=1) + "\n"
        if not path.is_file() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text)
    if stale and "--check" in sys.argv:
        print(f"Prefill curves out of date ({', '.join(stale)}): make generate")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
