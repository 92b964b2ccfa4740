"""The page's session: opened when it is wanted, again when it must be, and never by a crowd."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from ownership.errors import SettingsError, Unavailable
from ownership.page import store as module
from ownership.page.store import AGAIN_AFTER_S, AT_ONCE, LOOK_AGAIN_S, Looked, Store
from ownership.settings import Settings


class Hook:
    """A cluster that answers, or does not."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.hooks.append(self)
        self.closed = False

    def get_conn(self) -> Any:
        if self.world.down:
            raise Unavailable("Cassandra", "nobody answers")
        profile = SimpleNamespace(request_timeout=10.0, serial_consistency_level=None)
        self.profile = profile
        return SimpleNamespace(get_execution_profile=lambda _name: profile)

    def shutdown_cluster(self) -> None:
        self.closed = True


class World:
    """Settings, a Connection, a clock, and the store over them."""

    def __init__(self) -> None:
        self.hooks: list[Hook] = []
        self.down = False
        self.now = 100.0
        self.connection = "one"
        self.looks = 0
        self.store = Store(self.look, lambda: Hook(self), lambda: self.now)

    def look(self) -> Looked:
        self.looks += 1
        return Looked(Settings.parse(None), self.connection)

    def read(self) -> None:
        with self.store.reads():
            pass


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_is_opened_before_somebody_looks_and_then_once(world: World):
    assert (world.hooks, world.looks) == ([], 0)
    world.read()
    world.read()
    (hook,) = world.hooks
    assert hook.profile.request_timeout == module.REQUEST_TIMEOUT_S
    assert world.looks == 1


def test_a_changed_connection_is_noticed_soon_and_the_old_session_ended(world: World):
    world.read()
    world.connection = "two"
    world.read()
    assert len(world.hooks) == 1
    world.now += LOOK_AGAIN_S + 1
    world.read()
    assert [h.closed for h in world.hooks] == [True, False]


def test_after_a_failure_everybody_is_told_at_once_until_it_is_tried_again(world: World):
    world.down = True
    for _ in range(3):
        with pytest.raises(Unavailable, match="nobody answers"):
            world.read()
    assert [h.closed for h in world.hooks] == [True]
    world.down = False
    world.now += AGAIN_AFTER_S + 0.1
    world.read()
    assert len(world.hooks) == 2


def test_a_wrong_setting_is_told_as_such(world: World, monkeypatch: pytest.MonkeyPatch):
    def wrong() -> Looked:
        raise SettingsError("Unknown setting 'x'.")

    store = Store(wrong, lambda: Hook(world))
    with pytest.raises(SettingsError, match="Unknown setting"), store.reads():
        pass


def test_only_a_few_read_at_once_and_the_others_are_told_to_come_back(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    inside, leave = threading.Semaphore(0), threading.Event()

    def reader() -> None:
        with world.store.reads():
            inside.release()
            leave.wait(10)

    readers = [threading.Thread(target=reader) for _ in range(AT_ONCE)]
    for each in readers:
        each.start()
    for _ in readers:
        assert inside.acquire(timeout=10)
    with pytest.raises(Unavailable, match="others are reading"):
        world.read()
    leave.set()
    for each in readers:
        each.join()
    world.read()


def test_a_reader_that_fails_gives_its_turn_back(world: World):
    for _ in range(2 * AT_ONCE):
        with pytest.raises(ZeroDivisionError), world.store.reads():
            raise ZeroDivisionError
    world.read()
