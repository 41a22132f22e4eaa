import json
import subprocess

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.demo import models, smollm2, tiny


def test_tokenizer_has_every_byte_once():
    names = tiny.byte_characters()
    assert len(set(names)) == 256
    assert names[ord("A")] == "A"
    assert names[ord(" ")] == "Ġ"
    assert names[ord("\n")] == "Ċ"
    vocabulary = tiny.tokenizer()["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(256 + len(tiny.SPECIAL)))
    assert len(vocabulary) <= tiny.VOCABULARY


def test_tokenizer_works():
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(tiny.tokenizer()))
    text = "Hällo, Wörld! 😀\n  two  spaces"
    ids = tokenizer.encode(text).ids
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode("<|start|>a").ids == [3, len(tiny.SPECIAL) + ord("a")]


def test_tiny_model_is_written_once(tmp_path):
    model = models.tiny_model(tmp_path)
    assert json.loads((model.folder / "config.json").read_text())["num_hidden_layers"] == 4
    (model.folder / "mark").touch()
    assert (models.tiny_model(tmp_path).folder / "mark").exists()
    assert [p.name for p in model.folder.parent.iterdir()] == [model.folder.name]


def test_a_model_that_fails_leaves_nothing_half_done(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "gguf_file", lambda: tmp_path / "x.gguf")
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda argv, **_: subprocess.CompletedProcess(argv, 1, "", "Boom\nOSError: bad weights\n"),
    )
    with pytest.raises(ConfigError, match="OSError: bad weights"):
        models.smollm2_model(tmp_path / "cache")
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(smollm2, "PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="--fast"):
        models.smollm2_model(tmp_path)


def test_cache_folder(tmp_path):
    assert models.cache_folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "sarathi-plugin"
    assert models.cache_folder({}).parts[-2:] == (".cache", "sarathi-plugin")


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^Cannot write .*file: .*; set XDG_CACHE_HOME"):
        models.tiny_model(tmp_path / "file")
