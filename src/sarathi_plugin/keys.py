"""What could have been meant by a key that nobody knows."""

from __future__ import annotations

import dataclasses
import difflib
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

FEW = 12
"""So many keys are named when none of them is close; more would hide the sentence."""


def unknown_key(name: str, known: Collection[str]) -> str:
    """What is wrong with a key, as the end of a sentence without its full stop. known: empty when not known here."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"this key is not known; the nearest is {close[0]}"
    if known and len(known) <= FEW:
        return f"this key is not known; use one of {', '.join(sorted(known))}"
    return "this key is not known"


def keys_at(model: type | None, place: Sequence[int | str]) -> list[str]:
    """The keys that a pydantic model, or a dataclass, takes at the place of an error; empty: cannot tell.

    place: the keys on the way, indices of lists and keys of mappings included.
    """
    if dataclasses.is_dataclass(model):
        return [] if place else [field.name for field in dataclasses.fields(model) if field.init]
    here = model if model is not None and issubclass(model, BaseModel) else None
    for part in place:
        if here is None:
            return []
        field = here.model_fields.get(str(part))
        if field is None:  # an index, or the key of a mapping: the model is that of its values
            continue
        here = next(iter(_models(field.annotation)), None)
    if here is None:
        return []
    return [field.alias or name for name, field in here.model_fields.items()]


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
