"""The client against a real vLLM server with the tiny model."""

import numpy as np
import pytest

from sarathi_plugin.core import NS_PER_MS, SloClass
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.demo.arms import STOCK, server_spec
from sarathi_plugin.demo.models import tiny_model
from sarathi_plugin.demo.scenario import exact_document, server_tokenizer
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.curve import probe, served_model
from sarathi_plugin.load.dispatch import run_open_loop
from sarathi_plugin.load.server import serve
from sarathi_plugin.load.summary import summarise
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.workload import Message, ScheduledRequest, constant_arrivals, synthetic_workload

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with serve(server_spec(STOCK, tiny_model(folder), folder)) as server:
        yield server


@pytest.fixture
def client(running):
    slo = SloClass("standard", 1000 * NS_PER_MS, 10_000 * NS_PER_MS)
    return StreamingClient(Endpoint(running.url, running.name), Targets(slo, PrefillCurve(0, 0, 0)))


def ask(prompt, **fields):
    known = {"request_id": "r", "offset_ns": 0, "max_tokens": 12, "ignore_eos": True}
    return ScheduledRequest(prompt=prompt, **(known | fields))


# a token a byte; the chat template adds <|start|>user\n ... <|end|>\n<|start|>assistant\n
@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [("Hello", 5), ((70, 71, 72), 3), ((Message("user", "Hello"),), 1 + 5 + 5 + 2 + 1 + 10)],
)
def test_every_token_is_counted(client, prompt, tokens):
    outcome = client.send(ask(prompt))
    assert (outcome.timeline.status, outcome.timeline.error) == ("finished", "")
    assert len(outcome.timeline.token_ns) == 12, (
        "noise is no clean UTF-8: some tokens have no text of their own"
    )
    assert outcome.timeline.prompt_tokens == tokens
    assert outcome.timeline.fluidity_index == 1.0


def test_refusals_are_told(client):
    outcome = client.send(ask(tuple([70] * 9000)))
    assert outcome.http_status == 400
    assert outcome.timeline.error.startswith("http 400: ")


def test_exact_documents(running, client):
    tokenize = server_tokenizer(running.url, running.name)
    document = exact_document(3000, tokenize, np.random.default_rng(0))
    assert client.send(ask(document, max_tokens=1)).timeline.prompt_tokens == 3000


def test_open_loop(client):
    rng = np.random.default_rng(0)
    workload = synthetic_workload("w", constant_arrivals(10, 8), rng, scale=0.02)
    summary = summarise(run_open_loop(workload, client.send).timelines)
    assert (summary.requests, summary.errors) == (8, 0)


def test_probe(running):
    assert served_model(running.url) == ("tiny", 8192)
    lone = probe(running.url, running.name, 0)
    assert len(lone.decode_gaps_s(10)) == 9
    assert 0 < lone.ttft_s(32) < 30
