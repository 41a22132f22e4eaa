"""The folder of results: whether it can be written to is known before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.outputs import make_folder


def test_a_folder_is_made_and_left_empty(tmp_path: Path):
    make_folder(tmp_path / "new" / "out")
    make_folder(tmp_path / "new" / "out")
    assert list((tmp_path / "new" / "out").iterdir()) == []


def test_a_file_is_no_folder(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^Cannot write .*file: File exists; choose another --out\.$"):
        make_folder(tmp_path / "file")


def test_a_folder_that_takes_no_file_is_refused():
    if not Path("/proc/self").is_dir():
        pytest.skip("no /proc here")
    with pytest.raises(ConfigError, match=r"^Cannot write /proc/self: .+; choose another --out\.$"):
        make_folder(Path("/proc/self"))
