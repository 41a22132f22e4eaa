import pytest

from sarathi_plugin.load.sse import SseError, SseParser


def parse(*chunks: bytes) -> list[str]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", ["a"]),
        (b"data:a\n\n", ["a"]),
        (b"data:  a\n\n", [" a"]),
        (b"data\n\n", [""]),
        (b": a comment\n\ndata: a\n\n", ["a"]),
        (b"event: x\nid: 3\nretry: 5\ndata: a\n\n", ["a"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
        (b"data: a\r\rdata: b\r\r", ["a", "b"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"\n\n\n", []),
        (b"data: a\n", []),
        ("data: é€😀\n\n".encode(), ["é€😀"]),
    ],
)
def test_events_whole_and_byte_by_byte(stream, events):
    assert parse(stream) == events
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == events


def test_event_is_given_as_soon_as_it_is_complete():
    parser = SseParser()
    assert parser.feed(b"data: a\n") == []
    assert parser.pending
    assert parser.feed(b"\ndata: b") == ["a"]
    assert parser.pending
    assert parser.feed(b"\n\n") == ["b"]
    assert not parser.pending


def test_crlf_split_after_cr_gives_no_extra_blank_line():
    assert parse(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == ["a\nb"]


def test_not_utf8():
    with pytest.raises(SseError, match="not UTF-8"):
        SseParser().feed(b"data: \xff\xfe\n\n")
