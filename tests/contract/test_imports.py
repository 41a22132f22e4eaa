"""What can be imported without what: vLLM, the extras, anything heavy."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import sarathi_plugin

BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"blocked for this test: {name}", name=name)

blocked = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Blocker())
"""
IMPORT_ALL = (
    BLOCK
    + """
import importlib
for name in sys.argv[2:]:
    importlib.import_module(name)
assert not blocked & set(sys.modules), blocked & set(sys.modules)
print(len(sys.argv[2:]))
"""
)

EXTRAS = (
    "requests",
    "accelerate",
    "gguf",
    "matplotlib",
    "transformers",
    "safetensors",
    "tokenizers",
    "locust",
    "polars",
    "ray",
    "grafana_api",
    "grafana_foundation_sdk",
    "plotly",
    "optuna",
    "jinja2",
    "rich",
    "starlette",
    "fastapi",
    "optuna",
)
WITH_VLLM = (
    "engine",
    "simulate",
    "search.deployment",
    "search.search_command",
    "search.simulated",
    "search.simulated_capacity",
    "search.study",
    "search.trial",
    "search.verify",
    "evaluate.simulated",
)
"""Parts that run vLLM's code."""

WITH_EXTRAS = (
    "load",
    "loadtest",
    "demo",
    "monitoring",
    "evaluate",
    "search.live",
    "search.live_capacity",
    "telemetry.page.routes",
    "telemetry.page.top",
)
"""Parts that may need an extra."""


def python(code: str, *arguments: str) -> str:
    """What a fresh interpreter prints; its complaint when it fails."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def modules(*without: str) -> list[str]:
    """All modules of the package, but for some parts; found without importing them."""
    found = ["sarathi_plugin"]

    def walk(paths: list[str], prefix: str) -> None:
        for info in pkgutil.iter_modules(paths, prefix):
            parts = info.name.removeprefix("sarathi_plugin.")
            if parts.partition(".")[0] in without or parts in without or parts.endswith("__main__"):
                continue
            found.append(info.name)
            if info.ispkg:
                walk([f"{path}/{info.name.rpartition('.')[2]}" for path in paths], f"{info.name}.")

    walk(list(sarathi_plugin.__path__), "sarathi_plugin.")
    return found


def test_the_list_of_modules_is_not_empty():
    found = modules("engine")
    assert {
        "sarathi_plugin.core",
        "sarathi_plugin.policies.sarathi",
        "sarathi_plugin.telemetry.tracker",
    } <= set(found)
    assert not [name for name in found if ".engine" in name]
    assert "sarathi_plugin.engine.driver" in modules()


def test_everything_outside_engine_and_simulate_works_without_vllm_and_torch():
    found = modules(*WITH_VLLM)
    assert "sarathi_plugin.search.capacity" in found
    # Locust makes sockets cooperative when it is imported, which must be before anything imports ssl.
    found.sort(key=lambda name: name != "sarathi_plugin.loadtest.command")
    assert python(IMPORT_ALL, "vllm,torch", *found).split() == [str(len(found))]


def test_the_base_works_without_any_extra():
    found = modules(*WITH_VLLM, *WITH_EXTRAS)
    assert python(IMPORT_ALL, ",".join(["vllm", "torch", *EXTRAS]), *found).split() == [str(len(found))]


def test_the_blocker_blocks():
    with pytest.raises(AssertionError, match="blocked for this test: numpy"):
        python(IMPORT_ALL, "numpy", "sarathi_plugin.core")


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys; before = set(sys.modules); import sarathi_plugin; print(*sorted(set(sys.modules) - before))"
    assert set(python(code).split()) <= {"sarathi_plugin", "__future__"}


def test_the_entry_point_that_vllm_loads_in_every_process_works_without_vllm():
    code = BLOCK + "from sarathi_plugin.engine.register import register; register(); print('fine')"
    assert python(code, "vllm,torch") == "fine\n"


def test_asking_for_the_version_loads_nothing_heavy_either():
    code = "import sys, sarathi_plugin; print(sarathi_plugin.__version__); print(*sys.modules)"
    version, loaded = python(code).splitlines()
    assert version == sarathi_plugin.__version__
    assert not {"numpy", "pydantic", "pluggy", "yaml"} & set(loaded.split())


def test_policies_and_their_tests_need_no_metrics():
    code = "import sys, sarathi_plugin.policies; print(*sys.modules)"
    loaded = set(python(code).split())
    assert not {"prometheus_client", "typer", "vllm", "torch"} & loaded
    assert not [
        name for name in loaded if name.startswith(("sarathi_plugin.engine", "sarathi_plugin.telemetry"))
    ]
