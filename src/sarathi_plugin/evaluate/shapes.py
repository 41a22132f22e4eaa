"""The files of an experiment's folder as they must be to be read: a damaged one is one sentence, whatever it holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sarathi_plugin.config import ConfigError, explain
from sarathi_plugin.evaluate.knobs import Trial
from sarathi_plugin.evaluate.plan import Unit
from sarathi_plugin.evaluate.spec import Knob

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self


class Shape(BaseModel):
    """What is read of a file; it may hold more."""

    model_config = ConfigDict(extra="allow", frozen=True)


class ExperimentFile(Shape):
    """``experiment.json``, to be compared with another one."""


class ValidityShape(Shape):
    """What was checked of a run."""

    reasons: list[str] = []
    lag_p99_ms: float = 0.0
    client_cpu: float | None = None


class CapacityShape(Shape):
    """What a capacity search found."""

    rate: float
    limit: str


class RunFile(Shape):
    """``run.json``."""

    unit: Unit
    warm_up: int = Field(default=0, ge=0)
    figures: dict[str, float | None] | None = None
    capacity: CapacityShape | None = None
    validity: ValidityShape = ValidityShape()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.figures if self.unit.kind == "run" else self.capacity) is None:
            raise ValueError(f"no {'figures' if self.unit.kind == 'run' else 'capacity'}")
        return self


class TuningFile(Shape):
    """``tuning/ARM.json``."""

    arm: str
    trials: tuple[Trial, ...] = Field(min_length=1)
    seeds: tuple[int, ...]
    space: dict[str, Knob]


class ArmShape(Shape):
    """An arm of ``resolved.json``."""

    name: str
    engine: dict[str, Any]
    flags: list[str]
    url: str | None
    profile: str
    role: str


class ResolvedFile(Shape):
    """``resolved.json``."""

    arms: list[ArmShape]


class EnvironmentFile(Shape):
    """``environment-*.json``."""

    python: str
    system: str
    hardware: str
    packages: dict[str, str]
    code: str
    git: dict[str, Any]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.git and not (isinstance(self.git.get("commit"), str) and "changed_files" in self.git):
            raise ValueError("git holds no commit and number of changed_files")
        return self


Read = TypeVar("Read", bound=Shape)


def read_shape(path: Path, shape: type[Read], what: str) -> tuple[dict[str, Any], Read]:
    """The plain data of a JSON file, and what was checked of it.

    Raises ConfigError for a file that is not there, was cut short or holds something else than ``what``.
    """
    data = read_json(path)
    try:
        return data, shape.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error, f"{path} is not {what} of this version")) from error


def read_json(path: Path) -> Any:
    """Raises ConfigError for a file that is not there or was cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is damaged or was cut short: {error}.") from error
