"""How the page asks a store: few at once, within a time, and not again at once after an outage."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ownership.domain.errors import SettingsError, Unavailable
from ownership.page.platform import AGAIN_AFTER_S, AT_ONCE, Asked


class World:
    """A store that counts how often it is opened and closed, and a clock."""

    def __init__(self) -> None:
        self.opened = self.closed = 0
        self.now = 0.0

    @contextmanager
    def open(self) -> Iterator[int]:
        self.opened += 1
        yield self.opened
        self.closed += 1

    def asked(self, patience_s: float = 60) -> Asked[int]:
        return Asked("The store", self.open, lambda: self.now, patience_s=patience_s)


def failing(error: Exception) -> int:
    raise error


def test_a_store_is_opened_once_for_many_questions() -> None:
    world = World()
    asked = world.asked()
    assert [asked.ask(lambda store: store * 10) for _ in range(5)] == [10] * 5
    assert (world.opened, world.closed) == (1, 0)


@pytest.mark.parametrize("error", [Unavailable("The store", "frozen"), SettingsError("no host")])
def test_after_an_error_nothing_is_asked_for_a_while_and_then_a_store_is_opened_anew(
    error: Exception,
) -> None:
    world = World()
    asked = world.asked()
    with pytest.raises(type(error)):
        asked.ask(lambda _: failing(error))
    with pytest.raises(type(error)):
        asked.ask(lambda _: pytest.fail("is not asked"))
    world.now += AGAIN_AFTER_S
    assert asked.ask(lambda store: store) == 2
    assert world.closed == 1


def test_a_question_without_an_answer_is_given_up_and_others_are_turned_away_meanwhile() -> None:
    world, go_on = World(), threading.Event()
    asked = world.asked(patience_s=0.05)
    try:
        for _ in range(AT_ONCE):
            with pytest.raises(Unavailable, match=r"The store unavailable: no answer within 0.05 s"):
                asked.ask(lambda _: go_on.wait(60))
            world.now += AGAIN_AFTER_S
        with pytest.raises(Unavailable, match="other requests are asking it"):
            asked.ask(lambda store: store)
    finally:
        go_on.set()
