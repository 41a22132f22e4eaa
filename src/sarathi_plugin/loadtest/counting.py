"""A server's own count of tokens: vLLM's ``/tokenize``, which others have, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests

from sarathi_plugin.address import authorization
from sarathi_plugin.load.client import KEY
from sarathi_plugin.loadtest.words import Costs, learn

if TYPE_CHECKING:
    from sarathi_plugin.loadtest.target import Served


def word_costs(served: Served, *, chat: bool, timeout_s: float = 10.0) -> Costs | None:
    """What words cost at this server, as chat messages or as plain prompts; None when it does not tell.

    A server is believed no further: the usage of every answer is compared with the length asked for.
    """
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update(authorization(KEY))

        def count(text: str) -> int:
            body: dict[str, Any] = {"model": served.model}
            if chat:
                body |= {"messages": [{"role": "user", "content": text}], "add_generation_prompt": True}
            else:
                body |= {"prompt": text}
            answer = session.post(
                f"{served.url}/tokenize", json=body, timeout=timeout_s, allow_redirects=False
            )
            answer.raise_for_status()
            return int(answer.json()["count"])

        try:
            return learn(count)
        except (requests.exceptions.RequestException, ValueError, KeyError, TypeError):
            return None  # no such endpoint, or not in this form: lengths come from usage, and the summary says so
