"""Stream one chat answer from a running server and judge it by its deadlines.

vllm serve MODEL                       (any OpenAI-compatible server will do)
python examples/01_stream_one_answer.py http://127.0.0.1:8000
"""

import sys

from sarathi_plugin.config import ConfigError, load_curve
from sarathi_plugin.core import NS_PER_MS, SloClass
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.curve import served_model
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.workload import Message, ScheduledRequest


def main() -> None:
    """Send one question and print what came of it."""
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    model, _ = served_model(url)
    # D_d = 100 ms a token; the first token may take what the curve says plus 1 s. The shipped curve is of an A100:
    # measure yours with `sarathi profile prefill URL`.
    slo = SloClass("standard", tbt_ns=100 * NS_PER_MS, ttft_slack_ns=1000 * NS_PER_MS)
    client = StreamingClient(Endpoint(url, model), Targets(slo, load_curve("a100-llama-3-8b")))
    question = ScheduledRequest(
        request_id="one", offset_ns=0, prompt=(Message("user", "Why is the sky blue?"),), max_tokens=100
    )
    outcome = client.send(question)
    timeline = outcome.timeline
    print(outcome.text or timeline.error)
    print(f"{timeline.status}: {len(timeline.token_ns)} tokens for a prompt of {timeline.prompt_tokens}")
    if timeline.ttft_ns is not None:
        print(f"first token after {timeline.ttft_ns / NS_PER_MS:.0f} ms", end="; ")
        print(f"longest gap {max(timeline.gaps_ns, default=0) / NS_PER_MS:.0f} ms")
    print(
        f"deadlines met {timeline.met}, missed {timeline.missed}: fluidity-index {timeline.fluidity_index:.3f}"
    )


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
