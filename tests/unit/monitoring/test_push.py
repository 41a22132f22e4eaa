"""Pushing dashboards. Against a mock: no Grafana can be installed where these tests run.

It answers as Grafana's HTTP API documents it (health, folders, dashboards by uid, POST /api/dashboards/db with versions
and 412), as far as the command asks.
"""

from __future__ import annotations

import copy

import pytest
from typer.testing import CliRunner

from sarathi_plugin.cli import app
from sarathi_plugin.monitoring.files import dashboards
from tests.unit.monitoring.http import scripted

TOKEN = "glsa_not-a-real-one"


class Grafana:
    """Folders and dashboards with versions."""

    def __init__(self, prefix=""):
        self.prefix = prefix
        self.folders, self.boards = {}, {}
        self.refuse = {}

    def __call__(self, method, path, body):
        path = path.removeprefix(self.prefix)
        if (method, path) in self.refuse:
            return self.refuse[method, path]
        if path == "/api/health":
            return 200, {"database": "ok", "version": "12.1.1"}
        if path == "/api/folders":
            if method == "GET":
                return 200, [{"uid": uid, "title": title} for uid, title in self.folders.items()]
            uid = f"folder{len(self.folders)}"
            self.folders[uid] = body["title"]
            return 200, {"uid": uid, "title": body["title"]}
        if path.startswith("/api/dashboards/uid/"):
            board = self.boards.get(path.rpartition("/")[2])
            return (
                (200, {"dashboard": board, "meta": {}})
                if board
                else (404, {"message": "Dashboard not found"})
            )
        if (method, path) == ("POST", "/api/dashboards/db"):
            return self.save(body)
        return 404, "<html>not found</html>"

    def save(self, body):
        board = copy.deepcopy(body["dashboard"])
        stored = self.boards.get(board["uid"])
        if stored and not body["overwrite"] and board.get("version") != stored["version"]:
            return 412, {
                "status": "version-mismatch",
                "message": "The dashboard has been changed by someone else",
            }
        board |= {"id": 7, "version": stored["version"] + 1 if stored else 1}
        self.boards[board["uid"]] = board
        return 200, {"status": "success", "uid": board["uid"], "version": board["version"]}


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv("GRAFANA_TOKEN", TOKEN)


def push(url, *arguments):
    return CliRunner().invoke(app, ["dashboards", "push", url, *arguments])


def refused(result, *words):
    assert result.exit_code == 2, result.output
    assert all(word in result.stderr for word in words), result.stderr
    assert result.stderr.count("\n") == 1
    assert TOKEN not in result.output
    assert "Traceback" not in result.output


def test_everything_is_created_with_the_token_of_the_environment():
    grafana = Grafana()
    with scripted(grafana) as server:
        result = push(server.url)
    assert result.exit_code == 0, result.output
    assert list(grafana.folders.values()) == ["Sarathi"]
    assert set(grafana.boards) == {"sarathi-fluidity", "sarathi-scheduler", "sarathi-compare"}
    for method, path, headers, body in server.asked:
        assert headers["Authorization"] == f"Bearer {TOKEN}"
        assert TOKEN not in path
        if (method, path) == ("POST", "/api/dashboards/db"):
            assert body["folderUid"] == "folder0"
            assert body["dashboard"]["id"] is None
    assert TOKEN not in result.output


def test_a_second_push_changes_nothing():
    grafana = Grafana()
    with scripted(grafana) as server:
        push(server.url)
        result = push(server.url)
    assert result.exit_code == 0
    assert result.output.count("keep") == 3
    assert {board["version"] for board in grafana.boards.values()} == {1}


def test_a_dry_run_writes_nothing():
    grafana = Grafana()
    with scripted(grafana) as server:
        result = push(server.url, "--dry-run")
    assert result.exit_code == 0
    assert "would create folder Sarathi" in result.output
    assert result.output.count("would create") == 4
    assert {method for method, *_ in server.asked} == {"GET"}


