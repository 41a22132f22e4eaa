"""Pushing dashboards. Against a mock: no Grafana can be installed where these tests run.

It answers as Grafana's HTTP API documents it (health, folders, dashboards by uid, POST /api/dashboards/db with versions
and 412), as far as the command asks.
"""

from __future__ import annotations

import copy

import pytest
from typer.testing import CliRunner

from sarathi_plugin.cli import app
from sarathi_plugin.monitoring import push as module
from sarathi_plugin.monitoring.files import dashboards
from tests.unit.monitoring.http import scripted

TOKEN = "glsa_not-a-real-one"


class Grafana:
    """Folders and dashboards with versions."""

    def __init__(self, prefix=""):
        self.prefix = prefix
        self.folders, self.boards, self.places = {}, {}, {}
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
            if not board:
                return 404, {"message": "Dashboard not found"}
            place = self.places[board["uid"]]
            return 200, {
                "dashboard": board,
                "meta": {"folderUid": place, "folderTitle": self.folders.get(place, "General")},
            }
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
        self.places[board["uid"]] = body["folderUid"]
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
    assert result.output.count("kept") == 3
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
        grafana.places[content["uid"]] = "f"
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
        (("GET", "/api/folders"), (200, ["x"]), ["not a Grafana"]),
        (("GET", "/api/folders"), (200, [{"title": "Sarathi"}]), ["not a Grafana"]),
        (("GET", "/api/folders"), (200, {"message": "weird"}), ["not a Grafana"]),
        (("POST", "/api/folders"), (200, ["x"]), ["not a Grafana", "0 of 3 dashboards"]),
        (("GET", "/api/dashboards/uid/sarathi-fluidity"), (200, ["x"]), ["not a Grafana"]),
        (("GET", "/api/dashboards/uid/sarathi-fluidity"), (200, {"dashboard": ["x"]}), ["not a Grafana"]),
        (("GET", "/api/dashboards/uid/sarathi-fluidity"), (200, {"dashboard": {}, "meta": 3}), ["not a Grafana"]),
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
        "https://me:secret@",
        "https://me:secret@[::1",
        "http://[::1",
        "http://grafana.example:99999",
    ],
)
def test_bad_addresses_are_told_without_their_secrets(url):
    result = push(url)
    refused(result, "https://HOST")
    assert "secret" not in result.output


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://[::1]:9"])
def test_nobody_there(url):
    refused(push(url), "does not answer", url, "(ConnectionError)")


@pytest.mark.parametrize(
    ("url", "api"),
    [
        ("http://[::1]:3000/grafana/", "http://[::1]:3000/grafana/api"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]/api"),
        ("https://grafana.example:3000", "https://grafana.example:3000/api"),
    ],
)
def test_the_address_of_the_api(url, api):
    assert module.Grafana(url)._face.api.url == api


@pytest.mark.parametrize("spoilt", [f"{TOKEN}\n", f"{TOKEN}\r", f"{TOKEN}\nmore", f"{TOKEN}ж", f"{TOKEN} "])
def test_a_token_that_is_none_is_told_without_it(monkeypatch, spoilt):
    monkeypatch.setenv("GRAFANA_TOKEN", spoilt)
    refused(push("https://grafana.example"), "The token in GRAFANA_TOKEN holds")


@pytest.mark.parametrize("folder", ["", " "])
def test_a_folder_without_a_name_is_refused(folder):
    refused(push("https://grafana.example", "--folder", folder), "--folder")


@pytest.mark.parametrize("docs", ["nonsense", "docs.example/a", "ftp://docs.example", "http://[::1"])
def test_an_address_of_the_docs_that_is_none_is_refused(docs):
    refused(push("https://grafana.example", "--docs-url", docs), "--docs-url")


def test_what_is_unchanged_in_another_folder_stays_there_and_is_told():
    grafana = Grafana()
    with scripted(grafana) as server:
        push(server.url)
        result = push(server.url, "--folder", "Other")
        dry = push(server.url, "--folder", "Other", "--dry-run")
    assert result.exit_code == 0, result.output
    assert list(grafana.folders.values()) == ["Sarathi"]
    assert result.output.count("in folder Sarathi (--overwrite moves it)") == 3
    assert "folder Other" not in dry.output


def test_overwrite_moves_it():
    grafana = Grafana()
    with scripted(grafana) as server:
        push(server.url)
        dry = push(server.url, "--folder", "Other", "--dry-run", "--overwrite")
        assert set(grafana.places.values()) == {"folder0"}
        result = push(server.url, "--folder", "Other", "--overwrite")
        again = push(server.url, "--folder", "Other")
    assert dry.output.count("would move") == 3
    assert result.output.count("moved") == 3
    assert list(grafana.folders.values()) == ["Sarathi", "Other"]
    assert set(grafana.places.values()) == {"folder1"}
    assert again.output.count("kept") == 3


def test_only_what_was_done_is_said_and_a_failure_says_how_much_was():
    grafana = Grafana()
    save = grafana.save
    grafana.save = lambda body: (500, {"message": "full"}) if grafana.boards else save(body)
    with scripted(grafana) as server:
        result = push(server.url)
    refused(result, "500", "; 1 of 3 dashboards were written before.")
    assert result.stdout == "created folder Sarathi\ncreated Sarathi: Fluidity\n"


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
