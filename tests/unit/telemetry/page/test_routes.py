"""The page's routes as a browser and a script meet them: keys, cookies, answers, files."""

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from sarathi_plugin.telemetry.live.build import ServerFacts
from sarathi_plugin.telemetry.live.document import LiveDocument
from sarathi_plugin.telemetry.live.source import LiveSource
from sarathi_plugin.telemetry.page import assets, gate
from sarathi_plugin.telemetry.page.gate import COOKIE, COOKIE_S, Gate
from sarathi_plugin.telemetry.page.routes import Page
from tests.unit.telemetry.scene import FAST, SLOW

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY, OTHER = "sk-one", "sk-two"
PRIVATE = ("/sarathi", "/sarathi/api", "/sarathi/api/schema")


class Browser:
    """A client of a page with these keys, and its clock."""

    def __init__(self, keys: Sequence[str] = (), *, started: bool = True, https: bool = False) -> None:
        self.wall = 1000.0
        facts = ServerFacts("m", "sarathi", (FAST, SLOW), "1", "2")
        source = LiveSource(facts, "nothing-writes-here", [0])
        page = Page(Gate(keys, lambda: self.wall), source if started else None)
        scheme = "https" if https else "http"
        self.client = TestClient(
            Starlette(routes=page.routes()), f"{scheme}://server", follow_redirects=False
        )

    def get(self, path: str, key: str | None = None, **headers: str):
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return self.client.get(path, headers=headers)

    def sign_in(self, key: str):
        return self.client.post("/sarathi/login", data={"key": key})


# -- keys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PRIVATE)
def test_without_a_key_on_the_server_everybody_may_look(path: str):
    assert Browser().get(path).status_code == 200


@pytest.mark.parametrize("path", PRIVATE)
@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}, {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {KEY}x"}, {"Authorization": f"Bearer {KEY[:-1]}"}, {"Cookie": f"{COOKIE}={KEY}"},
        {"Cookie": f"{COOKIE}=99999999999.{'0' * 64}"}, {"Cookie": f"{COOKIE}="}, {"Cookie": f"{COOKIE}=x.y"},
    ],
)  # fmt: skip
def test_with_keys_nothing_is_told_without_one(path: str, headers: dict[str, str]):
    answer = Browser([KEY, OTHER]).client.get(path, headers=headers)
    assert answer.status_code == 401
    assert "fast" not in answer.text
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("key", [KEY, OTHER])
@pytest.mark.parametrize("path", PRIVATE)
def test_each_key_opens_as_a_bearer_token(path: str, key: str):
    assert Browser([KEY, OTHER]).get(path, key).status_code == 200


def test_a_key_in_the_address_opens_nothing():
    browser = Browser([KEY])
    for name in ("key", "api_key", "token", "access_token"):
        assert browser.get(f"/sarathi/api?{name}={KEY}").status_code == 401


def test_the_page_without_a_key_is_the_sign_in_form():
    answer = Browser([KEY]).get("/sarathi")
    assert answer.status_code == 401
    assert 'action="sarathi/login"' in answer.text
    assert 'type="password"' in answer.text


def test_all_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch):
    compared = []
    real = gate.hmac.compare_digest
    monkeypatch.setattr(gate.hmac, "compare_digest", lambda a, b: (compared.append((a, b)), real(a, b))[1])
    door = Gate([KEY, OTHER])
    assert door.allows(f"Bearer {KEY}", None)
    assert len(compared) == 2
    assert {len(a) for pair in compared for a in pair} == {32}  # digests: a length tells nothing of a key
    compared.clear()
    assert not door.allows(None, "1.2")
    assert len(compared) == 2


# -- signing in --------------------------------------------------------------------------------------------------


def test_signing_in_gives_a_cookie_that_scripts_and_other_sites_cannot_use():
    browser = Browser([KEY])
    answer = browser.sign_in(KEY)
    assert answer.status_code == 303
    assert answer.headers["location"] == "../sarathi"
    cookie = answer.headers["set-cookie"]
    parts = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert parts == {"httponly", "samesite=strict", "path=/sarathi", f"max-age={COOKIE_S}"}
    assert KEY not in cookie
    assert browser.get("/sarathi/api").status_code == 200
    assert "Sign out" in browser.get("/sarathi").text


def test_over_https_the_cookie_stays_there():
    assert "secure" in Browser([KEY], https=True).sign_in(KEY).headers["set-cookie"].lower()


def test_a_cookie_ends_cannot_be_prolonged_and_is_void_under_another_key():
    browser = Browser([KEY])
    browser.sign_in(KEY)
    value = browser.client.cookies[COOKIE]
    until, _, signature = value.partition(".")
    assert int(until) == 1000 + COOKIE_S
    browser.wall = 1000 + COOKIE_S
    assert browser.get("/sarathi/api").status_code == 401
    fresh = Browser([KEY])
    assert fresh.get("/sarathi/api", Cookie=f"{COOKIE}={value}").status_code == 200  # another API server
    assert fresh.get("/sarathi/api", Cookie=f"{COOKIE}={int(until) + 1}.{signature}").status_code == 401
    assert Browser([OTHER]).get("/sarathi/api", Cookie=f"{COOKIE}={value}").status_code == 401


