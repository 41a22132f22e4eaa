"""A result is there whole or not at all; a folder belongs to one experiment and one command at a time."""

from __future__ import annotations

import errno
import json
import os
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_MS
from sarathi_plugin.evaluate import metrics, tune
from sarathi_plugin.evaluate.analysis import Results
from sarathi_plugin.evaluate.command import tune_all
from sarathi_plugin.evaluate.metrics import METRICS
from sarathi_plugin.evaluate.plan import Unit
from sarathi_plugin.evaluate.store import (
    EXPERIMENT,
    RUN,
    RUNS,
    TIMELINES,
    TUNING,
    Store,
    read_run,
    read_tuning,
)
from sarathi_plugin.records import RequestTimeline
from sarathi_plugin.telemetry import parquet
from tests.unit.evaluate.experiments import experiment, timeline

UNIT = Unit("run", "chats", 2.0, 1, 0, "ours")
TIMELINE = timeline("r", 0, [300, 40])


def test_what_was_written_comes_back(tmp_path: Path):
    store = Store(tmp_path)
    assert not store.has(UNIT)
    with store.opened({"name": "x"}):
        store.write(UNIT, {"figures": {"fluid_share": 1.0}}, timelines=[TIMELINE, TIMELINE])
    assert store.has(UNIT)
    [found] = store.runs([UNIT])
    assert found.unit == UNIT
    assert found.facts["figures"] == {"fluid_share": 1.0}
    assert found.timelines(skip=1) == [TIMELINE]
    assert found.steps() is None
    assert found.server_timelines() is None


def seen(name: str, arrival_ms: int, waited_ms: int) -> RequestTimeline:
    """As a server records it."""
    told = timeline(name, 0, [300, 40])
    arrival_ns = told.arrival_ns + arrival_ms * NS_PER_MS
    return replace(
        told, source="server", arrival_ns=arrival_ns, scheduled_ns=arrival_ns + waited_ms * NS_PER_MS
    )


def test_the_delay_of_a_run_is_the_servers_without_the_warm_up(tmp_path: Path):
    """They come back in the order of their ends: the second to come ended first."""
    store = Store(tmp_path)
    server = [seen("b", 20, 7), seen("warm-up", 0, 1000), seen("a", 10, 5), seen("c", 30, 9)]
    with store.opened({}):
        figures = metrics.figures([TIMELINE] * 3)
        assert figures["delay_p50"] is None
        store.write(UNIT, {"figures": figures}, timelines=[TIMELINE] * 4, server=server)
    [run] = store.runs([UNIT])
    assert [t.request_id for t in run.server_timelines(3) or []] == ["a", "b", "c"]
    assert [t.request_id for t in run.server_timelines(9) or []] == ["warm-up", "a", "b", "c"]
    assert run.figure(METRICS["delay_p50"], 3) == pytest.approx(7)
    assert run.figure(METRICS["delay_p99"], 3) == pytest.approx(8.96)
    assert run.figure(METRICS["ttft_p50"], 3) == figures["ttft_p50"]
    found = Results([run], ["ours"], {"chats": 3}).mean(METRICS["delay_p50"], "ours", ("chats", 2.0))
    assert found is not None
    assert found.value == pytest.approx(7)


def test_a_delay_that_the_client_knows_is_taken_and_one_that_nobody_knows_is_none(tmp_path: Path):
    store = Store(tmp_path)
    other = replace(UNIT, arm="stock")
    with store.opened({}):
        store.write(UNIT, {"figures": {"delay_p50": 3.0}}, timelines=[TIMELINE], server=[seen("a", 10, 5)])
        store.write(other, {"figures": {"delay_p50": None}}, timelines=[TIMELINE])
    ours, stock = store.runs([UNIT, other])
    assert ours.figure(METRICS["delay_p50"], 1) == 3.0
    assert stock.figure(METRICS["delay_p50"], 1) is None


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = Store(tmp_path)
    monkeypatch.setattr(parquet, "write_timelines", full)
    with (
        store.opened({}),
        pytest.raises(ConfigError, match="No space left on device; make room or choose another --out"),
    ):
        store.write(UNIT, {}, timelines=[TIMELINE])
    assert list((tmp_path / RUNS).iterdir()) == []


def test_what_a_killed_run_left_is_cleared(tmp_path: Path):
    left = tmp_path / RUNS / ".part-123-x"
    left.mkdir(parents=True)
    (left / RUN).write_text("{}")
    with Store(tmp_path).opened({}):
        assert not left.exists()


def test_a_folder_holds_one_experiment(tmp_path: Path):
    with Store(tmp_path).opened({"name": "misspelt", "seeds": [1]}):
        pass  # nothing was run: the corrected file goes on here
    with Store(tmp_path).opened({"name": "x", "seeds": [1]}):
        (tmp_path / RUNS / "a-run").mkdir()
    with Store(tmp_path).opened({"name": "x", "seeds": [1]}):
        pass
    with pytest.raises(
        ConfigError, match=r"holds another experiment \(different: seeds\); choose another --out"
    ):
        Store(tmp_path).opened({"name": "x", "seeds": [2]}).__enter__()


