import json

import pytest

from sarathi_plugin.load.stream import CompletionStream, StreamError


def event(text=None, *, total=None, finish=None, choices=True, **delta):
    body = {"choices": []}
    if choices:
        choice = {"finish_reason": finish}
        choice |= {"delta": delta} if delta else {"text": text}
        body["choices"] = [choice]
    if total is not None:
        body["usage"] = {"prompt_tokens": 5, "completion_tokens": total}
    return json.dumps(body)


def read(*events):
    stream = CompletionStream()
    for now, data in enumerate(events, start=1):
        stream.take(data, now)
    return stream


def test_running_usage_gives_the_tokens_of_an_event():
    stream = read(
        event("a", total=1), event("bcd", total=4), event("", total=5), event("e", total=6, finish="stop")
    )
    assert stream.token_ns == (1, 2, 2, 2, 3, 4)
    assert (stream.text, stream.prompt_tokens, stream.complete) == ("abcde", 5, True)


def test_final_usage_after_running_usage_changes_nothing():
    stream = read(event("a", total=1), event("b", total=2), event(choices=False, total=2), "[DONE]")
    assert stream.token_ns == (1, 2)
    assert stream.done


def test_chat_role_event_is_no_token():
    first = event(role="assistant", content="", total=0)
    assert read(first, event(content="Hi", total=1)).token_ns == (2,)
    assert read(event(role="assistant", content=""), event(content="Hi")).token_ns == (2,)


def test_without_usage_an_event_with_content_is_a_token():
    assert read(event("a"), event(""), event("b"), event("", finish="length")).token_ns == (1, 3)


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_reasoning_is_content(key):
    stream = read(event(**{key: "hm"}), event(content="yes"))
    assert stream.token_ns == (1, 2)
    assert stream.text == "yes"


@pytest.mark.parametrize("with_choice", [True, False])
def test_final_usage_alone_spreads_its_tokens_over_the_events(with_choice):
    stream = read(event("ab"), event("cd"), event("", choices=with_choice, total=6, finish="stop"))
    assert stream.token_ns == (1, 1, 1, 2, 2, 2)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{oops", "event 1 is not JSON"),
        ("3", "event 1 is not an object"),
        ('{"choices": 3}', "no list of choices"),
        ('{"choices": [3]}', "not an object"),
        ('{"error": {"message": "out of memory"}}', "server: out of memory"),
        ('{"error": "busy"}', "server: busy"),
    ],
)
def test_what_is_not_a_completion_stream(data, words):
    with pytest.raises(StreamError, match=words):
        read(data)
