"""Settings survive the way to the engine, inside the name of a class."""

from __future__ import annotations

import string

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sarathi_plugin.config import Settings, SloClassSettings

NAMES = st.text(min_size=1, max_size=12)
MS = st.floats(0.001, 1e6)
SPECS = st.builds(
    SloClassSettings,
    tbt_ms=MS,
    ttft_slack_ms=MS | st.just(0.0),
    completion_s=st.none() | MS,
    importance=st.floats(0.01, 100),
)
SETTINGS = st.builds(
    Settings,
    scheduler=NAMES,
    slo=st.sampled_from(["deadline", "gap"]),
    token_budget=st.just("auto") | st.integers(1, 10**6),
    tbt_ms=st.none() | MS,
    ttft_slack_ms=st.none() | MS,
    classes=st.dictionaries(NAMES, SPECS, max_size=4),
    default_class=NAMES,
    policy=st.dictionaries(NAMES, st.integers() | st.text() | st.booleans() | st.none() | MS, max_size=3),
    plugins=st.lists(NAMES, max_size=3),
    plugin_settings=st.dictionaries(
        NAMES, st.dictionaries(NAMES, st.lists(st.integers()), max_size=2), max_size=2
    ),
    prefill_curve=st.sampled_from(["a100-llama-3-8b", "/a/b.c/curve.json", "./x.json"]),
    curve_targets_ms=st.lists(MS, min_size=1, max_size=16, unique=True).map(sorted),
    record=st.none() | st.just("/some.where/steps.jsonl.gz"),
    session=st.text(string.hexdigits, max_size=16),
)
WORD = set(string.ascii_letters + string.digits + "-_")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(given=SETTINGS)
def test_what_is_packed_comes_out_the_same(given: Settings):
    assert Settings.decode(given.encode()) == given


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(given=SETTINGS)
def test_a_packed_word_has_neither_dot_nor_slash_nor_anything_else_that_splits_a_class_path(given: Settings):
    assert set(given.encode()) <= WORD
