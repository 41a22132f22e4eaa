"""What could have been meant by a key that nobody knows."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from pydantic import BaseModel, Field, ValidationError

from sarathi_plugin.config import Strict, explain
from sarathi_plugin.keys import FEW, keys_at, unknown_key


class Inner(BaseModel):
    speed: int = 1
    long_name: int = Field(default=1, alias="long-name")


class Outer(Strict):
    inner: Inner | None = None
    parts: list[Inner] = Field(default_factory=list)
    named: dict[str, Inner] = Field(default_factory=dict)
    count: int


@dataclass
class Plain:
    budget: int = 1


@pytest.mark.parametrize(
    ("place", "keys"),
    [
        ((), ["inner", "parts", "named", "count"]),
        (("inner",), ["speed", "long-name"]),
        (("parts", 3), ["speed", "long-name"]),
        (("named", "gold"), ["speed", "long-name"]),
        (("count",), []),
    ],
)
def test_keys_at_a_place(place: tuple[int | str, ...], keys: list[str]):
    assert keys_at(Outer, place) == keys


def test_keys_of_a_dataclass_and_of_nothing():
    assert keys_at(Plain, ()) == ["budget"]
    assert keys_at(Plain, ("budget",)) == []
    assert keys_at(None, ()) == []


def test_the_nearest_key_is_named_else_all_of_a_few():
    assert unknown_key("promt", ["prompt", "rate"]) == "this key is not known; the nearest is prompt"
    assert unknown_key("xyz", ["prompt", "rate"]) == "this key is not known; use one of prompt, rate"
    assert unknown_key("xyz", [f"key{i}" for i in range(FEW + 1)]) == "this key is not known"
    assert unknown_key("xyz", []) == "this key is not known"


def test_a_misspelt_key_goes_before_the_one_that_is_missing_by_it():
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"cuont": 3})
    assert (
        explain(caught.value, "a.yaml", Outer)
        == "a.yaml: cuont: this key is not known; the nearest is count (1 more problem)."
    )
