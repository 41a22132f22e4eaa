"""What every command does at its edges: bad input is one sentence on stderr and an exit code; vLLM keeps quiet."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Callable


def guard(run: Callable[[], None], *, extra: str) -> None:
    """Run a command; turn expected failures into one sentence and an exit code.

    2 for bad input or a missing extra, 1 for a server that fails, 130 for Ctrl-C.
    """
    from sarathi_plugin.config import ConfigError

    try:
        run()
    except ConfigError as error:
        _fail(str(error), 2)
    except ModuleNotFoundError as error:
        _fail(f"This needs {error.name}: pip install 'sarathi-plugin[{extra}]'.", 2)
    except KeyboardInterrupt:
        _fail("Stopped.", 130)
    except RuntimeError as error:
        from sarathi_plugin.load.server import ServerError

        if not isinstance(error, ServerError):
            raise
        _fail(str(error), 1)


def warn(sentence: str) -> None:
    """Say something that does not belong to the result."""
    typer.echo(sentence, err=True)


def _fail(sentence: str, code: int) -> None:
    warn(sentence)
    raise typer.Exit(code)


def quiet_vllm() -> None:
    """Before vLLM is imported: its start-up lines are about a server, and here is none. The user's own level wins."""
    if os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR") == "ERROR":
        logging.getLogger("vllm.triton_utils.importing").setLevel(logging.ERROR)  # before vLLM's level holds
