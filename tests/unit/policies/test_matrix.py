"""What every policy must keep to, on any view: ours, and the one of the example package as a guest.

A policy of yours can join: add it to ``POLICIES``.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import random
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sarathi_plugin.config import ConfigError, Settings
from sarathi_plugin.core import NS_PER_MS, StepPlan
from sarathi_plugin.plugins import known_policies
from tests.unit.policies.views import INTERACTIVE, STANDARD, LinearModel, make_row, make_view

if TYPE_CHECKING:
    from sarathi_plugin.core import RequestRow, StepView
    from sarathi_plugin.policies.base import Policy

EXAMPLE = Path(__file__).parents[3] / "examples/custom_policy/src/sarathi_shortest_first/__init__.py"


def example_policies() -> dict[str, type[Policy]]:
    """What the example package offers, without installing it."""
    spec = importlib.util.spec_from_file_location("sarathi_shortest_first", EXAMPLE)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, type[Policy]] = {}
    module.register_policies(found.__setitem__)
    return found


def variants() -> dict[str, Policy]:
    """One of each policy, and of ``sarathi`` its other meanings."""
    found = {name: cls() for name, cls in POLICIES.items()}
    sarathi = POLICIES["sarathi"]
    found["sarathi, gap"] = sarathi(slo="gap")
    found["sarathi, budget 64"] = sarathi(token_budget=64)
    found["sarathi, by deadline"] = sarathi(order="deadline")
    found["sarathi, any size"] = sarathi(tiles=False)
    found["sarathi, without overtaking"] = sarathi(overtaking=False)
    return found


POLICIES = known_policies() | example_policies()
VARIANTS = variants()
each_policy = pytest.mark.parametrize("policy", VARIANTS.values(), ids=VARIANTS.keys())
each_class = pytest.mark.parametrize("name", POLICIES)


def random_rows(rng: random.Random, kind: str, *, begun: bool) -> list[RequestRow]:
    found = []
    for i in range(rng.choice([0, 0, 1, 2, 6])):
        tokens = rng.randint(1, 8192)
        computed = rng.randrange(tokens) if begun else 0
        arrived, due = rng.randint(-20_000, 0), rng.randint(-20_000, 20_000)
        slo = rng.choice([STANDARD, INTERACTIVE])
        found.append(make_row(f"{kind}{i}", tokens, computed, arrived_ms=arrived, due_ms=due, slo=slo))
    return found


def random_view(rng: random.Random) -> StepView:
    """Any engine: slow, fast, idle, full, late, cold."""
    due = [rng.choice([rng.randint(-10_000, 10_000), 0]) for _ in range(rng.choice([0, 0, 1, 12]))]
    model = LinearModel(
        step_ms=rng.choice([0, 10, 500]),
        decode_ms=rng.choice([0, 1, 20]),
        token_ms=rng.choice([0, 0.1, 50]),
        pair_ms=rng.choice([0, 0.0001, 0.1]),
        ready=rng.random() < 0.8,
        margin=rng.uniform(0.02, 0.5),
    )
    return make_view(
        due,
        random_rows(rng, "running", begun=True),
        random_rows(rng, "waiting", begun=False),
        model=model,
        tbt_ms=rng.choice([0.000001, 1, 25, 100, 1000]),
        free_at_ms=rng.choice([0, 50, 1000]),
        decode_tokens=len(due) * rng.randint(1, 5),
        step=rng.randint(1, 32),
        max_tokens=rng.choice([1, 8, 512, 8192]),
        max_requests=rng.choice([1, 4, 256]),
        max_model_tokens=rng.choice([1, 4096, 131_072]),
        free_blocks=rng.choice([0, 4096]),
        total_blocks=rng.choice([1, 4096]),
        previous_empty=rng.random() < 0.3,
    )


RANDOM_VIEWS = [random_view(random.Random(seed)) for seed in range(400)]


def state_of(view: StepView) -> dict[str, Any]:
    """Everything a policy could have changed."""
    state = {name: getattr(view, name) for name in view.__slots__ if not name.startswith("load_")}
    del state["tolerance"]
    state["waits"] = vars(view.waits)
    state["decode_tbt_ns"] = view.decode_tbt_ns.tolist()
    state["prompts"] = [column.tolist() for column in view.prompts]
    state["decode_deadline_ns"] = view.decode_deadline_ns.tolist()
    state["prefills"] = [dataclasses.asdict(row) for row in view.prefills]
    state["waiting"] = [dataclasses.asdict(row) for row in view.waiting]
    return copy.deepcopy(state)


def is_selection(chosen: Any, among: Any) -> bool:
    """Whether ``chosen`` holds rows of ``among``, none twice."""
    ids = [id(row) for row in chosen]
    return len(set(ids)) == len(ids) and set(ids) <= {id(row) for row in among}


@each_policy
def test_a_plan_is_sound_on_any_view(policy: Policy):
    for view in RANDOM_VIEWS:
        plan = policy.plan(view)
        assert isinstance(plan, StepPlan)
        assert plan.budget is None or (isinstance(plan.budget, int) and plan.budget >= 1)
        assert plan.max_running is None or plan.max_running >= 1
        assert plan.available_ns is None or plan.available_ns >= 0
        assert plan.relegated >= 0
        assert plan.limit
        assert plan.prefills is None or is_selection(plan.prefills, view.prefills)
        assert plan.waiting is None or is_selection(plan.waiting, view.waiting)


def test_the_docs_explain_every_limit_there_is_and_no_other():
    page = (Path(__file__).parents[3] / "docs/policies.md").read_text()
    table = page.split("## What bounds a step")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    explained = {name for row in rows[1:] for name in re.findall("`(.+?)`", row)}
    found = {policy.plan(view).limit for policy in VARIANTS.values() for view in RANDOM_VIEWS}
    assert explained == found | {"untracked"}  # no prompt of a view here is without a row


@each_policy
def test_a_plan_follows_from_the_view_alone_and_leaves_it_as_it_was(policy: Policy):
    for view in RANDOM_VIEWS:
        before = state_of(view)
        assert policy.plan(view) == policy.plan(view)
        assert state_of(view) == before


@each_policy
def test_whoever_is_skipped_is_skipped_for_somebody_with_a_reason(policy: Policy):
    for view in RANDOM_VIEWS:
        plan = policy.plan(view)
        assert not (plan.skip_decodes and plan.skip_prefills)
        if plan.skip_decodes:
            assert view.has_prefill_work
        if plan.skip_prefills:
            assert view.decodes or view.waiting_count
        if plan.skip_some:
            assert view.has_prefill_work
            assert plan.budget > view.decode_tokens - len(plan.skip_some) or view.decode_tokens > view.decodes
            assert len(set(plan.skip_some)) == len(plan.skip_some) < view.decodes
            assert set(plan.skip_some) <= set(range(view.decodes))
        assert bool(plan.reason) or not (plan.skip_decodes or plan.skip_prefills or plan.skip_some)


@each_policy
def test_prompts_are_split_or_whole_as_the_policy_declares(policy: Policy):
    for view in RANDOM_VIEWS:
        plan = policy.plan(view)
        assert plan.whole_prompts == policy.whole_prompts
        if policy.whole_prompts:
            assert plan.budget is None  # a budget below a prompt would leave it out for ever


@each_policy
def test_after_an_empty_step_nothing_is_held_back(policy: Policy):
    for view in filter(lambda view: view.previous_empty, RANDOM_VIEWS):
        plan = policy.plan(view)
        assert not plan.skip_decodes
        assert not plan.skip_some
        assert not plan.skip_prefills
        room = view.max_tokens - view.decode_tokens
        if view.has_prefill_work and room > 0 and not view.decodes:
            assert plan.budget is None or plan.budget > view.decode_tokens


def steps_later(view: StepView, steps: int) -> StepView:
    """The same decodes some steps on: every one has got a token a step, nobody else has come."""
    later = copy.deepcopy(view)
    passed = steps * 20 * NS_PER_MS
    later.step += steps
    later.now_ns += passed
    later.previous_ns = later.now_ns - 20 * NS_PER_MS
    later.free_at_ns += passed
    later.decode_context += steps * view.decode_tokens
    later.decode_deadline_ns = view.decode_deadline_ns + steps * view.min_decode_tbt_ns
    later.free_blocks = max(0, view.free_blocks - steps)
    later.previous_empty = False
    return later


@pytest.mark.parametrize("name", known_policies())
def test_every_built_in_policy_says_whether_it_coasts(name: str):
    assert isinstance(vars(POLICIES[name]).get("coasts"), bool)


@pytest.mark.parametrize("name", [name for name, policy in VARIANTS.items() if policy.coasts])
def test_a_policy_that_coasts_plans_the_same_as_long_as_nobody_brings_a_prompt(name: str):
    policy = VARIANTS[name]
    plain = [view for view in RANDOM_VIEWS if view.decodes and not view.has_prefill_work]
    assert len(plain) > 20
    for view in plain:
        first = policy.plan(view)
        assert not first.skip_decodes
        assert not first.skip_some
        for steps in (1, 2, 3, 50):
            assert policy.plan(steps_later(view, steps)) == first


@each_class
def test_a_policy_is_a_frozen_dataclass_with_defaults_and_a_docstring(name: str):
    cls = POLICIES[name]
    assert cls.__dataclass_params__.frozen
    assert cls() == cls()
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}(")  # the one that dataclass makes up


@each_class
@pytest.mark.parametrize("model_len", [1, 2048, 131_072])
def test_the_engine_can_hold_what_the_policy_wants_to_schedule(name: str, model_len: int):
    wanted = POLICIES[name]().max_batched_tokens(model_len)
    assert wanted is None or wanted >= 1
    if POLICIES[name].whole_prompts:
        assert wanted == model_len


@each_class
def test_an_unknown_policy_setting_is_refused_in_one_sentence(name: str):
    with pytest.raises(ConfigError) as caught:
        POLICIES[name].from_settings(Settings(scheduler=name, policy={"budgett": 3}))
    assert str(caught.value).startswith(f"policy settings of {name!r}: budgett: this key is not known")


@each_class
def test_a_token_budget_reaches_those_that_have_one_and_is_refused_by_the_others(name: str):
    cls = POLICIES[name]
    asked = Settings(scheduler=name, token_budget=96)
    if "token_budget" in {field.name for field in dataclasses.fields(cls)}:
        policy = cls.from_settings(asked)
        assert policy.token_budget == 96
        view = make_view([100.0], [make_row(tokens=4000)], step=2)
        assert policy.plan(view).budget == 96
    else:
        with pytest.raises(ConfigError) as caught:
            cls.from_settings(asked)
        assert str(caught.value) == (
            f"The scheduler {name!r} has no token budget; leave --sarathi-token-budget out."
        )


def test_this_matrix_would_notice_a_policy_that_breaks_the_rules():
    view = make_view([10.0], [make_row()], previous_empty=True)
    before = state_of(view)
    view.prefills[0].computed_tokens += 1
    assert state_of(view) != before
    assert not is_selection([make_row()], view.prefills)
    assert not is_selection([*view.prefills, *view.prefills], view.prefills)
    assert STANDARD.tbt_ns == 100 * NS_PER_MS
