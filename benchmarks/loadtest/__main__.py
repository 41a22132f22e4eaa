"""Agreement of client and server, how exact the client's gaps are, and what one worker can take in.

    PYTHONPATH=benchmarks python -m loadtest [agreement] [accuracy] [throughput] [--out FILE]

About ten minutes, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from loadtest.agreement import agreement
from loadtest.throughput import accuracy, throughput
from sarathi_plugin.load.machine import hardware

PARTS = ("agreement", "accuracy", "throughput")


def main() -> None:
    """Run the parts asked for, and keep the others of an earlier result."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument(
        "parts", nargs="*", default=list(PARTS), help="agreement, accuracy, throughput; all when unset"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "loadtest.json")
    parser.add_argument("--rate", type=float, default=1.5, help="requests a second of the agreement run")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=3, help="of the accuracy run")
    parser.add_argument("--streams", default="50,100,150,200,250,300")
    options = parser.parse_args()
    result = json.loads(options.out.read_text()) if options.out.is_file() else {}
    result |= {
        "machine": hardware(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("sarathi-plugin", "locust", "vllm")},
    }
    with tempfile.TemporaryDirectory() as name:
        if "agreement" in options.parts:
            for label, chat in (("agreement", False), ("agreement_chat", True)):
                result[label] = agreement(
                    Path(name) / label,
                    rate=options.rate,
                    seconds=options.seconds,
                    scale=options.scale,
                    chat=chat,
                )
                print(json.dumps(result[label], indent=1), flush=True)
        if "accuracy" in options.parts:
            result["accuracy"] = accuracy(Path(name) / "accuracy", options.repeats)
        if "throughput" in options.parts:
            result["throughput"] = throughput(
                Path(name) / "throughput", [int(n) for n in options.streams.split(",")]
            )
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
