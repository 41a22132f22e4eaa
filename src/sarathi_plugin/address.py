"""What reaches a server: its address, and the key that comes from the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sarathi_plugin.config import ConfigError

if TYPE_CHECKING:
    from urllib.parse import SplitResult


def parts_of(url: str) -> SplitResult | None:
    """The parts of an http or https address, None when it is none."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is no port
        return None
    return parts if good else None


def authorization(variable: str) -> dict[str, str]:
    """The header for the key in an environment variable, none without a key. Raises ConfigError."""
    key = os.environ.get(variable)
    if not key:
        return {}
    if any(not " " <= letter <= "\xff" or letter == "\x7f" for letter in key):
        raise ConfigError(f"The key in {variable} holds characters that no HTTP header can carry.")
    return {"Authorization": f"Bearer {key}"}
