import time

import pytest

from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.load.request_body import request_body
from sarathi_plugin.workload.model import Message


def three_tokens(handler):
    handler.begin()
    for total in (1, 2, 3):
        handler.token("abc"[total - 1], total=total, finish="length" if total == 3 else None)
        time.sleep(0.02)
    handler.event("[DONE]")
    handler.end()


def test_a_good_stream(stand_in, make_client, request_for):
    server = stand_in(three_tokens)
    before = time.monotonic_ns()
    outcome = make_client(server.url).send(request_for())
    timeline = outcome.timeline
    assert (timeline.status, timeline.error, outcome.http_status, outcome.text) == (
        "finished",
        "",
        200,
        "abc",
    )
    assert (timeline.source, timeline.prompt_tokens, timeline.met, timeline.missed) == ("client", 7, 3, 0)
    assert before <= timeline.sent_ns == timeline.arrival_ns < timeline.token_ns[0]
    # Each token is sent 20 ms after the one before; a client that is held up sees one late, and a shorter gap after it.
    assert timeline.token_ns[-1] - timeline.sent_ns >= 2 * 20 * NS_PER_MS
    assert len(timeline.gaps_ns) == 2
    assert timeline.end_ns >= timeline.token_ns[-1]
    assert timeline.prefill_ns == 170 * NS_PER_MS
    assert timeline.scheduled_ns is None


def test_several_tokens_an_event_share_a_time(stand_in, make_client, request_for):
    def script(handler):
        handler.begin()
        handler.token("ab", total=2)
        handler.token("cde", total=5, finish="length")
        handler.end()

    token_ns = make_client(stand_in(script).url).send(request_for()).timeline.token_ns
    assert len(token_ns) == 5
    assert len(set(token_ns)) <= 2
    assert token_ns[2] == token_ns[3] == token_ns[4]


@pytest.mark.parametrize("chunked", [True, False])
def test_tokens_are_timed_when_they_arrive_not_when_the_answer_ends(
    stand_in, make_client, request_for, chunked
):
    def script(handler):
        handler.begin(chunked=chunked)
        handler.token("a", total=1)
        time.sleep(0.3)
        handler.token("b", total=2, finish="stop")
        handler.event("[DONE]")
        handler.end()

    timeline = make_client(stand_in(script).url).send(request_for()).timeline
    assert timeline.ttft_ns < 200 * NS_PER_MS
    assert timeline.gaps_ns[0] > 200 * NS_PER_MS


def test_deadlines_run_from_the_intended_arrival(stand_in, make_client, request_for):
    arrival = time.monotonic_ns() - 2 * NS_PER_S
    timeline = make_client(stand_in(three_tokens).url).send(request_for(), arrival).timeline
    assert timeline.arrival_ns == arrival
    assert timeline.ttft_ns >= 2 * NS_PER_S
    # due after 0.17 s + 1 s, came after 2.0x s: eight or more periods of 100 ms late
    assert timeline.missed >= 9
    assert timeline.met == 2


def stop_without_end(handler):
    handler.begin()
    handler.token("a", total=1)
    handler.end()


def stop_inside_event(handler):
    handler.begin()
    handler.token("a", total=1)
    handler.raw(b'data: {"choices": [')
    handler.end()


def break_off(handler):
    handler.begin()
    handler.token("a", total=1)
    time.sleep(0.05)
    handler.reset()


def cut_chunk(handler):
    handler.begin()
    handler.token("a", total=1)
    handler.wfile.write(b"ff\r\ndata: ")
    handler.wfile.flush()
    handler.close_connection = True


def end_between_chunks(handler):
    handler.begin()
    handler.token("a", total=1)
    handler.close_connection = True


def hang_up(handler):
    handler.close_connection = True


def say_nothing(handler):
    handler.begin()
    handler.token("a", total=1)
    handler.server.closing.wait(5)


def never_answer(handler):
    handler.server.closing.wait(5)
    handler.close_connection = True


def drip_for_ever(handler):
    handler.begin()
    total = 0
    while not handler.server.closing.wait(0.02):
        total += 1
        handler.token("a", total=total)


def refuse(handler):
    body = b'{"error": {"message": "no such\\n model"}}'
    handler.send_response(404)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def page(handler):
    handler.begin()
    handler.raw(b"<html>hello</html>")
    handler.end()


def bad_json(handler):
    handler.begin()
    handler.token("a", total=1)
    handler.event("{oops")
    handler.end()


def bad_bytes(handler):
    handler.begin()
    handler.raw(b"data: \xff\xff\n\n")
    handler.end()


def error_event(handler):
    handler.begin()
    handler.token("a", total=1)
    handler.event({"error": {"message": "engine died", "code": 500}})
    handler.event("[DONE]")
    handler.end()


def no_token(handler):
    handler.begin()
    handler.event("[DONE]")
    handler.end()


def aborted(handler):
    handler.begin()
    handler.token("a", total=1)
    handler.token("", total=1, finish="abort")
    handler.event("[DONE]")
    handler.end()


