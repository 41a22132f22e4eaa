"""Settings as data: what flags and the YAML file may say, checked, and how they travel to the engine."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sarathi_plugin.core import NS_PER_MS, NS_PER_S, SloClass
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.keys import keys_at, unknown_key
from sarathi_plugin.yamlfile import parse

CURVES = Path(__file__).parent / "data" / "prefill_curves"
DEFAULT_CURVE = "a100-llama-3-8b"
MIN_TBT_MS = 0.001
"""A D_d below a microsecond is a mistake, and one below a nanosecond would be zero."""
MAX_MS = 86_400_000.0
"""A day. Much longer times, in nanoseconds and added up, would not fit into 64 bits."""
MAX_COMPLETION_S = 30 * 86_400.0

Number = Annotated[float, Field(strict=True)]
"""A number that is written as one: neither a word of digits nor a yes."""


class ConfigError(ValueError):
    """Bad input from a person: one sentence that says what was wrong and what to do."""


class Strict(BaseModel):
    """A settings model: unknown keys are errors, instances do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SloClassSettings(Strict):
    """Targets of one SLO class."""

    tbt_ms: Number = Field(
        ge=MIN_TBT_MS, le=MAX_MS, description="Time allowed for each further token (D_d), milliseconds."
    )
    ttft_slack_ms: Number = Field(
        ge=0, le=MAX_MS, description="Added to the prefill curve to give D_p, milliseconds."
    )
    completion_s: Number | None = Field(
        default=None,
        gt=0,
        le=MAX_COMPLETION_S,
        description="The last token is due this long after arrival, seconds.",
    )
    importance: Number = Field(default=1.0, gt=0, description="Larger is served first under overload.")

    def build(self, name: str) -> SloClass:
        """The class in integer nanoseconds."""
        return SloClass(
            name,
            round(self.tbt_ms * NS_PER_MS),
            round(self.ttft_slack_ms * NS_PER_MS),
            None if self.completion_s is None else round(self.completion_s * NS_PER_S),
            self.importance,
        )


class CurveFile(Strict):
    """A prefill curve on disk: D_p without slack = c0 + c1 n + c2 n^2 seconds."""

    c0_s: Number = Field(ge=0, le=MAX_MS / 1000, description="Constant, seconds.")
    c1_s_per_token: Number = Field(ge=0, le=100, description="Linear term, seconds per prompt token.")
    c2_s_per_token2: Number = Field(
        ge=0, le=0.001, description="Quadratic term, seconds per prompt token squared."
    )
    model: str = Field(default="", description="The model it was measured on.")
    hardware: str = Field(default="", description="The machine it was measured on.")
    method: str = Field(default="", description="How the numbers came about.")
    points: list[tuple[int, float]] = Field(
        default_factory=list, description="Measured (prompt tokens, seconds) pairs behind the fit."
    )

    def build(self) -> PrefillCurve:
        """The curve as the rest of the code uses it."""
        source = " ".join(part for part in (self.model, self.hardware) if part)
        return PrefillCurve(self.c0_s, self.c1_s_per_token, self.c2_s_per_token2, source)


class Settings(Strict):
    """Everything the plugin can be told. Flags win over the YAML file, the file over the defaults."""

    scheduler: str = Field(default="sarathi", description="Name of the policy.")
    slo: Literal["deadline", "gap"] = Field(
        default="deadline", description="deadline: early tokens bank slack; gap: every gap within the target."
    )
    token_budget: Literal["auto"] | int = Field(
        default="auto", description="Fixed most tokens per step, or auto to let the policy choose."
    )
    tbt_ms: Number | None = Field(
        default=None,
        ge=MIN_TBT_MS,
        le=MAX_MS,
        description="D_d of the default class, milliseconds; its own when unset.",
    )
    ttft_slack_ms: Number | None = Field(
        default=None,
        ge=0,
        le=MAX_MS,
        description="TTFT slack of the default class, milliseconds; its own when unset.",
    )
    classes: dict[str, SloClassSettings] = Field(
        default_factory=dict, description="SLO classes to add or to redefine, by name."
    )
    default_class: str = Field(default="standard", description="Class of a request that names none.")
    policy: dict[str, Any] = Field(default_factory=dict, description="Settings of the policy, by field.")
    plugins: list[str] = Field(default_factory=list, description="Third-party plugins to load, by name.")
    plugin_settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Settings handed to plugins, by plugin name."
    )
    prefill_curve: str = Field(
        default=DEFAULT_CURVE, description="A shipped curve by name, or the path of a curve file."
    )
    step_time: str = Field(default="online", description="Name of the step-time model.")
    step_time_profile: str | None = Field(
        default=None, description="A saved step-time profile to start from instead of the built-in prior."
    )
    curve_targets_ms: list[Number] = Field(
        default=[25.0, 50.0, 100.0],
        min_length=1,
        max_length=16,
        description="D_d values tracked for the live acceptance curve, milliseconds, ascending.",
    )
    record: str | None = Field(
        default=None, min_length=1, description="Write StepRecords and RequestTimelines here (.jsonl.gz)."
    )
    session: str = Field(default="", description="Names this server's shared state; set by us.")

    @field_validator("token_budget", mode="before")
    @classmethod
    def _check_budget(cls, value: object) -> object:
        number = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if value != "auto" and not number:
            raise ValueError(f"must be 'auto' or a positive number of tokens, got {value!r}")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        targets = self.curve_targets_ms
        if not MIN_TBT_MS <= min(targets) <= max(targets) <= MAX_MS or targets != sorted(set(targets)):
            raise ValueError(
                f"curve_targets_ms must ascend, each at least {MIN_TBT_MS}, at most {MAX_MS:.0f}"
            )
        return self

    def encode(self) -> str:
        """These settings as one word of letters, digits, '-' and '_' (only what differs from the defaults).

        Raises ConfigError when a policy's or plugin's setting is no value that JSON could hold.
        """
        try:
            text = json.dumps(self.model_dump(mode="json", exclude_defaults=True), separators=(",", ":"))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"sarathi settings: a value cannot travel to the engine: {error}.") from error
        return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")

    @classmethod
    def decode(cls, word: str) -> Self:
        """The settings that ``encode`` packed. Raises ConfigError on anything else."""
        try:
            text = zlib.decompress(base64.urlsafe_b64decode(word + "=" * (-len(word) % 4)))
            return cls.model_validate_json(text)
        except (ValueError, zlib.error) as error:
            raise ConfigError(f"These are not packed sarathi settings: {word[:40]!r}.") from error


