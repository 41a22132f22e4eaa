"""The files of monitoring/: generated ones up to date, names that others rely on, provisioning that fits together.

No container engine and no Grafana can be installed where these tests run: what they would read is checked piece by
piece, and by promtool and amtool where those can.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sarathi_plugin.monitoring import names
from sarathi_plugin.monitoring.alerts import JOB
from sarathi_plugin.monitoring.dashboards.common import DOCS
from sarathi_plugin.monitoring.files import DASHBOARDS
from scripts import generated, monitoring_files, prefill_curves

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MONITORING = ROOT / "monitoring"
COMPOSE = yaml.safe_load((MONITORING / "compose.yml").read_text())
SERVICES = COMPOSE["services"]
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


@pytest.fixture
def checking(monkeypatch):
    """The script behind ``make generate`` as ``make check`` runs it."""
    monkeypatch.setattr(sys, "argv", ["monitoring_files.py", "--check"])


def test_generated_files_are_up_to_date(checking, capsys):
    """``make generate`` renews them."""
    assert generated.settle(monitoring_files.wanted()) == 0, capsys.readouterr().out


def test_shipped_prefill_curves_are_up_to_date(checking, capsys):
    assert generated.settle(prefill_curves.wanted()) == 0, capsys.readouterr().out


def test_a_stale_file_is_told_and_not_touched(checking, monkeypatch, capsys):
    path = MONITORING / "grafana" / "dashboards" / "compare.json"
    before = path.read_text()
    monkeypatch.setattr(monitoring_files.compare, "build", lambda: "{}")
    assert generated.settle(monitoring_files.wanted()) == 1
    assert (
        capsys.readouterr().out
        == "monitoring/grafana/dashboards/compare.json: out of date, run: make generate\n"
    )
    assert path.read_text() == before


def test_names_of_vllm_are_those_that_were_promised():
    """A live test scrapes them. To follow a rename in vLLM, change vllm_metric_names.txt too."""
    golden = (HERE / "vllm_metric_names.txt").read_text().splitlines()
    assert [f"{name} {kind}" for name, kind in sorted(names.VLLM.items())] == golden


def test_no_name_of_vllm_is_kept_that_nothing_uses():
    text = " ".join(path.read_text() for path in MONITORING.rglob("*.json"))
    text += " ".join(path.read_text() for path in (MONITORING / "prometheus" / "rules").glob("*.yml"))
    assert {name for name in names.VLLM if name not in text} == set()


# -- Prometheus and Alertmanager ------------------------------------------------------------------------------------


def test_the_scrape_job_is_the_one_the_rules_know():
    config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
    assert [job["job_name"] for job in config["scrape_configs"]] == [JOB]


@pytest.mark.alertmanager
def test_amtool_accepts_the_routes():
    argv = [
        shutil.which("amtool") or "amtool",
        "check-config",
        str(MONITORING / "alertmanager" / "alertmanager.yml"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.alertmanager
@pytest.mark.parametrize(
    ("severity", "receiver"), [("critical", "page"), ("warning", "ticket"), ("info", "ticket")]
)
def test_alerts_are_routed_by_severity(severity, receiver):
    file = MONITORING / "alertmanager" / "alertmanager.yml"
    amtool = shutil.which("amtool") or "amtool"
    argv = [amtool, "config", "routes", "test", f"--config.file={file}", f"severity={severity}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == receiver


# -- compose and provisioning -----------------------------------------------------------------------------------------


def mounts(service) -> dict[str, Path]:
    """Path in the container -> path here, of what is mounted from this folder."""
    found = {}
    for volume in service["volumes"]:
        source, target, *_ = volume.split(":")
        if source.startswith("./"):
            found[target] = MONITORING / source
    return found


@each_service
def test_images_are_pinned(service):
    assert re.fullmatch(r"docker\.io/[\w/]+:v?\d+\.\d+\.\d+", service["image"])


@each_service
def test_what_is_mounted_is_there_and_read_only(service):
    assert all(path.exists() for path in mounts(service).values())
    for volume in service["volumes"]:
        source = volume.split(":")[0]
        assert volume.endswith(":ro") if source.startswith("./") else source in COMPOSE["volumes"]


@each_service
def test_services_listen_on_loopback_only(service):
    assert service["network_mode"] == "host"
    assert "ports" not in service
    listening = [word for word in service.get("command", ()) if "listen-address" in word]
    listening += [v for k, v in service.get("environment", {}).items() if k == "GF_SERVER_HTTP_ADDR"]
    assert listening
    assert all("127.0.0.1" in word or word.endswith("=") for word in listening)


def test_no_secret_is_in_a_file():
    assert "${GRAFANA_ADMIN_PASSWORD:?" in SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"]
    for path in MONITORING.rglob("*.yml"):
        for line in path.read_text().splitlines():
            found = re.search(r"(?i)(password|token|secret)\w*: *(\S+)", line)
            assert found is None or found[2].startswith("${"), line


def test_commands_name_files_that_are_mounted():
    for name, flag in (("prometheus", "--config.file="), ("alertmanager", "--config.file=")):
        (path,) = [word.removeprefix(flag) for word in SERVICES[name]["command"] if word.startswith(flag)]
        assert path in mounts(SERVICES[name])
    (assets,) = [
        w.partition("=")[2] for w in SERVICES["prometheus"]["command"] if w.startswith("--web.user-assets=")
    ]
    assert (mounts(SERVICES["prometheus"])[assets] / "runbooks.md").is_file()
    config = mounts(SERVICES["prometheus"])["/etc/prometheus/prometheus.yml"]
    for pattern in yaml.safe_load(config.read_text())["rule_files"]:
        folder = mounts(SERVICES["prometheus"])["/etc/prometheus/" + pattern.rpartition("/")[0]]
        assert len(list(folder.glob("*.yml"))) == 2


def test_prometheus_finds_alertmanager_and_grafana_finds_prometheus():
    config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
    (manager,) = config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert any(
        word.endswith(":" + manager.rpartition(":")[2]) for word in SERVICES["alertmanager"]["command"]
    )
    provisioning = mounts(SERVICES["grafana"])["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert f"--web.external-url={source['url']}" in SERVICES["prometheus"]["command"]
    assert f"{source['url']}/user" == DOCS
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


def test_grafana_is_given_every_dashboard():
    files = mounts(SERVICES["grafana"])
    provider = yaml.safe_load((files["/etc/grafana/provisioning"] / "dashboards" / "sarathi.yml").read_text())
    (place,) = [one["options"]["path"] for one in provider["providers"]]
    assert {path.stem for path in files[place].glob("*.json")} == set(DASHBOARDS)
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (files[place] / home.rpartition("/")[2]).is_file()
    assert home.startswith(place)