@pytest.mark.parametrize("key", ["", "wrong", KEY + " ", KEY * 1000])
def test_a_wrong_key_is_refused_and_not_repeated(key: str):
    answer = Browser([KEY]).sign_in(key)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "This is not a key of this server." in answer.text
    assert 'href="../sarathi/static/page.css"' in answer.text
    assert "wrong" not in answer.text


def test_a_form_too_long_is_not_read():
    assert Browser([KEY]).sign_in("x" * 10_000).status_code == 400


def test_signing_out_takes_the_cookie_back():
    browser = Browser([KEY])
    browser.sign_in(KEY)
    assert browser.client.post("/sarathi/logout").status_code == 303
    assert browser.get("/sarathi/api").status_code == 401


def test_where_there_is_no_key_there_is_no_sign_out():
    assert re.search(r'action="sarathi/logout" hidden>', Browser().get("/sarathi").text)


# -- the API -----------------------------------------------------------------------------------------------------


def test_the_document_is_what_the_schema_promises_and_is_not_kept_by_anybody():
    browser = Browser()
    answer = browser.get("/sarathi/api?slo_class=fast&window_s=10")
    assert LiveDocument.model_validate_json(answer.content).selected_class == "fast"
    assert answer.headers["cache-control"] == "no-store"
    schema = browser.get("/sarathi/api/schema").json()
    assert schema == LiveDocument.model_json_schema()
    assert set(answer.json()) == set(schema["properties"])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("slo_class=gold", ["'gold'", "fast, slow"]),
        ("engine=1", ["engine 1", "0"]),
        ("engine=x", ["engine", "whole number", "'x'"]),
        ("window_s=-1", ["window_s", "whole number"]),
        ("window_s=61", ["61", "10, 60, 300"]),
        ("clas=fast", ["'clas'", "slo_class"]),
    ],
)
def test_a_wrong_question_is_a_400_with_one_sentence(query: str, words: list[str]):
    answer = Browser().get(f"/sarathi/api?{query}")
    assert answer.status_code == 400
    assert all(word in answer.json()["error"] for word in words), answer.text


def test_empty_values_are_no_choice():
    assert Browser().get("/sarathi/api?slo_class=&engine=&window_s=").json()["window_s"] == 60


def test_while_the_server_starts_the_api_says_so():
    answer = Browser(started=False).get("/sarathi/api")
    assert answer.status_code == 503
    assert "starting" in answer.json()["error"]


# -- files -------------------------------------------------------------------------------------------------------


def test_the_page_asks_for_nothing_from_outside():
    page = Browser().get("/sarathi")
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    texts = [page.text, *((assets.STATIC / name).read_text() for name in assets.OURS)]
    for text in texts:
        assert not re.findall(r"https?://|url\(|@import|eval\(|innerHTML", text)
    names = re.findall(r'(?:src|href)="sarathi/static/([^"]+)"', page.text)
    assert set(names) == {"page.css", "page.js", "plotly.min.js"}
    for name in names:
        assert Browser([KEY]).get(f"/sarathi/static/{name}").status_code == 200


def test_the_charting_library_comes_from_its_own_package_compressed_and_once():
    browser = Browser()
    path = assets.library_path()
    assert path is not None
    assert "plotly" in path.parts
    packed = browser.get("/sarathi/static/plotly.min.js", **{"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    plain = browser.get("/sarathi/static/plotly.min.js", **{"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == packed.content == path.read_bytes()  # the client unpacked it
    assert len(gzip.compress(plain.content, 1)) < len(plain.content) / 2
    again = browser.get("/sarathi/static/plotly.min.js", **{"If-None-Match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["page.html", "../gate.py", "..%2Fgate.py", "x", "login.html"])
def test_no_other_file_is_given(name: str):
    assert Browser().get(f"/sarathi/static/{name}").status_code == 404


def test_without_plotly_the_page_says_what_to_install_and_the_api_works(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda name: None)
    browser = Browser()
    answer = browser.get("/sarathi")
    assert answer.status_code == 503
    assert "sarathi-plugin[page]" in answer.text
    assert browser.get("/sarathi/api").status_code == 200


def test_a_slash_too_many_leads_to_the_page():
    answer = Browser().get("/sarathi/")
    assert (answer.status_code, answer.headers["location"]) == (308, "../sarathi")


def test_the_document_is_made_once_for_viewers_who_ask_together():
    now = [0]
    source = LiveSource(
        ServerFacts("m", "p", (FAST,), "1", "2"),
        "x",
        [0],
        monotonic_ns=lambda: now[0],
        wall=lambda: now[0] / 1e9,
    )
    from sarathi_plugin.telemetry.live.build import Query

    first = source.json(Query())
    now[0] = 150_000_000
    assert source.json(Query()) is first
    assert json.loads(source.json(Query(slo_class="fast")))["unix_s"] == 0.15
    now[0] = 250_000_000
    assert json.loads(source.json(Query()))["unix_s"] == 0.25
