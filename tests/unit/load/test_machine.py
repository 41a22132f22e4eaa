"""Which cores a client keeps to."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.load.machine import kept_to

CORES = "import os; print(*sorted(os.sched_getaffinity(0)))"


def cores_of_a_child() -> set[int]:
    found = subprocess.run([sys.executable, "-c", CORES], capture_output=True, text=True, check=True)
    return set(map(int, found.stdout.split()))


def test_this_process_and_its_children_keep_to_them_and_are_free_afterwards():
    before = os.sched_getaffinity(0)
    one = {max(before)}
    with pytest.raises(ZeroDivisionError), kept_to(one):
        assert os.sched_getaffinity(0) == cores_of_a_child() == one
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == before


def test_none_named_leaves_it_free():
    before = os.sched_getaffinity(0)
    with kept_to([]):
        assert os.sched_getaffinity(0) == before


def test_a_core_that_is_not_there_is_named():
    with (
        pytest.raises(
            ConfigError, match=r"^client_cores: this process may not use core 4096; name others\.$"
        ),
        kept_to([4096]),
    ):
        pass
