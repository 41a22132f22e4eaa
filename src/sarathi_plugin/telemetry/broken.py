"""What watches the engine must not stop it: a method that raises switches its object off, with one log line."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


def guarded(words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates methods of an object with ``broken``: once one has raised, ``words`` are logged and all do nothing."""

    def decorate(method: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(method)
        def guard(self: Any, *args: Any) -> None:
            if self.broken:
                return
            try:
                method(self, *args)
            except Exception:
                self.broken = True
                logger.exception(words)

        return guard

    return decorate
