import shutil

import pytest
from typer.testing import CliRunner

from sarathi_plugin.cli import app
from sarathi_plugin.config import ConfigError
from sarathi_plugin.monitoring import files


def export(path):
    return CliRunner().invoke(app, ["dashboards", "export", str(path)])


def test_export_writes_what_is_needed_and_no_tests(tmp_path):
    result = export(tmp_path / "new")
    assert result.exit_code == 0, result.output
    found = {
        str(path.relative_to(tmp_path / "new")) for path in (tmp_path / "new").rglob("*") if path.is_file()
    }
    assert {
        "compose.yml",
        "alertmanager/alertmanager.yml",
        "grafana/dashboards/fluidity.json",
        "prometheus/assets/runbooks.md",
        "prometheus/prometheus.yml",
        "prometheus/rules/alerts.yml",
    } <= found
    assert not any("tests" in path for path in found)


def test_export_overwrites_nothing(tmp_path):
    (tmp_path / "mine").write_text("x")
    result = export(tmp_path)
    assert result.exit_code == 2
    assert "not empty" in result.stderr
    assert result.stderr.count("\n") == 1


def test_export_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    result = export(tmp_path / "file" / "below")
    assert result.exit_code == 2
    assert "Cannot write" in result.stderr


def test_an_installation_has_the_files_beside_its_code(tmp_path, monkeypatch):
    package = tmp_path / "lib" / "site" / "sarathi_plugin"
    monkeypatch.setattr(files, "PACKAGE", package)
    with pytest.raises(ConfigError, match="not in this installation"):
        files.folder()
    monkeypatch.undo()
    source = files.folder()
    shutil.copytree(source, package / "data" / "monitoring")
    monkeypatch.setattr(files, "PACKAGE", package)
    assert files.folder() == package / "data" / "monitoring"
    assert set(files.dashboards()) == set(files.DASHBOARDS)
