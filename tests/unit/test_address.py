"""Addresses and keys: what no connection could use is said in a sentence, and a key is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from sarathi_plugin.address import authorization, parts_of
from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import SloClass
from sarathi_plugin.deadlines import PrefillCurve
from sarathi_plugin.load.client import Endpoint, StreamingClient
from sarathi_plugin.load.profile_command import prefill
from sarathi_plugin.load.targets import Targets
from sarathi_plugin.loadtest.target import describe
from sarathi_plugin.telemetry.page.top import Client

BAD = [
    "", "host:8000", "ftp://host", "http://", "http://[::1", "http://host:abc", "http://host:99999", "http://host:0",
]  # fmt: skip
TARGETS = Targets(SloClass("standard", 10**8, 10**9), PrefillCurve(0, 0, 0))


@pytest.mark.parametrize("url", BAD)
def test_a_bad_address_is_a_sentence_everywhere(url: str, tmp_path: Path):
    assert parts_of(url) is None
    with pytest.raises(ConfigError, match="Give the server's address as http://HOST:PORT"):
        describe(url)
    with pytest.raises(ConfigError, match="Give the server's address as http://HOST:PORT"):
        prefill(url, tmp_path / "curve.json", None, 1, None, 0, say=print)
    if "://" in url:  # top puts http:// before the rest
        with pytest.raises(ConfigError, match="is not the address of a server"):
            Client(url)


@pytest.mark.parametrize(
    "url", ["http://host", "https://host:1/path", "http://[::1]:8000", "http://127.0.0.1:65535"]
)
def test_a_good_address_has_parts(url: str):
    parts = parts_of(url)
    assert parts is not None
    assert parts.hostname


def test_a_host_that_no_name_can_be_is_a_bad_address():
    with pytest.raises(ConfigError, match="Give the server's address"):
        describe("http://.host:8000")


@pytest.mark.parametrize(
    "key", ["sk-geheim\n", "sk-gehei\u0142", "sk-\x7fgeheim", "sk-geheim\r\nX: y", "sk-\udcffgeheim"]
)
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("OPENAI_API_KEY", "VLLM_API_KEY"):
        monkeypatch.setenv(name, key)
    for name, use in (
        ("OPENAI_API_KEY", lambda: describe("http://127.0.0.1:1")),
        ("OPENAI_API_KEY", lambda: StreamingClient(Endpoint("http://127.0.0.1:1", "m"), TARGETS)),
        ("VLLM_API_KEY", lambda: Client("http://127.0.0.1:1")),
    ):
        with pytest.raises(ConfigError) as caught:
            use()
        assert str(caught.value) == f"The key in {name} holds characters that no HTTP header can carry."


def test_a_key_of_latin_letters_is_a_header(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\xe4 1")
    assert authorization("OPENAI_API_KEY") == {"Authorization": "Bearer sk-\xe4 1"}
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert authorization("OPENAI_API_KEY") == {}
