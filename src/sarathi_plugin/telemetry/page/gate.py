"""Who may see the page: vLLM checks its API key on other paths only, so these routes check it themselves."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COOKIE = "sarathi_page"
COOKIE_S = 12 * 3600
"""How long a browser stays signed in, seconds."""


class Gate:
    """keys: the server's API keys; without any, everybody may look (as at /metrics). wall: seconds since the epoch.

    A cookie holds no key, but an end of validity signed with one: it needs no memory here, so it is good at every API
    server of a machine and after a restart.
    """

    def __init__(self, keys: Sequence[str], wall: Callable[[], float] = time.time) -> None:
        self._keys = [key.encode() for key in keys if key]
        self._wall = wall

    @property
    def open(self) -> bool:
        """Whether there is no key to ask for."""
        return not self._keys

    def allows(self, authorization: str | None, cookie: str | None) -> bool:
        """Whether a request with these headers may pass."""
        if self.open:
            return True
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and self._is_key(token.strip()):
            return True
        return self._is_valid(cookie or "")

    def sign_in(self, key: str) -> str | None:
        """The cookie for whoever knows a key, None for others."""
        if self.open or not self._is_key(key):
            return None
        until = str(int(self._wall()) + COOKIE_S)
        return f"{until}.{_sign(key.encode(), until)}"

    def _is_key(self, given: str) -> bool:
        # Every key is compared, in constant time, whichever matched.
        digest = hashlib.sha256(given.encode()).digest()
        found = False
        for key in self._keys:
            found |= hmac.compare_digest(digest, hashlib.sha256(key).digest())
        return found

    def _is_valid(self, cookie: str) -> bool:
        until, _, signature = cookie.partition(".")
        found = False
        for key in self._keys:
            found |= hmac.compare_digest(_sign(key, until).encode(), signature.encode())
        return found and until.isdecimal() and int(until) > self._wall()


def _sign(key: bytes, until: str) -> str:
    return hmac.new(
        hashlib.sha256(b"sarathi-page " + key).digest(), until.encode(), hashlib.sha256
    ).hexdigest()