@pytest.mark.parametrize(
    ("script", "status", "reason", "tokens"),
    [
        (
            stop_without_end,
            "error",
            "truncated: the stream ended without finish_reason or [DONE] after 1 tokens",
            1,
        ),
        (stop_inside_event, "error", "truncated: the stream ended inside an event after 1 tokens", 1),
        (break_off, "error", "reset: connection broke after 1 tokens: Connection reset by peer", 1),
        (
            cut_chunk,
            "error",
            "reset: connection broke after 1 tokens: the server closed it in the middle of its answer",
            1,
        ),
        (
            end_between_chunks,
            "error",
            "reset: connection broke after 1 tokens: the server closed it in the middle of its answer",
            1,
        ),
        (hang_up, "error", "reset: the server closed it without an answer", 0),
        (say_nothing, "timeout", "read-timeout: no bytes for 0.3 s", 1),
        (never_answer, "timeout", "read-timeout: no bytes for 0.3 s", 0),
        (drip_for_ever, "timeout", "timeout: not done in 1 s", None),
        (refuse, "error", 'http 404: {"error": {"message": "no such\\n model"}}', 0),
        (page, "error", "malformed: the answer holds no server-sent event", 0),
        (bad_json, "error", "malformed: event 2 is not JSON: '{oops'", 1),
        (bad_bytes, "error", "malformed: the stream is not UTF-8", 0),
        (error_event, "error", "server: engine died", 1),
        (no_token, "error", "empty: the stream ended properly but brought no token", 0),
        (aborted, "aborted", "the server aborted the request", 1),
    ],
)
def test_failures_are_timelines_each_with_its_reason(
    stand_in, make_client, request_for, script, status, reason, tokens
):
    client = make_client(stand_in(script).url, read_timeout_s=0.3, total_timeout_s=1.0)
    timeline = client.send(request_for(prompt_tokens=3)).timeline
    assert timeline.status == status
    assert timeline.error.startswith(reason)
    if tokens is not None:
        assert len(timeline.token_ns) == tokens
    assert timeline.prompt_tokens == (7 if timeline.token_ns else 3)


def test_a_connection_closed_before_any_answer(stand_in, make_client, request_for):
    server = stand_in(lambda handler: handler.reset())
    client = make_client(server.url)
    timeline = client.send(request_for()).timeline
    assert timeline.status == "error"
    assert timeline.error.startswith("reset: ")
    assert client.resent == 0
    assert len(server.bodies) == 1  # a new connection says something of the server: not asked again


def test_a_rested_connection_that_the_server_just_closed_is_replaced(stand_in, make_client, request_for):
    def reset_the_second_time(handler):
        if len(handler.server.bodies) == 2:
            handler.reset()
        else:
            three_tokens(handler)

    server = stand_in(reset_the_second_time)
    client = make_client(server.url)
    assert [client.send(request_for()).timeline.status for _ in range(2)] == ["finished", "finished"]
    assert len(server.bodies) == 3
    assert client.resent == 1


def test_a_server_that_breaks_off_every_request_is_asked_no_third_time(stand_in, make_client, request_for):
    def answer_once(handler):
        if len(handler.server.bodies) == 1:
            three_tokens(handler)
        else:
            handler.reset()

    server = stand_in(answer_once)
    client = make_client(server.url)
    assert client.send(request_for()).timeline.status == "finished"
    timeline = client.send(request_for()).timeline
    assert timeline.status == "error"
    assert timeline.error.startswith("reset: ")
    assert len(server.bodies) == 3
    assert client.resent == 1


def test_nobody_listens(make_client, request_for):
    timeline = make_client("http://127.0.0.1:1").send(request_for()).timeline
    assert (timeline.status, timeline.error) == ("error", "connect: Connection refused")
    assert timeline.fluidity_index == 0.0


def test_a_bad_address_is_a_timeline_too(make_client, request_for):
    timeline = make_client("nonsense://x").send(request_for()).timeline
    assert timeline.status == "error"
    assert timeline.error.startswith("request: ")


def test_a_failed_request_misses_deadlines_up_to_its_end(stand_in, make_client, request_for):
    client = make_client(stand_in(never_answer).url, read_timeout_s=0.3)
    arrival = time.monotonic_ns() - 2 * NS_PER_S
    timeline = client.send(request_for(), arrival).timeline
    # due 1.1 s after arrival (no prompt length known), given up after 2.3 s
    assert (timeline.met, timeline.missed) == (0, 13)


def test_api_key_comes_from_the_environment_only(stand_in, make_client, request_for, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = stand_in(three_tokens)
    make_client(server.url).send(request_for())
    monkeypatch.setenv("OPENAI_API_KEY", "abc")
    make_client(server.url).send(request_for())
    (_, without), (_, given) = server.headers
    assert "Authorization" not in without
    assert given["Authorization"] == "Bearer abc"


def test_chat_goes_to_the_chat_endpoint(stand_in, make_client, request_for):
    server = stand_in(three_tokens)
    make_client(server.url).send(request_for((Message("user", "Hi"),)))
    assert server.headers[0][0] == "/v1/chat/completions"
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "Hi"}]
    assert "prompt" not in server.bodies[0]


def test_body_for_vllm_and_for_others(request_for):
    request = request_for((5, 6), slo_class="batch", ignore_eos=True, min_tokens=2, temperature=0.5)
    body = request_body(request, "m", vllm=True)
    assert body == {
        "model": "m",
        "prompt": [5, 6],
        "max_tokens": 8,
        "min_tokens": 2,
        "ignore_eos": True,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "vllm_xargs": {"slo_class": "batch"},
    }
    plain = request_body(request, "m", vllm=False)
    assert plain["stream_options"] == {"include_usage": True}
    assert not {"vllm_xargs", "ignore_eos", "min_tokens"} & set(plain)
