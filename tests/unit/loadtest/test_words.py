"""Words for prompts of exact length, whatever a tokenizer makes of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarathi_plugin.loadtest.words import WORDS, as_text, exact_text, learn
from sarathi_plugin.workload.model import ScheduledRequest, Workload


def of_words(text):
    """One token a word, and a template of twelve."""
    return 12 + len(text.split())


def of_bytes(text):
    """A byte a token: no word costs one."""
    return len(text.encode())


def of_pairs(text):
    """Long words fall apart."""
    return 3 + sum(-(-len(word) // 3) for word in text.split())


@pytest.mark.parametrize("count", [of_words, of_bytes, of_pairs])
@given(tokens=st.integers(1, 3000), seed=st.integers(0, 99))
def test_prompts_have_exactly_the_length_asked_for(count, tokens, seed):
    costs = learn(count)
    ids = [10 + (seed + 7 * i) % 240 for i in range(tokens)]
    assert count(exact_text(ids, tokens, costs)) == max(tokens, costs.shortest)


def test_the_shortest_prompt_is_short():
    assert learn(of_words).shortest == 13
    assert learn(of_bytes).shortest <= 8


def test_shared_contents_stay_shared():
    costs = learn(of_words)
    ids = list(range(10, 210))
    short, long = exact_text(ids, 100, costs), exact_text([*ids, *ids], 300, costs)
    assert long.startswith(short.rsplit(" ", 5)[0])


@pytest.mark.parametrize(
    "count",
    [
        lambda text: 5,  # no tokenizer
        lambda text: 4 * len(text.split()),  # some lengths cannot be made
        lambda text: len(text.split()) ** 2,  # words do not add up
    ],
)
def test_a_tokenizer_that_does_not_add_up_is_not_believed(count):
    assert learn(count) is None


@pytest.mark.parametrize("chat", [True, False])
def test_a_workload_in_words_knows_its_lengths(chat):
    ids = tuple(range(10, 60))
    request = ScheduledRequest(request_id="a", offset_ns=0, prompt=ids, prompt_tokens=50, max_tokens=5)
    (made,) = as_text(Workload("w", (request,)), chat=chat, costs=learn(of_words)).requests
    assert made.is_chat == chat
    text = made.prompt[0].content if chat else made.prompt
    assert of_words(text) == made.prompt_tokens == 50
    assert set(text.split()) <= set(WORDS)
