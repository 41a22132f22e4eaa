"""What a stand-in server answers to requests that come at the same time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.unit.load.conftest import Handler


def own_body(handler: Handler) -> dict[str, Any]:
    """The body of this request, or one of the same length: others come at the same time."""
    length = int(handler.headers["Content-Length"])
    return next(body for body in reversed(handler.server.bodies) if len(json.dumps(body)) == length)


def answer(handler: Handler) -> None:
    """As many tokens as were asked for."""
    body = own_body(handler)
    handler.begin()
    for total in range(1, body["max_tokens"] + 1):
        finish = "length" if total == body["max_tokens"] else None
        handler.token("a", total=total, prompt=len(body["prompt"]), finish=finish)
    handler.event("[DONE]")
    handler.end()
