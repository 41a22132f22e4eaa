"""Which runs there are, in which order."""

from __future__ import annotations

from sarathi_plugin.evaluate.plan import expected_s, units_of
from tests.unit.evaluate.experiments import experiment

ARMS = ("a", "b", "c")


def test_every_arm_gets_every_piece_of_traffic_once():
    units = units_of(experiment(repeats=2), ARMS)
    assert len(units) == len({unit.name for unit in units}) == 3 * 2 * 2 * 2
    traffic = [(u.workload, u.load, u.seed, u.repeat) for u in units]
    for at in range(0, len(units), 3):
        assert len(set(traffic[at : at + 3])) == 1
        assert {u.arm for u in units[at : at + 3]} == set(ARMS)


def test_arms_take_turns_and_each_is_first_as_often():
    units = units_of(experiment(seeds=[1, 2, 3]), ARMS)
    first = [unit.arm for unit in units[::3]]
    assert first[:3] == ["a", "b", "c"]
    assert {first.count(arm) for arm in ARMS} == {2}


def test_capacity_is_searched_after_the_loads():
    units = units_of(experiment(capacity={"requests": 50}), ARMS)
    assert [u.kind for u in units[:9]] == ["run"] * 6 + ["capacity"] * 3
    assert units[6].name == "chats-capacity-s11-r0-c"


def test_a_live_run_takes_as_long_as_its_arrivals():
    wanted = experiment(mode="live")
    units = units_of(wanted, ("a", "b"))
    arrivals = 2 * 2 * (45 / 2 + 45 / 4)
    assert arrivals + 8 * 5 <= expected_s(wanted, units, 2) <= arrivals + 8 * 15 + 2 * 60