def test_two_commands_do_not_work_in_one_folder(tmp_path: Path):
    with Store(tmp_path).opened({}), pytest.raises(ConfigError, match="is at work in"):
        Store(tmp_path).opened({}).__enter__()


def test_a_run_that_was_cut_short_is_named(tmp_path: Path):
    store = Store(tmp_path)
    with store.opened({}):
        store.write(UNIT, {"figures": {}}, timelines=[TIMELINE] * 50)
    folder = tmp_path / RUNS / UNIT.name
    whole = (folder / TIMELINES).read_bytes()
    (folder / TIMELINES).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="is not a Parquet file of timelines"):
        store.run(UNIT).timelines()
    text = (folder / RUN).read_text()
    (folder / RUN).write_text(text[: len(text) // 2])
    with pytest.raises(ConfigError, match=r"run\.json is damaged or was cut short"):
        store.run(UNIT)
    (folder / RUN).write_text(json.dumps({"unit": {"a": 1}}))
    with pytest.raises(ConfigError, match="is not a run of this version"):
        read_run(folder)


DAMAGED = {
    "no mapping": (RUNS, [], "is not a run of this version: Input should be a valid dictionary"),
    "no figures": (RUNS, {"unit": asdict(UNIT)}, "is not a run of this version: no figures"),
    "figures of text": (
        RUNS,
        {"unit": asdict(UNIT), "figures": {"fluid_share": "all"}},
        "is not a run of this version: figures.fluid_share: Input should be a valid number",
    ),
    "no capacity": (
        RUNS,
        {"unit": asdict(UNIT) | {"kind": "capacity"}, "figures": {}},
        "is not a run of this version: no capacity",
    ),
    "reasons of numbers": (
        RUNS,
        {"unit": asdict(UNIT), "figures": {}, "validity": {"reasons": 3}},
        "is not a run of this version: validity.reasons: Input should be a valid list",
    ),
    "another experiment": (EXPERIMENT, [], "is not an experiment of this version: Input should be"),
    "no trials": (
        TUNING,
        {"arm": "ours", "trials": [], "seeds": [1], "space": {}},
        "is not a tuning of this version: trials: Tuple should have at least 1 item",
    ),
    "knobs of a number": (
        TUNING,
        {"arm": "ours", "trials": [{"knobs": 5, "score": 1}], "seeds": [1], "space": {}},
        "is not a tuning of this version: trials.0.knobs: Input should be a valid dictionary",
    ),
    "a space of nothing": (
        TUNING,
        {"arm": "ours", "trials": [{"knobs": {}, "score": 1}], "seeds": [1], "space": {"x": {}}},
        "is not a tuning of this version: space.x: give choices, or low and high",
    ),
}


@pytest.mark.parametrize(("where", "data", "sentence"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_file_of_another_shape_is_named(tmp_path: Path, where: str, data: Any, sentence: str):
    tuned = {"name": "ours", "scheduler": "sarathi", "tune": True}
    wanted = experiment(arms=[{"name": "stock"}, tuned], tune={})
    run, tuning = tmp_path / RUNS / UNIT.name / RUN, tmp_path / TUNING / "ours.json"
    path = {RUNS: run, TUNING: tuning, EXPERIMENT: tmp_path / EXPERIMENT}[where]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError) as caught:
        read_tuning(tmp_path, wanted)
        Store(tmp_path).runs([UNIT])
        Store(tmp_path).opened({}).__enter__()
    assert str(caught.value).startswith(f"{path} {sentence}")


def test_a_folder_without_its_run_is_moved_aside_when_it_is_run_again(tmp_path: Path):
    store, folder = Store(tmp_path), tmp_path / RUNS / UNIT.name
    for _ in range(2):
        with store.opened({}):
            store.write(UNIT, {"figures": {}}, timelines=[TIMELINE])
        (folder / RUN).unlink()
    with store.opened({}):
        assert not store.has(UNIT)
        store.write(UNIT, {"figures": {}}, timelines=[TIMELINE])
    assert store.run(UNIT).timelines() == [TIMELINE]
    assert (tmp_path / RUNS / f".broken-{UNIT.name}" / TIMELINES).is_file()


def die(_wanted: Any, _name: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_tuning_that_is_killed_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tune, "tune_in_child", die)
    wanted = experiment(arms=[{"name": "stock", "tune": True}, {"name": "ours"}], tune={})
    with pytest.raises(ConfigError, match="A worker process was killed from outside, as happens when memory"):
        tune_all(wanted, Store(tmp_path), 1, print)


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Cannot write"):
        Store(tmp_path / "file" / "out").opened({}).__enter__()