BUILTIN_CLASSES = {
    "interactive": SloClassSettings(tbt_ms=50, ttft_slack_ms=300),
    "standard": SloClassSettings(tbt_ms=100, ttft_slack_ms=1000),
    "batch": SloClassSettings(tbt_ms=1000, ttft_slack_ms=60_000, completion_s=600, importance=0.5),
}


UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
WITHOUT_INPUT = (*UNKNOWN_KEY, "value_error", "missing", "json_invalid")
"""Kinds of errors whose input says nothing, or is a whole file."""


def explain(error: ValidationError, where: str, model: type | None = None) -> str:
    """A pydantic error as one sentence: the first problem, its place, and how many more there are.

    A key that is not known goes first: misspelt, it is also why another is missing. model: what was read, whose keys
    are then looked through for the one that was meant.
    """
    problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] not in UNKNOWN_KEY)
    first = problems[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in UNKNOWN_KEY:
        *above, key = first["loc"]
        message = unknown_key(str(key), keys_at(model, above))
    elif first["type"] == "missing":
        message = "this key is missing"
    others = len(problems) - 1
    more = f" ({others} more {'problem' if others == 1 else 'problems'})" if others else ""
    got = "" if first["type"] in WITHOUT_INPUT else f", got {first['input']!r}"
    return f"{where}: {place + ': ' if place else ''}{message}{got}{more}."


def load_yaml(path: str) -> dict[str, Any]:
    """A YAML mapping from a file. Raises ConfigError with one clear sentence."""
    try:
        data = parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{place}: not valid YAML: {problem}.") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not valid YAML: nested too deeply.") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, not a {type(data).__name__}.")
    return data


def make_settings(file: str | None = None, **given: Any) -> Settings:
    """Settings from a YAML file (if any) with ``given`` on top; None means not given. Raises ConfigError.

    A relative ``prefill_curve`` or ``step_time_profile`` path in the file is taken from the file's folder.
    """
    data: dict[str, Any] = {}
    if file is not None:
        data = load_yaml(file)
        for key in ("prefill_curve", "step_time_profile"):
            value = data.get(key)
            if isinstance(value, str) and (Path(file).parent / value).is_file():
                data[key] = str((Path(file).parent / value).resolve())
        try:
            Settings.model_validate(data)
        except ValidationError as error:
            raise ConfigError(explain(error, file, Settings)) from error
    for where, said in ((file, data), ("sarathi settings", given)):
        if "session" in said:  # ours alone: it ties an engine to the page of its own server
            raise ConfigError(f"{where}: session: this key is not known.")
    data |= {key: value for key, value in given.items() if value is not None}
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error, "sarathi settings", Settings)) from error
    try:
        load_curve(settings.prefill_curve)
    except ConfigError as error:
        from_file = file is not None and given.get("prefill_curve") is None
        raise ConfigError(f"{file if from_file else 'sarathi settings'}: prefill_curve: {error}") from error
    return settings


def load_curve(name: str) -> PrefillCurve:
    """A shipped prefill curve by name, or one from a file. Raises ConfigError."""
    path = Path(name)
    if not path.is_file():
        shipped = CURVES / f"{name}.json"
        if not shipped.is_file():
            known = ", ".join(sorted(p.stem for p in CURVES.glob("*.json")))
            raise ConfigError(f"No prefill curve {name!r}: give the path of a curve file or one of {known}.")
        path = shipped
    try:
        return CurveFile.model_validate_json(path.read_bytes()).build()
    except ValidationError as error:
        raise ConfigError(explain(error, str(path), CurveFile)) from error
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror or error}.") from error
