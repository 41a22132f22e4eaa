"""How well the simulator predicts a server: profile from some recorded runs, prediction of others, side by side.

    python -m fidelity [--repeats 3] [--seconds 45] [--analyse-only]

Out of sample: the profile is fitted to runs of other traffic at another rate; what is predicted is known by its
arrivals and lengths alone. On a machine that does nothing else (engine on core 0, client on core 1).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE))

from fidelity.live import collect


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fidelity", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--analyse-only", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/bench-fidelity"))
    options = parser.parse_args()
    if not options.analyse_only:
        collect(options.out, repeats=options.repeats, seconds=options.seconds)
    from fidelity.predict import compare, markdown

    strict, everything = compare(options.out), compare(options.out, limit=math.inf)
    text = f"{markdown(strict)}\nAll runs, however much the machine's speed moved:\n\n{markdown(everything)}"
    print(text)
    summary = {"strict": strict, "everything": everything}
    (HERE / "results" / "fidelity.json").write_text(json.dumps(summary, indent=1, default=str) + "\n")
    (HERE / "results" / "fidelity.md").write_text(text)


if __name__ == "__main__":
    main()
