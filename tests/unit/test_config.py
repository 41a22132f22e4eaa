"""Settings: which win, what travels to the engine, and one clear sentence for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from sarathi_plugin import yamlfile
from sarathi_plugin.config import (
    BUILTIN_CLASSES,
    CURVES,
    ConfigError,
    CurveFile,
    Settings,
    SloClassSettings,
    load_curve,
    load_yaml,
    make_settings,
)
from sarathi_plugin.core import SloClass

CURVE = {"c0_s": 0.5, "c1_s_per_token": 0.25, "c2_s_per_token2": 0.000125}


def write(folder: Path, text: str, name: str = "settings.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(path: str | None = None, **given: object) -> str:
    """The sentence with which settings are refused."""
    with pytest.raises(ConfigError) as caught:
        make_settings(path, **given)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence


BAD = {
    "unknown key": ("budget: 3", "budget: this key is not known"),
    "unknown key in a class": (
        "classes: {gold: {tbt_ms: 5, ttft_slack_ms: 1, tbt: 3}}",
        "classes.gold.tbt: this key is not known; the nearest is tbt_ms.",
    ),
    "missing key": ("classes: {gold: {tbt_ms: 5}}", "classes.gold.ttft_slack_ms: this key is missing."),
    "wrong type": ("tbt_ms: fast", "tbt_ms: Input should be a valid number"),
    "wrong type says what came": ("tbt_ms: fast", "got 'fast'"),
    "list for a mapping inside": ("classes: [a]", "classes: Input should be a valid dictionary"),
    "word for a list": ("plugins: page", "plugins: Input should be a valid list"),
    "number for a name": ("scheduler: 3", "scheduler: Input should be a valid string"),
    "number for a key": ("1: 2", "1: Keys should be strings"),
    "unknown choice": ("slo: both", "slo: Input should be 'deadline' or 'gap', got 'both'"),
    "negative target": ("tbt_ms: -5", "tbt_ms: Input should be greater than or equal to 0.001, got -5"),
    "target that would be no time at all": ("tbt_ms: 0.0000001", "tbt_ms: Input should be greater"),
    "negative slack": (
        "ttft_slack_ms: -1",
        "ttft_slack_ms: Input should be greater than or equal to 0, got -1",
    ),
    "negative target of a class": (
        "classes: {gold: {tbt_ms: -1, ttft_slack_ms: 0}}",
        "classes.gold.tbt_ms: Input should be",
    ),
    "infinite target": ("tbt_ms: .inf", "tbt_ms: Input should be a finite number"),
    "no number for a target": ("tbt_ms: .nan", "tbt_ms: Input should be a finite number"),
    "target of over a day": (
        "tbt_ms: 1.0e+12",
        "tbt_ms: Input should be less than or equal to 86400000, got 1000000000000.0",
    ),
    "slack of over a day": (
        "ttft_slack_ms: 86400001",
        "ttft_slack_ms: Input should be less than or equal to",
    ),
    "target of a class of over a day": (
        "classes: {gold: {tbt_ms: 1.0e+300, ttft_slack_ms: 0}}",
        "classes.gold.tbt_ms: Input should be less than or equal to 86400000",
    ),
    "whole answer in over a month": (
        "classes: {gold: {tbt_ms: 1, ttft_slack_ms: 0, completion_s: 2592001}}",
        "classes.gold.completion_s: Input should be less than or equal to 2592000",
    ),
    "tracked target of over a day": (
        "curve_targets_ms: [50, 1.0e+300]",
        "each at least 0.001, at most 86400000",
    ),
    "yes for a target": ("tbt_ms: true", "tbt_ms: Input should be a valid number, got True"),
    "word of digits for a slack": (
        "ttft_slack_ms: '5'",
        "ttft_slack_ms: Input should be a valid number, got '5'",
    ),
    "yes for a target of a class": (
        "classes: {gold: {tbt_ms: yes, ttft_slack_ms: 0}}",
        "classes.gold.tbt_ms: Input should be a valid number",
    ),
    "yes for a tracked target": (
        "curve_targets_ms: [yes]",
        "curve_targets_ms.0: Input should be a valid number",
    ),
    "no name for a recording": ("record: ''", "record: String should have at least 1 character"),
    "what only we set": ("session: abc", "session: this key is not known."),
    "importance of zero": (
        "classes: {gold: {tbt_ms: 1, ttft_slack_ms: 0, importance: 0}}",
        "classes.gold.importance: Input should be greater than 0",
    ),
    "budget of zero": (
        "token_budget: 0",
        "token_budget: must be 'auto' or a positive number of tokens, got 0",
    ),
    "negative budget": (
        "token_budget: -8",
        "token_budget: must be 'auto' or a positive number of tokens, got -8",
    ),
    "word for a budget": ("token_budget: many", "token_budget: must be 'auto' or a positive number"),
    "half a token": ("token_budget: 1.5", "token_budget: must be 'auto' or a positive number"),
    "yes for a budget": ("token_budget: yes", "token_budget: must be 'auto' or a positive number"),
    "falling targets": ("curve_targets_ms: [50, 25]", "curve_targets_ms must ascend"),
    "equal targets": ("curve_targets_ms: [50, 50]", "curve_targets_ms must ascend"),
    "target of zero": ("curve_targets_ms: [0, 50]", "curve_targets_ms must ascend, each at least 0.001"),
    "no targets": ("curve_targets_ms: []", "curve_targets_ms: List should have at least 1 item"),
    "too many targets": (
        f"curve_targets_ms: {list(range(1, 18))}",
        "curve_targets_ms: List should have at most 16",
    ),
    "unknown curve": ("prefill_curve: h100", "prefill_curve: No prefill curve 'h100'"),
    "unknown curve tells the known": ("prefill_curve: h100", "a100-llama-3-8b-tp1, "),
    "list for the whole": ("- scheduler", "must hold a mapping of settings, not a list"),
    "word for the whole": ("sarathi", "must hold a mapping of settings, not a str"),
    "not YAML": ("a: 1\nb: : 2", "line 2: not valid YAML: mapping values are not allowed here"),
    "tab": ("\tscheduler: sarathi", "line 1: not valid YAML"),
    "unclosed": ("classes: {", "line 1: not valid YAML"),
    "YAML with code": ("!!python/object:os.system {}", "not valid YAML: could not determine a constructor"),
    "a date that is none": ("a: 1\nb: 2020-13-45", "line 2: not valid YAML: '2020-13-45' is no timestamp."),
    "a number that is none": ("tbt_ms: !!int many", "line 1: not valid YAML: 'many' is no int."),
    "a value of no type": ("tbt_ms: !!bool many", "line 1: not valid YAML: 'many' is no bool."),
    "too deep": ("a: " + "[" * 5000 + "]" * 5000, "not valid YAML: nested too deeply."),
    "a list in itself": ("policy: {a: &x [*x]}", "line 1: not valid YAML: *x stands inside itself."),
    "a mapping in itself": ("policy: {a: &x {b: [{c: *x}]}}", "not valid YAML: *x stands inside itself."),
    "a key twice": (
        "tbt_ms: 5\nslo: gap\ntbt_ms: 7",
        "line 3: not valid YAML: the key 'tbt_ms' is given twice.",
    ),
    "a key twice inside": ("policy: {a: 1, a: 1}", "line 1: not valid YAML: the key 'a' is given twice."),
    "several problems": ("budget: 3\ntbt_ms: -1\nslo: no", "(2 more problems)"),
}


@pytest.mark.parametrize(("text", "complaint"), BAD.values(), ids=BAD.keys())
def test_bad_settings_are_refused_in_one_sentence_that_names_file_and_key(
    tmp_path: Path, text: str, complaint: str
):
    path = write(tmp_path, text)
    sentence = refused(path)
    assert sentence.startswith(path)
    assert complaint in sentence


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"tbt_ms": -5.0}, "tbt_ms: Input should be greater than or equal to 0.001, got -5.0"),
        ({"token_budget": 0}, "token_budget: must be 'auto' or a positive number of tokens, got 0"),
        ({"slo": "both"}, "slo: Input should be"),
        ({"prefill_curve": "h100"}, "prefill_curve: No prefill curve 'h100'"),
        ({"record": ""}, "record: String should have at least 1 character"),
        ({"session": "abc"}, "session: this key is not known"),
    ],
)
def test_a_bad_flag_is_not_blamed_on_the_file(tmp_path: Path, given: dict[str, object], complaint: str):
    path = write(tmp_path, "scheduler: vllm")
    for sentence in (refused(**given), refused(path, **given)):
        assert sentence.startswith("sarathi settings: ")
        assert complaint in sentence


def test_a_missing_file_is_named(tmp_path: Path):
    path = str(tmp_path / "none.yaml")
    assert refused(path) == f"Cannot read {path}: No such file or directory."


def test_a_folder_is_not_a_file(tmp_path: Path):
    assert refused(str(tmp_path)) == f"Cannot read {tmp_path}: Is a directory."


def test_bytes_that_are_no_text_are_not_yaml(tmp_path: Path):
    (tmp_path / "bytes.yaml").write_bytes(b"a: \xff\xfe")
    assert "not valid YAML" in refused(str(tmp_path / "bytes.yaml"))


def test_an_empty_file_changes_nothing(tmp_path: Path):
    path = write(tmp_path, "# nothing yet\n")
    assert load_yaml(path) == {}
    assert make_settings(path) == Settings()


def test_a_merged_key_may_be_replaced_and_an_anchor_used_twice(tmp_path: Path):
    text = "p: {q: &gold {<<: &any {tbt_ms: 5, ttft_slack_ms: 1}, tbt_ms: 7}}\nr: {<<: *gold}\ns: *any\n"
    assert load_yaml(write(tmp_path, text)) == {
        "p": {"q": {"tbt_ms": 7, "ttft_slack_ms": 1}},
        "r": {"tbt_ms": 7, "ttft_slack_ms": 1},
        "s": {"tbt_ms": 5, "ttft_slack_ms": 1},
    }


def test_whole_numbers_are_numbers(tmp_path: Path):
    settings = make_settings(write(tmp_path, "tbt_ms: 5\ncurve_targets_ms: [25, 50.5]"))
    assert (settings.tbt_ms, settings.curve_targets_ms) == (5.0, [25.0, 50.5])
    assert Settings.decode(settings.encode()) == settings


@pytest.mark.parametrize("text", ["1e3", "1E3", "1.5e3", "+.5e3", "-1.e3", "1e-3", "1E+3", "1.0e+3"])
def test_exponents_need_neither_point_nor_sign(tmp_path: Path, text: str):
    (value,) = load_yaml(write(tmp_path, f"tbt_ms: {text}")).values()
    assert (type(value), value) == (float, float(text))


@pytest.mark.parametrize("text", ["'1e3'", "1e", "e3", "1e3s", "1e3.5", "1e3_0", "1 e3", ".e3", "--1e3"])
def test_what_is_no_number_stays_text(tmp_path: Path, text: str):
    assert load_yaml(write(tmp_path, f"tbt_ms: {text}")) == {"tbt_ms": text.strip("'")}
    assert "tbt_ms: Input should be a valid number" in refused(write(tmp_path, f"tbt_ms: {text}"))


def test_written_values_are_read_as_they_were():
    values = {"1e3": ["1e3", 1e3, 1e-7, "2E-4", "12", 12, "1.5", "text"]}
    assert yamlfile.parse(yamlfile.dump(values)) == values


def test_a_setting_that_cannot_travel_is_refused():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(ConfigError, match=r"^sarathi settings: a value cannot travel to the engine: .*\.$"):
        Settings(policy={"a": loop}).encode()


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path):
    path = write(tmp_path, "scheduler: orca\ntbt_ms: 25\nplugins: [a]\n")
    settings = make_settings(path, scheduler="vllm", ttft_slack_ms=7.0, tbt_ms=None)
    assert settings.scheduler == "vllm"  # flag, file, default
    assert settings.tbt_ms == 25  # file, default
    assert settings.ttft_slack_ms == 7  # flag, default
    assert settings.plugins == ["a"]
    assert settings.slo == "deadline"  # default
    assert make_settings(path).scheduler == "orca"
    assert make_settings().scheduler == "sarathi"


def test_a_flag_does_not_excuse_a_mistake_in_the_file(tmp_path: Path):
    path = write(tmp_path, "tbt_ms: -1")
    assert refused(path, tbt_ms=20.0).startswith(f"{path}: tbt_ms")


def test_a_relative_curve_is_taken_from_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "curves").mkdir()
    curve = write(tmp_path, json.dumps(CURVE), "curves/mine.json")
    path = write(tmp_path, "prefill_curve: curves/mine.json")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    settings = make_settings(path)
    assert settings.prefill_curve == curve
    assert load_curve(settings.prefill_curve).c1_s == 0.25


def test_a_relative_profile_is_taken_from_the_folder_of_the_file(tmp_path: Path):
    profile = write(tmp_path, "{}", "profile.json")
    path = write(tmp_path, "step_time_profile: profile.json")
    assert make_settings(path).step_time_profile == profile


BAD_CURVES = {
    "missing key": ({"c0_s": 1}, "c1_s_per_token: this key is missing (1 more problem)"),
    "negative": (
        CURVE | {"c2_s_per_token2": -1},
        "c2_s_per_token2: Input should be greater than or equal to 0",
    ),
    "unknown key": (CURVE | {"c3": 1}, "c3: this key is not known"),
    "too large": (
        CURVE | {"c2_s_per_token2": 0.01},
        "c2_s_per_token2: Input should be less than or equal to 0.001",
    ),
    "wrong type": (CURVE | {"c0_s": "x"}, "c0_s: Input should be a valid number"),
    "a list": ([1, 2, 3], "Input should be an object"),
}


@pytest.mark.parametrize(("content", "complaint"), BAD_CURVES.values(), ids=BAD_CURVES.keys())
def test_a_bad_curve_file_is_refused_in_one_sentence(tmp_path: Path, content: object, complaint: str):
    path = write(tmp_path, json.dumps(content), "curve.json")
    settings = write(tmp_path, "prefill_curve: curve.json")
    sentence = refused(settings)
    assert sentence.startswith(f"{settings}: prefill_curve: {path}: ")
    assert complaint in sentence


def test_a_curve_file_that_is_no_json_is_not_quoted_back(tmp_path: Path):
    path = write(tmp_path, "x" * 10_000, "curve.json")
    assert f"{path}: Invalid JSON" in refused(prefill_curve=path)


@pytest.mark.parametrize("path", sorted(CURVES.glob("*.json")), ids=lambda path: path.stem)
def test_every_shipped_curve_is_sound_and_says_where_it_comes_from(path: Path):
    curve = CurveFile.model_validate_json(path.read_bytes())
    assert curve.model
    assert curve.hardware
    assert curve.method
    assert load_curve(path.stem) == curve.build()
    assert load_curve(path.stem).prefill_ns(8192) > load_curve(path.stem).prefill_ns(1) > 0


def test_the_default_curve_is_shipped():
    assert load_curve(Settings().prefill_curve).c1_s > 0


def test_built_in_classes_are_those_of_the_docs():
    assert {name: spec.build(name) for name, spec in BUILTIN_CLASSES.items()} == {
        "interactive": SloClass("interactive", 50_000_000, 300_000_000),
        "standard": SloClass("standard", 100_000_000, 1_000_000_000),
        "batch": SloClass("batch", 1_000_000_000, 60_000_000_000, 600_000_000_000, 0.5),
    }
    assert Settings().default_class in BUILTIN_CLASSES


def test_milliseconds_become_whole_nanoseconds():
    built = SloClassSettings(tbt_ms=33.3, ttft_slack_ms=0.001, completion_s=1.5).build("x")
    assert (built.tbt_ns, built.ttft_slack_ns, built.completion_ns) == (33_300_000, 1_000, 1_500_000_000)


def test_settings_do_not_change():
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.scheduler = "orca"


def test_defaults_travel_as_a_short_word():
    assert Settings.decode(Settings().encode()) == Settings()
    assert len(Settings().encode()) < 32


@pytest.mark.parametrize("word", ["", "a", "not-a-word", "AAAA", "é", "a.b/c", Settings().encode()[:-3]])
def test_what_is_no_packed_word_is_refused(word: str):
    with pytest.raises(ConfigError, match="not packed sarathi settings"):
        Settings.decode(word)


def test_a_packed_word_of_other_settings_is_refused():
    import base64
    import zlib

    word = base64.urlsafe_b64encode(zlib.compress(b'{"scheduler": "x", "budget": 3}')).decode()
    with pytest.raises(ConfigError, match="not packed sarathi settings"):
        Settings.decode(word)
