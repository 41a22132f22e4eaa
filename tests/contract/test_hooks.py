"""The hooks are a promise: every one is documented with its arguments and its contract, and its caller keeps to it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pluggy
import pytest

from sarathi_plugin import hookspecs

DOCS = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text(encoding="utf-8")
SPECS = {
    name: function
    for name, function in vars(hookspecs).items()
    if inspect.isfunction(function) and hasattr(function, f"{hookspecs.PROJECT}_spec")
}
each_hook = pytest.mark.parametrize("name", SPECS)

GOLDEN = {
    "register_policies": ("register",),
    "register_step_time_models": ("register",),
    "register_slo_classes": ("register",),
    "engine_started": ("info",),
    "observe_step": ("record", "tokens"),
    "request_finished": ("timeline", "outcome"),
    "engine_stopping": (),
}
"""Hooks and their arguments. Plugins of others rest on them: take none away, rename none."""


def contract(text: str) -> dict[str, str]:
    """The parts of a contract as its docstring states them."""
    joined = " ".join(text.split())
    found = {}
    for part in ("Process", "Thread", "Cost", "An exception"):
        match = re.search(rf"\b{part}(?: budget)?: (.+?)\.(?= [A-Z`]|$)", joined)
        if match:
            found[part] = match[1]
    return found


def documented() -> dict[str, tuple[tuple[str, ...], str]]:
    """(arguments, text) of every section of the docs that is about a hook."""
    sections = re.split(r"^## `", DOCS, flags=re.MULTILINE)[1:]
    found = {}
    for section in sections:
        heading, _, text = section.partition("`\n")
        name, _, arguments = heading.rstrip(")").partition("(")
        found[name] = tuple(a for a in arguments.split(", ") if a), text.partition("<!-- end of generated")[0]
    return found


def test_the_hooks_are_those_that_were_promised():
    assert {name: tuple(inspect.signature(function).parameters) for name, function in SPECS.items()} == GOLDEN


def test_pluggy_takes_every_specification():
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    assert {name for name in vars(manager.hook) if not name.startswith("_")} == set(SPECS)


def test_every_hook_is_documented_and_nothing_else_is():
    assert {name: arguments for name, (arguments, _) in documented().items()} == GOLDEN


@each_hook
def test_a_hook_states_its_whole_contract(name: str):
    found = contract(inspect.getdoc(SPECS[name]))
    assert set(found) == {"Process", "Thread", "Cost", "An exception"}
    assert re.search(r"engine|API server", found["Process"])
    assert found["Thread"] in ("main", "the engine's own, between steps")


@each_hook
def test_the_docs_state_the_contract_of_the_code(name: str):
    doc = inspect.getdoc(SPECS[name])
    _, text = documented()[name]
    assert contract(text) == contract(doc)
    assert " ".join(doc.split()) in " ".join(text.split())


@each_hook
def test_a_hook_is_typed(name: str):
    signature = inspect.signature(SPECS[name])
    assert signature.return_annotation == "None"
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert parameter.default is inspect.Parameter.empty
        assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


def test_the_example_in_the_docs_is_a_plugin_that_fits():
    code = re.search(r"```python\n(.+?)```", DOCS, re.DOTALL)[1]
    namespace: dict[str, object] = {"slow": []}
    exec(code, namespace)  # noqa: S102 - our own docs
    module = type("module", (), {k: staticmethod(v) for k, v in namespace.items() if inspect.isfunction(v)})
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module, "example")
    manager.check_pending()
    assert [impl.plugin_name for impl in manager.hook.request_finished.get_hookimpls()] == ["example"]
