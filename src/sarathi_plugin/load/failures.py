"""What lies beneath the errors of ``requests`` and ``urllib3``, in a few words."""

from __future__ import annotations

from http.client import IncompleteRead, RemoteDisconnected

IN_WORDS = {
    RemoteDisconnected: "the server closed it without an answer",
    IncompleteRead: "the server closed it in the middle of its answer",
}
"""Errors beneath which no system error lies: the connection was closed in good order, only too early."""


def was_reset(error: BaseException) -> bool:
    """Whether a connection that stood was broken off, rather than refused."""
    broken = (ConnectionResetError, BrokenPipeError, RemoteDisconnected, ConnectionAbortedError)
    return any(isinstance(item, broken) for item in _chain(error))


def root(error: BaseException) -> str:
    """The first system error beneath, in a few words; urllib3's own texts carry object addresses."""
    chain = _chain(error)
    for item in chain:
        if isinstance(item, OSError) and item.strerror:
            return item.strerror
    for kind, words in IN_WORDS.items():
        if any(isinstance(item, kind) for item in chain):
            return words
    return type(chain[-1]).__name__ if len(chain) > 1 else str(error)[:200]


def _chain(error: BaseException) -> list[BaseException]:
    """An error and what lies beneath it: causes, contexts, and errors handed on as arguments."""
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        item = queue.pop(0)
        if isinstance(item, BaseException) and item not in seen:
            seen.append(item)
            queue += [getattr(item, "reason", None), *item.args, item.__cause__, item.__context__]
    return seen
