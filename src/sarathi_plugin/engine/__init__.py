"""The seam with vLLM. Only this package (and the simulator) knows vLLM's classes.

Offline use: ``LLM(model, **engine_arguments("sarathi", tbt_ms=50))``.
"""

from __future__ import annotations

from sarathi_plugin.engine.entry import engine_arguments

__all__ = ["engine_arguments"]
