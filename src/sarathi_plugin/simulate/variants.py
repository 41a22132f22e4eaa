"""The variants of a sweep: every combination of the values that engine arguments and settings are given."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from sarathi_plugin.config import ConfigError, explain
from sarathi_plugin.simulate.spec import EngineSpec, with_setting
from sarathi_plugin.yamlfile import parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def variants(base: Mapping[str, Any], sweeps: Sequence[str], place: str) -> list[tuple[str, EngineSpec]]:
    """(label, engine) of every combination of the swept values.

    base: the fields of the engine that all share. sweeps: KEY=A,B,C. place: where the base is from, for errors. Raises
    ConfigError.
    """
    axes = [_axis(text) for text in sweeps]
    keys = [axis[0][0] for axis in axes]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ConfigError(f"{twice[0]} is swept twice: give all of its values in one --sweep.")
    found = []
    for chosen in itertools.product(*axes):
        data = dict(base)
        for key, value in chosen:
            data = with_setting(data, key, value)
        try:
            engine = EngineSpec.model_validate(data)
        except ValidationError as error:
            raise ConfigError(explain(error, place, EngineSpec)) from error
        label = " ".join(f"{key}={value}" for key, value in chosen) or engine.scheduler
        found.append((label, engine))
    return found


def _axis(text: str) -> list[tuple[str, Any]]:
    """One sweep as (key, value) pairs."""
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise ConfigError(f"Write --sweep KEY=A,B,C, not {text!r}.")
    found = []
    for word in values.split(","):
        try:
            found.append((key, parse(word)))
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(
                f"--sweep {text}: {word!r} is not valid YAML; values are single ones, parted by commas."
            ) from error
    shown = [str(value) for _, value in found]
    if twice := [value for value in shown if shown.count(value) > 1]:
        raise ConfigError(f"--sweep {text}: {twice[0]} is there twice.")
    return found
