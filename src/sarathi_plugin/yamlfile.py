"""YAML as files of ours may be: what PyYAML's safe loader takes, less what it would get wrong without a word.

An exponent needs neither point nor sign: ``1e3`` is a number, as in YAML 1.2; PyYAML's YAML 1.1 reads it as text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

FLOAT = "tag:yaml.org,2002:float"
EXPONENT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$")
"""Floats with an exponent (YAML 1.2, core schema, 10.3.2)."""
MERGE = "tag:yaml.org,2002:merge"
VALUE_ERRORS = (ValueError, ArithmeticError, LookupError, AttributeError)
"""What PyYAML's constructors raise for a value that only looks like one of its type, such as the date 2020-13-45."""


class Loader(yaml.SafeLoader):
    """Raises YAMLError, with its place, for a key given twice, a value that contains itself, and a value of no type."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._open: list[yaml.Node] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """An alias must name a value that is complete."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) and self.anchors.get(event.anchor) in [parent, *self._open]:
            mark: Any = event.start_mark
            raise ComposerError(None, None, f"*{event.anchor} stands inside itself", mark)
        if parent is None:
            return super().compose_node(parent, index)
        self._open.append(parent)
        try:
            return super().compose_node(parent, index)
        finally:
            self._open.pop()

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Each key once; looked at here, before merged keys come in, which a mapping may replace."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                continue
            if (key.tag, key.value) in seen:
                raise ConstructorError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
            seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value."""
        try:
            return super().construct_object(node, deep)
        except VALUE_ERRORS as error:
            kind = node.tag.rpartition(":")[2]
            raise ConstructorError(
                None, None, f"{str(node.value)[:40]!r} is no {kind}", node.start_mark
            ) from error


class Dumper(yaml.SafeDumper):
    """Quotes text that ``Loader`` would read as a number."""


for _end in (Loader, Dumper):
    _end.add_implicit_resolver(FLOAT, EXPONENT, list("-+.0123456789"))


def parse(text: str) -> Any:
    """The value of a YAML document. Raises YAMLError, and RecursionError for what is nested too deeply."""
    loader = Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def dump(value: Any, **style: Any) -> str:
    """A YAML document that ``parse`` reads as the same value. style: as ``yaml.dump`` takes it. Raises YAMLError."""
    text: str = yaml.dump(value, Dumper=Dumper, **style)
    return text
