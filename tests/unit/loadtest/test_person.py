"""Users of a closed loop: what they send depends on seed and number alone, and on the answers they get."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.load.client import Outcome
from sarathi_plugin.loadtest.person import Crowd, Person
from tests.unit.loadtest.test_judging import timeline

CHATS = Crowd(kind="chat-sessions", users=3, think_s=2.0, duration_s=60, seed=5)


def answer(request, **fields):
    """An answer of exactly the length asked for, with ids of its own."""
    tokens = tuple(range(1, request.max_tokens + 1))
    ids = tuple(9000 + i for i in range(request.max_tokens)) if request.return_ids else ()
    done = replace(timeline(tokens), prompt_tokens=request.prompt_tokens, **fields)
    return Outcome(request, done, f"answer {request.request_id}", 200, ids)


def live(person, turns, **fields):
    """So many turns of somebody whose answers all come."""
    sent = []
    for _ in range(turns):
        planned = person.plan()
        sent.append(planned)
        person.hear(answer(planned.request, **fields))
    return sent


def goes_on(earlier, later):
    return later.request.prompt[: len(earlier.request.prompt)] == earlier.request.prompt


@pytest.mark.parametrize("kind", ["chat-sessions", "agentic"])
def test_a_turn_holds_all_that_was_said_before(kind):
    turns = live(Person(CHATS.model_copy(update={"kind": kind}), 1, words=False, chat=False), 30)
    continued = 0
    for earlier, later in pairwise(turns):
        if goes_on(earlier, later):
            continued += 1
            said = earlier.request.prompt + tuple(9000 + i for i in range(earlier.request.max_tokens))
            assert later.request.prompt[: len(said)] == said
            assert len(later.request.prompt) > len(said)
    assert 15 < continued < 29  # some sessions ended, most went on
    assert all(t.request.prompt_tokens == len(t.request.prompt) for t in turns)


def test_users_are_the_same_wherever_they_run_and_differ_from_each_other():
    def prompts(crowd, user):
        return [(t.think_ns, t.request.prompt) for t in live(Person(crowd, user, words=False, chat=False), 6)]

    assert prompts(CHATS, 2) == prompts(CHATS, 2)
    assert prompts(CHATS, 2) != prompts(CHATS, 1)
    assert prompts(CHATS, 2) != prompts(CHATS.model_copy(update={"seed": 6}), 2)


def test_time_to_think_is_exponential_with_the_mean_asked_for():
    thinks = [t.think_ns / NS_PER_S for t in live(Person(CHATS, 0, words=False, chat=False), 2000)]
    assert np.mean(thinks) == pytest.approx(2.0, rel=0.1)
    assert np.std(thinks) == pytest.approx(2.0, rel=0.15)


def test_an_answer_that_failed_ends_the_session():
    person = Person(CHATS, 0, words=False, chat=False)
    first = person.plan()
    person.hear(answer(first.request, status="error", error="reset: broke"))
    assert not goes_on(first, person.plan())


def test_no_turn_is_longer_than_the_model():
    crowd = CHATS.model_copy(update={"max_tokens": 5000})
    for planned in live(Person(crowd, 0, words=False, chat=False), 200):
        assert planned.request.prompt_tokens + planned.request.max_tokens <= 5000


def test_scales_change_lengths():
    small = CHATS.model_copy(update={"prompt_scale": 0.1, "output_scale": 0.05})
    turns = live(Person(small, 0, words=False, chat=False), 200)
    whole = live(Person(CHATS, 0, words=False, chat=False), 200)
    prompts, unscaled = (np.median([t.request.prompt_tokens for t in sent]) for sent in (turns, whole))
    assert prompts == pytest.approx(unscaled * 0.1, rel=0.3)
    assert np.median([t.request.max_tokens for t in turns]) == pytest.approx(415 * 0.05, rel=0.3)


def test_chats_are_messages_with_the_answers_that_came():
    turns = live(Person(CHATS, 0, words=True, chat=True), 8)
    continued = [(a, b) for a, b in pairwise(turns) if goes_on(a, b)]
    assert continued
    for earlier, later in continued:
        *_, said, added = later.request.prompt
        assert said == ("assistant", f"answer {earlier.request.request_id}")
        assert added.role == "user"
    assert turns[0].request.prompt[0].role == "system"
    assert not turns[0].request.return_ids


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "arxiv-like"}, "has no sessions for --users: use one of agentic, chat-sessions"),
        ({"max_tokens": 2000}, "A first turn of chat-sessions can need 4424 tokens"),
    ],
)
def test_a_crowd_that_cannot_be(change, words):
    with pytest.raises(ConfigError, match=words):
        CHATS.model_copy(update=change).sessions()
