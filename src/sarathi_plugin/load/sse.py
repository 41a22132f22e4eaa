"""Server-sent events without I/O: bytes in, events out. Source: the WHATWG HTML standard, section 9.2."""

from __future__ import annotations

import codecs


class SseError(ValueError):
    """The stream is not text, or not server-sent events."""


class SseParser:
    """Incremental parser: feed it bytes as they come, get the data of every event that they complete.

    Event names, ids and retry times are ignored (OpenAI streams use none). Lines may end in LF, CR LF or CR;
    bytes may be split anywhere, also inside a character.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._line = ""
        self._data: list[str] = []
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[str]:
        """Data of the events completed by these bytes. Raises SseError on bytes that are not UTF-8."""
        try:
            text = self._decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise SseError(f"the stream is not UTF-8 ({error.reason})") from error
        if self._after_cr and text:
            text = text.removeprefix("\n")
            self._after_cr = False
        if not text:
            return []
        # A CR at the end may be the first half of CR LF: it ends the line now, its LF is dropped later.
        self._after_cr = text.endswith("\r")
        lines = (self._line + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._line = lines.pop()
        events = (self._take_line(line) for line in lines)
        return [event for event in events if event is not None]

    @property
    def pending(self) -> bool:
        """Whether an event was begun and not completed (its end is missing, or was cut off)."""
        return bool(self._line or self._data)

    def _take_line(self, line: str) -> str | None:
        """Take one line; the data of an event when the line (a blank one) completes it."""
        if not line:
            event = "\n".join(self._data) if self._data else None
            self._data = []
            return event
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
        return None
