"""One scheduler that fails takes nothing from the answers about the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sarathi_plugin.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sarathi_plugin.load.server import ServerError

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Failed:
    """In place of the answer about one scheduler: why there is none."""

    label: str
    error: ConfigError | ServerError

    def as_data(self) -> dict[str, str]:
        """For the record."""
        return {"label": self.label, "reason": str(self.error)}


Answer = dict[str, Any] | Failed


def attempt(task: tuple[Callable[[Job], Result], Job]) -> Result | ConfigError | ServerError:
    """The result of (work, job), or the failure it ends with: of many side by side one must not end the others."""
    # Not at the top: it needs an extra, which the command's own checks do not.
    from sarathi_plugin.load.server import ServerError

    work, job = task
    try:
        return work(job)
    except (ConfigError, ServerError) as error:
        return error


def answered(answers: Sequence[Answer]) -> tuple[list[dict[str, Any]], list[Failed]]:
    """The answers and the failures, each in order. Raises the first failure where there is no answer at all."""
    failed = [one for one in answers if isinstance(one, Failed)]
    if len(failed) == len(answers):
        raise failed[0].error
    return [one for one in answers if not isinstance(one, Failed)], failed


def raise_first(failed: Sequence[Failed]) -> None:
    """Raise an error of the first failure's kind that names all of them, if there are any."""
    if failed:
        raise type(failed[0].error)("\n".join(f"{one.label}: {one.error}" for one in failed))
