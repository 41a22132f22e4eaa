import threading
from collections import Counter

import numpy as np
import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.load.grid import TOKENS_PER_PROBE, GridCell, design_grid, drive_grid
from sarathi_plugin.load.server import ServerError
from sarathi_plugin.workload.synthetic import GRID_ID
from tests.unit.load.answers import answer, own_body


def design(**changes):
    return design_grid(**{"max_streams": 32, "max_context": 2000, "budget": 2048, **changes})


def test_cells_cover_stream_counts_and_contexts_once_each():
    shapes = [(cell.streams, cell.context) for cell in design()]
    counts, contexts = (1, 2, 4, 8, 16, 32), (64, 512, 2000)
    assert Counter(shapes) == Counter([(0, 64), *((n, c) for n in counts for c in contexts)])


@pytest.mark.parametrize(
    ("changes", "counts", "contexts"),
    [
        ({"max_streams": 1}, {0, 1}, {64, 512, 2000}),
        ({"max_streams": 3}, {0, 1, 2, 3}, {64, 512, 2000}),
        ({"max_streams": 200}, {0, 1, 2, 4, 8, 16, 32, 64, 128, 200}, {64, 512, 2000}),
        ({"max_context": 64}, {0, 1, 2, 4, 8, 16, 32}, {64}),
        ({"max_context": 2048}, {0, 1, 2, 4, 8, 16, 32}, {64, 512, 2048}),
        ({"max_context": 9000}, {0, 1, 2, 4, 8, 16, 32}, {64, 512, 2048, 8192, 9000}),
    ],
)
def test_the_largest_count_and_context_are_among_them(changes, counts, contexts):
    cells = design(**changes)
    assert {cell.streams for cell in cells} == counts
    assert {cell.context for cell in cells} == contexts


@pytest.mark.parametrize("budget", [64, 65, 79, 80, 100, 127, 128, 512, 600, 2048, 8192])
@pytest.mark.parametrize("streams", [1, 8, 300])
def test_a_step_stays_within_the_budget(budget, streams):
    for cell in design(budget=budget, max_streams=streams):
        assert len(cell.prompts) == 10
        assert min(cell.prompts) >= 1
        assert max(cell.prompts) + cell.streams <= max(budget, cell.streams + 1)


@pytest.mark.parametrize("budget", [512, 2048, 8192])
def test_totals_fall_on_tile_edges_just_beyond_and_between(budget):
    totals = {cell.streams + size for cell in design(budget=budget, max_streams=8) for size in cell.prompts}
    for edge in range(128, 513, 64):
        assert {edge, edge - 32} <= totals
        assert edge + 1 in totals or edge == budget
    assert budget in totals
    assert all(total % 64 in (0, 1, 32) for total in totals)


@pytest.mark.parametrize("tile", [16, 64, 100, 128, 256, 512])
def test_any_tile_will_do(tile):
    totals = {size for cell in design(tile=tile, prompts_per_cell=400)[:1] for size in cell.prompts}
    assert {tile * 2, tile * 2 + 1, 2048} <= totals
    assert max(totals) == 2048


def test_sizes_beyond_512_tokens_are_sparse():
    totals = {size for cell in design(budget=8192, prompts_per_cell=400)[:1] for size in cell.prompts}
    assert 5 <= sum(total > 512 and total % 64 == 0 for total in totals) <= 20


NOTHING = "A grid needs at least one stream, and 64 tokens of context and of budget."
BAD = {
    "no stream": ({"max_streams": 0}, NOTHING),
    "hardly any context": ({"max_context": 63}, NOTHING),
    "hardly any budget": ({"budget": 63}, NOTHING),
    "negative": ({"budget": -2048}, NOTHING),
    "no tile": ({"tile": 0}, "A grid needs a tile from 1 to 512 tokens, not 0."),
    "tile beyond the budget": (
        {"budget": 100, "tile": 128},
        "A grid needs a tile from 1 to 100 tokens, not 128.",
    ),
    "huge tile": ({"tile": 1024}, "A grid needs a tile from 1 to 512 tokens, not 1024."),
}


