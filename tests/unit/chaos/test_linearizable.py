"""The checker: histories that are linearizable, and histories that are not."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from chaos.linearizable import Operation, explain

History = list[Operation[int]]


def wrote(value: int, begin: int, end: int | None) -> Operation[int]:
    return Operation(begin, end, lambda _: value, f"wrote {value}")


def read(value: int, begin: int, end: int) -> Operation[int]:
    after = lambda state: state if state == value else None  # noqa: E731
    return Operation(begin, end, after, f"read {value}", reads=True)


def swapped(old: int, new: int, begin: int, end: int | None) -> Operation[int]:
    return Operation(begin, end, lambda state: new if state == old else None, f"{old} to {new}")


def refused(old: int, begin: int, end: int) -> Operation[int]:
    after = lambda state: None if state == old else state  # noqa: E731
    return Operation(begin, end, after, f"not from {old}", reads=True)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([], id="nothing"),
        pytest.param([wrote(1, 0, 1), read(1, 2, 3)], id="one after the other"),
        pytest.param([wrote(1, 0, 9), read(0, 1, 2), read(1, 3, 4)], id="reads within a write"),
        pytest.param([wrote(1, 0, 9), wrote(2, 1, 8), read(2, 10, 11)], id="the second of two at once"),
        pytest.param([wrote(1, 0, 9), wrote(2, 1, 8), read(1, 10, 11)], id="the first of two at once"),
        pytest.param([wrote(1, 0, None), read(0, 1, 2), read(1, 30, 40)], id="an unknown one, seen late"),
        pytest.param([wrote(1, 0, None), read(0, 10, 20)], id="an unknown one, never seen"),
        pytest.param([swapped(0, 1, 0, 9), swapped(1, 2, 1, 5), read(2, 6, 7)], id="a swap upon a swap"),
        pytest.param([swapped(0, 1, 0, None), refused(0, 10, 11)], id="refused for an unknown one"),
        pytest.param([swapped(0, 1, 0, 9), refused(0, 1, 9), read(1, 10, 11)], id="one of two swaps"),
    ],
)
def test_a_linearizable_history_is_explained(history: History):
    assert explain(0, history) is None


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([read(1, 0, 1)], id="what nobody wrote"),
        pytest.param([wrote(1, 0, 1), read(0, 2, 3)], id="a stale read"),
        pytest.param([wrote(1, 0, 9), read(1, 1, 2), read(0, 3, 4)], id="a read that goes back"),
        pytest.param([swapped(0, 1, 0, 9), swapped(0, 2, 0, 9)], id="two swaps from one value"),
        pytest.param([wrote(5, 0, 1), swapped(0, 1, 2, 3)], id="a swap that overlooked a write"),
        pytest.param([refused(0, 0, 1)], id="refused without a reason"),
        pytest.param([wrote(1, 5, None), read(1, 0, 4)], id="an unknown one, seen before it began"),
        pytest.param(
            [wrote(1, 0, None), wrote(2, 1, 2), read(1, 3, 4), read(2, 5, 6)],
            id="an unknown one takes effect once",
        ),
    ],
)
def test_a_history_that_is_not_linearizable_is_told(history: History):
    assert explain(0, history)


def test_the_report_names_what_cannot_come_next():
    stuck = explain(0, [wrote(1, 0, 1), wrote(2, 2, 3), read(1, 4, 5)])
    assert stuck
    assert (stuck.order, stuck.state, stuck.next) == (["wrote 1", "wrote 2"], 2, ["read 1"])


def random_history(rng: Random, clients: int, count: int) -> History:
    """A history as `clients` at once make it on a register, whose operations take effect at a known instant."""
    state, history = 0, History()
    effects = sorted(
        (instant := rng.randint(0, 1000), rng.randint(0, 1000 // clients), rng.randint(1, 1000 // clients), n)
        for n in range(count)
    )
    for instant, before, after, n in effects:
        begin, end = instant * 100 - before * 10, instant * 100 + after * 10 + n
        kind = rng.choice(("write", "read", "swap", "lost"))
        if kind == "read":
            history.append(read(state, begin, end))
            continue
        new = rng.randint(1, 5)
        if kind == "swap":
            expected = rng.randint(0, 5)
            history.append(
                (partial(swapped, expected, new) if state == expected else partial(refused, expected))(
                    begin, end
                )
            )
            state = new if state == expected else state
        else:
            history.append(wrote(new, begin, None if kind == "lost" else end))
            state = new
    return history


@pytest.mark.parametrize("seed", range(40))
def test_a_history_of_a_real_register_is_explained(seed: int):
    rng = Random(seed)
    history = random_history(rng, clients=rng.randint(2, 6), count=rng.randint(5, 60))
    assert explain(0, history) is None


def test_a_single_wrong_answer_in_a_long_history_is_found():
    history = random_history(Random(7), clients=3, count=60)
    last = max(o.end or 0 for o in history)
    assert explain(0, [*history, read(6, last + 1, last + 2)])
