"""Stall-free scheduling for vLLM: chunked prefills sized by the deadlines of the tokens in flight.

Importing this needs neither vLLM nor torch; only ``sarathi_plugin.engine`` does.
"""

from __future__ import annotations

__version__: str


def __getattr__(name: str) -> str:
    """Look the version up when it is first asked for: reading metadata takes longer than this import."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    globals()["__version__"] = found = version("sarathi-plugin")
    return found
