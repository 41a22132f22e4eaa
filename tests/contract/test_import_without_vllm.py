"""All but the seam works where vLLM is not installed, and importing the package costs next to nothing."""

import subprocess
import sys

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("vllm", "torch"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_outside_the_seam_imports_without_vllm():
    code = (
        BLOCK
        + """
import importlib, pkgutil, sarathi_plugin
names = [m.name for m in pkgutil.walk_packages(sarathi_plugin.__path__, "sarathi_plugin.")]
names = [n for n in names if not n.startswith("sarathi_plugin.engine")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    )
    assert int(run(code)) > 40


def test_the_entry_point_loads_without_vllm():
    """vLLM loads it in every process, also where the plugin then has nothing to do."""
    assert (
        run(BLOCK + "from sarathi_plugin.engine.register import register; register(); print('fine')")
        == "fine\n"
    )


def test_importing_the_package_imports_nothing_large():
    code = "import sys, sarathi_plugin; print([n for n in ('numpy', 'pydantic', 'vllm', 'torch') if n in sys.modules])"
    assert run(code) == "[]\n"
