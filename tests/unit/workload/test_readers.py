import re

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_MS, NS_PER_S
from sarathi_plugin.workload import Segment, Trace, TraceRequest, read_trace, write_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-17 00:00:00,879,55
"""
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n1.5,374,44\n4.0,396,109\n"
ETALON = (
    "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n74,918,992,0.08\n290,905,1195,0.32\n"
)
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
118,GPT-4,417,276,693,API log
"""
MOONCAKE = """{"timestamp": 27482, "input_length": 1500, "output_length": 52, "hash_ids": [46, 47, 2353]}
{"timestamp": 30535, "input_length": 512, "output_length": 26, "hash_ids": [46]}
"""
OWN = """{"request_id": "a", "offset_ns": 7, "prompt_tokens": 30, "output_tokens": 2, "segments": [[4, 10], [5, 20]]}

{"request_id": "b", "offset_ns": 7, "prompt_tokens": 3, "output_tokens": 9, "abort_ns": 12, "priority": -1}
"""


@pytest.fixture
def read(tmp_path):
    def read_text(text, limit=None, name="some.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return read_trace(path, limit=limit)

    return read_text


def rows(trace):
    return [(r.offset_ns, r.prompt_tokens, r.output_tokens) for r in trace.requests]


def test_azure(read):
    trace = read(AZURE)
    day_end_us = 20_653_319_410  # from 18:15:46.680590 to midnight
    assert rows(trace) == [(0, 374, 44), (4_314_579_000, 396, 109), (day_end_us * 1000, 879, 55)]
    assert [r.request_id for r in trace.requests] == ["some-0", "some-1", "some-2"]
    assert (trace.name, trace.lines) == ("some", (2, 3, 4))
    aware = read(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.01+00:00,1,2\n2024-05-10 00:00:01+00:00,3,4\n"
    )
    assert rows(aware) == [(0, 1, 2), (990 * NS_PER_MS, 3, 4)]


def test_vidur_and_etalon(read):
    assert rows(read(VIDUR)) == [(0, 374, 44), (5 * NS_PER_S // 2, 396, 109)]
    assert rows(read(ETALON)) == [(0, 74, 918), (0, 290, 905)]


def test_burstgpt_without_its_failures(read):
    trace = read(BURSTGPT)
    assert rows(trace) == [(0, 472, 18), (113 * NS_PER_S, 417, 276)]
    assert [r.kind for r in trace.requests] == ["Conversation log", "API log"]
    assert trace.lines == (2, 4)
    newer = read(
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,1,2.5,GPT-4,472,18,490,API log\n"
    )
    assert rows(newer) == [(0, 472, 18)]


def test_mooncake_blocks_become_segments(read):
    first, second = read(MOONCAKE).requests
    assert rows(read(MOONCAKE)) == [(0, 1500, 52), (3053 * NS_PER_MS, 512, 26)]
    assert first.segments == (Segment(46, 512), Segment(47, 512), Segment(2353, 476))
    assert second.segments == (Segment(46, 512),)


def test_our_own_form_keeps_its_times(read):
    trace = read(OWN)
    assert trace.requests == (
        TraceRequest(
            request_id="a",
            offset_ns=7,
            prompt_tokens=30,
            output_tokens=2,
            segments=(Segment(4, 10), Segment(5, 20)),
        ),
        TraceRequest(request_id="b", offset_ns=7, prompt_tokens=3, output_tokens=9, abort_ns=12, priority=-1),
    )
    assert trace.lines == (1, 3)


def test_round_trip(tmp_path, read):
    trace = read(OWN, name="mine.jsonl")
    write_trace(tmp_path / "mine.jsonl", trace)
    assert read_trace(tmp_path / "mine.jsonl") == trace


def test_limit(read):
    assert len(read(AZURE, 2).requests) == 2
    assert len(read(BURSTGPT, 2).requests) == 2, "failed requests do not count"
    assert len(read(VIDUR, 9).requests) == 2
    with pytest.raises(ConfigError, match="at least one request"):
        read(AZURE, 0)


def test_the_container_does_not_matter(read):
    assert rows(read('{"num_prefill_tokens": 3, "num_decode_tokens": 4, "arrived_at": 2}\n')) == [(0, 3, 4)]
    assert rows(read("\ufeffnum_prefill_tokens, num_decode_tokens\r\n3,4\r\n\r\n5,6.0\r\n")) == [
        (0, 3, 4),
        (0, 5, 6),
    ]


HEAD = "arrived_at,num_prefill_tokens,num_decode_tokens\n"
OWN_START = '{"request_id": "a", "offset_ns": 0, "prompt_tokens": 3, "output_tokens": 9'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        (HEAD, "holds no requests"),
        (HEAD + "1,5,5\n\n0.5,5,5\n", r"line 4: this request arrives 0\.5 s before the one above it: sort"),
        (
            HEAD + "1,0,5\n",
            "line 2: num_prefill_tokens must be a whole number of tokens, at least one, not '0'",
        ),
        (HEAD + "1,5,-3\n", "line 2: num_decode_tokens must be .* not '-3'"),
        (HEAD + "1,5.5,3\n", "line 2: num_prefill_tokens must be .* not '5.5'"),
        (HEAD + "1,x,3\n", "line 2: num_prefill_tokens must be a number, not 'x'"),
        (HEAD + "nan,4,3\n", "line 2: arrived_at must be a number, not 'nan'"),
        (HEAD + "1,5,5\n1,5\n", "line 3: 2 values for 3 columns"),
        (
            "a,b\n1,2\n",
            r"line 1: the columns a, b are not those of a trace: known are .*Azure \(TIMESTAMP.*BurstGPT",
        ),
        (
            HEAD.replace("arrived_at", "arrived"),
            r"line 1: unknown column arrived: this file is Vidur and Etalon \(",
        ),
        (AZURE.replace("2023-11-17", "tomorrow"), "line 4: TIMESTAMP must be a date and time .* 'tomorrow"),
        (BURSTGPT.replace("5,ChatGPT,472", "5,ChatGPT,0"), "line 2: Request tokens must be"),
        (MOONCAKE.replace("[46]", f"[{2**63}]"), "line 2: hash_ids must be whole numbers of 64 bits"),
        (MOONCAKE.replace("30535", "1e300"), "line 2: timestamp must be a time within 292 years"),
        (
            "arrived_at,num_prefill_tokens,num_decode_tokens\n0,5,5\n1e300,5,5\n",
            "line 3: arrived_at must be a time within 292 years of its clock's zero, not '1e300'",
        ),
        (
            "arrived_at,num_prefill_tokens,num_decode_tokens\n0,5,5\n4e9,5,5\n",
            r"\(line 3\) arrives more than 100 years after the start: check its unit",
        ),
        (
            '{"request_id": "a", "offset_ns": 99999999999999999999, "prompt_tokens": 1, "output_tokens": 1}\n',
            r"\(line 1\) arrives more than 100 years after the start: check its unit",
        ),
        (
            '{"request_id": "a", "offset_ns": 0, "prompt_tokens": 1, "output_tokens": 1, '
            '"segments": [[99999999999999999999, 1]]}\n',
            "line 1: the contents of segments must be whole numbers of 64 bits",
        ),
        (MOONCAKE.replace("[46]", "[46, 47]"), "line 2: hash_ids must list 1 whole numbers"),
        (MOONCAKE.replace("[46]", '["46"]'), "line 2: hash_ids must list 1 whole numbers"),
        (MOONCAKE.replace("[46]", "[46"), "line 2: not valid JSON"),
        (MOONCAKE.replace("30535", "true"), "line 2: timestamp must be a number, not True"),
        (MOONCAKE.replace("30535", "null"), "line 2: timestamp must be a number, not None"),
        (MOONCAKE + "[1]\n", "line 3: every line must be a JSON object"),
        (MOONCAKE + '{"timestamp": 1}\n', "line 3: input_length, output_length, hash_ids missing"),
        (OWN_START + ', "colour": 1}', "line 1: unknown column colour: this file is this project's"),
        (
            OWN_START.replace("3", "0") + "}",
            "line 1: prompt_tokens: Input should be greater than or equal to 1",
        ),
        (OWN_START + ', "abort_ns": 0}', "line 1: abort_ns: Input should be greater than 0"),
        (OWN_START + ', "segments": [[1, 2]]}', r"line 1: the tokens of the segments, \[2\], must"),
        (OWN_START + ', "segments": [[1, 4], [2, -1]]}', r"line 1: the tokens of the segments, \[4, -1\]"),
        (OWN_START + "}\n" + OWN_START + "}", r"request 'a' \(line 2\) repeats an id"),
        ('a,"b\n', "line 1: the columns"),
    ],
)
def test_mistakes_name_the_file_and_the_line(read, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(text)
    assert "some" in str(caught.value)
    assert re.fullmatch(r"[^\n]+\.", str(caught.value)), "one sentence"


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"^Cannot read .*none\.csv: No such file"):
        read_trace(tmp_path / "none.csv")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="not a text file"):
        read_trace(tmp_path / "binary")
    with pytest.raises(ConfigError, match=r"^Cannot write .*Is a directory"):
        write_trace(tmp_path, Trace("t", ()))
