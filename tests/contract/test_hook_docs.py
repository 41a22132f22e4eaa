"""docs/hooks.md and the hook specifications say the same, and each specification is a whole contract."""

import inspect
from pathlib import Path

import pytest

from sarathi_plugin import hookspecs

DOCS = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text(encoding="utf-8")
HOOKS = {
    name: function
    for name, function in vars(hookspecs).items()
    if hasattr(function, f"{hookspecs.PROJECT}_spec")
}


def test_there_are_hooks():
    assert {"register_policies", "observe_step", "request_finished"} <= set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_the_docs_show_it_with_its_arguments(name: str):
    arguments = ", ".join(inspect.signature(HOOKS[name]).parameters)
    assert f"## `{name}({arguments})`" in DOCS


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize("part", ["Process:", "Thread:", "Cost", "An exception:"])
def test_its_contract_is_complete(name: str, part: str):
    assert part in inspect.getdoc(HOOKS[name])


def test_the_docs_show_no_other():
    shown = {line.split("`")[1].partition("(")[0] for line in DOCS.splitlines() if line.startswith("## `")}
    assert shown == set(HOOKS)