@pytest.mark.parametrize(("changes", "sentence"), BAD.values(), ids=BAD.keys())
def test_a_grid_with_nothing_to_vary_is_refused(changes, sentence):
    with pytest.raises(ConfigError) as caught:
        design(**changes)
    assert str(caught.value) == sentence


CELLS = [GridCell(2, 30, (5, 9, 14)), GridCell(0, 64, (3,))]


def is_stream(body):
    return body["max_tokens"] > 1


def drive(server, cells=CELLS, seed=0, note=lambda _: None):
    return drive_grid(server.url, "m", cells, np.random.default_rng(seed), note=note)


def test_every_stream_and_prompt_of_a_cell_is_sent(stand_in):
    server = stand_in(answer)
    told = []
    drive(server, note=told.append)
    sent = Counter((len(body["prompt"]), body["max_tokens"]) for body in server.bodies)
    stream_tokens = TOKENS_PER_PROBE * 3 + 8
    assert sent == Counter({(30, stream_tokens): 2, (5, 1): 1, (9, 1): 1, (14, 1): 1, (3, 1): 1})
    assert all(body["ignore_eos"] and body["model"] == "m" for body in server.bodies)
    assert told == ["1 of 2: 2 streams at 30 tokens", "2 of 2: 0 streams at 64 tokens"]


def test_what_came_of_a_cell_is_given_streams_first_and_named_as_of_a_grid(stand_in):
    server = stand_in(answer)
    found = drive(server)
    stream_tokens = TOKENS_PER_PROBE * 3 + 8
    shapes = [[(t.prompt_tokens, len(t.token_ns)) for t in cell] for cell in found]
    assert shapes == [[(30, stream_tokens)] * 2 + [(5, 1), (9, 1), (14, 1)], [(3, 1)]]
    assert all(t.request_id.startswith(GRID_ID) for cell in found for t in cell)


def test_prompts_go_one_by_one_in_order_beside_the_streams(stand_in):
    prompts, beside, served = [], [], threading.Event()

    def script(handler):
        body = own_body(handler)
        if is_stream(body):
            beside.append(served.wait(timeout=20))
        answer(handler)
        if not is_stream(body):
            prompts.append(len(body["prompt"]))
            if len(prompts) == 3:
                served.set()

    drive(stand_in(script), CELLS[:1])
    assert prompts == [5, 9, 14]
    assert beside == [True, True]


def test_a_cell_begins_when_the_one_before_is_through(stand_in):
    server = stand_in(answer)
    drive(server, [GridCell(1, 40, (5, 6)), GridCell(1, 50, (7, 8))])
    lengths = [len(body["prompt"]) for body in server.bodies]
    assert set(lengths[:3]) == {40, 5, 6}
    assert set(lengths[3:]) == {50, 7, 8}


def test_no_two_prompts_begin_alike_and_a_seed_gives_them_again(stand_in):
    def prompts(seed):
        server = stand_in(answer)
        drive(server, seed=seed)
        return sorted(tuple(body["prompt"]) for body in server.bodies)

    first = prompts(1)
    assert len({prompt[:3] for prompt in first}) == len(first), "a prefix cache could help"
    assert prompts(1) == first
    assert prompts(2) != first


@pytest.mark.parametrize("length", [9, 30])
def test_a_request_that_fails_is_an_error_of_the_server(stand_in, length):
    def script(handler):
        if len(own_body(handler)["prompt"]) == length:
            handler.send_error(503)
        else:
            answer(handler)

    server = stand_in(script)
    told = []
    count = 2 if length == 30 else 1
    with pytest.raises(ServerError, match=f"^{count} requests of the grid failed, first: http 503"):
        drive(server, note=told.append)
    assert told == []
    assert 3 not in {len(body["prompt"]) for body in server.bodies}, "the next cell was sent all the same"


def test_a_server_that_is_not_there_is_an_error_of_the_server():
    with pytest.raises(ServerError, match=r"^1 requests of the grid failed, first: connect"):
        drive_grid("http://127.0.0.1:1", "m", [GridCell(0, 64, (3,))], np.random.default_rng(0))