def edited():
    grafana = Grafana()
    grafana.folders["f"] = "Sarathi"
    for content in dashboards().values():
        grafana.boards[content["uid"]] = content | {"id": 3, "version": 5}
    grafana.boards["sarathi-compare"]["title"] = "Mine"
    return grafana


def test_what_somebody_changed_is_not_overwritten_unasked():
    grafana = edited()
    with scripted(grafana) as server:
        refused(push(server.url), "Sarathi: Compare", "--overwrite")
        assert "needs --overwrite" in push(server.url, "--dry-run").output
        assert grafana.boards["sarathi-compare"]["title"] == "Mine"
        result = push(server.url, "--overwrite")
    assert result.exit_code == 0, result.output
    assert grafana.boards["sarathi-compare"]["title"] == "Sarathi: Compare"
    assert grafana.boards["sarathi-compare"]["version"] == 6
    assert grafana.boards["sarathi-fluidity"]["version"] == 5


def test_a_change_between_reading_and_writing_is_a_conflict():
    grafana = edited()
    with scripted(grafana) as server:
        save = grafana.save

        def late(body):
            grafana.boards["sarathi-compare"]["version"] += 1
            return save(body)

        grafana.save = late
        refused(push(server.url, "--overwrite"), "412", "push again")
    assert grafana.boards["sarathi-compare"]["title"] == "Mine"


@pytest.mark.parametrize(
    ("at", "answer", "words"),
    [
        (("GET", "/api/folders"), (401, {"message": "Invalid API key"}), ["401", "GRAFANA_TOKEN"]),
        (("GET", "/api/folders"), (403, {"message": "Access denied"}), ["403", "Editor"]),
        (("POST", "/api/dashboards/db"), (403, {"message": "Access denied"}), ["403", "Editor"]),
        (("POST", "/api/dashboards/db"), (400, {"message": "bad title"}), ["400"]),
        (("POST", "/api/dashboards/db"), (412, {"status": "name-exists", "message": "same name"}), ["same name"]),
        (("POST", "/api/dashboards/db"), (500, {"message": "database is locked"}), ["500"]),
        (("GET", "/api/health"), (200, {"hello": "world"}), ["not a Grafana"]),
        (("GET", "/api/health"), (200, "<html>welcome</html>"), ["not a Grafana"]),
        (("GET", "/api/health"), (404, "nothing here"), ["not a Grafana"]),
        (("GET", "/api/health"), (502, "a message of the proxy"), ["not a Grafana"]),
        (("GET", "/api/dashboards/uid/sarathi-fluidity"), (401, {"message": "expired"}), ["401"]),
    ],
)  # fmt: skip
def test_refusals_are_one_sentence(at, answer, words):
    grafana = Grafana()
    grafana.refuse[at] = answer
    with scripted(grafana) as server:
        refused(push(server.url), *words)


@pytest.mark.parametrize(
    "url",
    [
        "grafana.example",
        "ftp://grafana.example",
        "https://",
        "http://a:b",
        "https://me:secret@grafana.example",
    ],
)
def test_bad_addresses_are_told_without_their_secrets(url):
    result = push(url)
    refused(result, "https://HOST")
    assert "secret" not in result.output


def test_nobody_there():
    refused(push("http://127.0.0.1:9"), "does not answer", "http://127.0.0.1:9")


def test_without_a_token(monkeypatch):
    monkeypatch.delenv("GRAFANA_TOKEN")
    refused(push("https://grafana.example"), "GRAFANA_TOKEN")


def test_a_path_in_front_and_other_runbooks():
    grafana = Grafana("/monitoring/grafana")
    with scripted(grafana) as server:
        result = push(f"{server.url}/monitoring/grafana/", "--docs-url", "https://docs.example/")
    assert result.exit_code == 0, result.output
    for board in grafana.boards.values():
        docs = next(v for v in board["templating"]["list"] if v["name"] == "docs")
        assert docs["query"] == "https://docs.example"
