"""The page's database: opened when it is wanted, again when it must be, and never by a crowd."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ownership.domain.errors import SettingsError, Unavailable
from ownership.domain.organisations import EVERYTHING
from ownership.ledger.database import Database
from ownership.ledger.hosts import EVERY_SECONDS
from ownership.ledger.reads import Reads
from ownership.page import store as module
from ownership.page.store import AGAIN_AFTER_S, AT_ONCE, LOOK_AGAIN_S, STATEMENT_MS, Store, opened_for_page


class Fake(Database):
    """A database that answers, or does not."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.closed = False

    def run(self, work: Callable[[Any], Any], *, statement_ms: int = 20_000) -> Any:  # noqa: ARG002  # there is no connection to give it
        self.world.asked.append(statement_ms)
        if self.world.down:
            raise Unavailable("PostgreSQL (ledger)", "nobody answers")
        return None

    def close(self) -> None:
        self.closed = True


class World:
    """A Connection, a clock, and the store over them."""

    def __init__(self) -> None:
        self.opened: list[Fake] = []
        self.asked: list[int] = []
        self.down = False
        self.now = 100.0
        self.connection = "one"
        self.looks = 0
        self.reported: list[Database] = []
        self.store = Store(self.look, self.open, lambda: self.now, self.reported.append)

    def look(self) -> Mapping[str, Any]:
        self.looks += 1
        return {"host": self.connection}

    def open(self, parameters: Mapping[str, Any]) -> Database:
        assert parameters == {"host": self.connection}
        self.opened.append(Fake(self))
        return self.opened[-1]

    def read(self, read: Callable[[Reads], object] = lambda _reads: None) -> None:
        with self.store.reads(EVERYTHING) as reads:
            read(reads)


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_is_opened_before_a_request_wants_it_and_then_once(world: World) -> None:
    assert (world.opened, world.looks) == ([], 0)
    world.read()
    world.read()
    assert (len(world.opened), world.looks, len(world.asked)) == (1, 1, 1)


def test_statements_of_the_page_are_short(world: World) -> None:
    world.read(lambda reads: reads.details.body("m"))
    assert world.asked[-1] == STATEMENT_MS


def test_a_changed_connection_is_noticed_soon_and_the_old_database_closed(world: World) -> None:
    world.read()
    world.connection = "two"
    world.read()
    assert len(world.opened) == 1
    world.now += LOOK_AGAIN_S + 1
    world.read()
    assert [d.closed for d in world.opened] == [True, False]


def test_the_same_connection_read_again_keeps_the_database(world: World) -> None:
    world.read()
    world.now += LOOK_AGAIN_S + 1
    world.read()
    assert (world.looks, len(world.opened), world.opened[0].closed) == (2, 1, False)


def test_after_a_failed_connect_requests_fail_at_once_until_it_is_tried_again(world: World) -> None:
    world.down = True
    for _ in range(3):
        with pytest.raises(Unavailable, match="nobody answers"):
            world.read()
    assert len(world.asked) == 1
    world.down = False
    with pytest.raises(Unavailable):
        world.read()
    world.now += AGAIN_AFTER_S + 0.1
    world.read()
    assert len(world.asked) == 2


def test_an_outage_while_reading_makes_the_next_request_ask_first_and_those_after_it_fail_at_once(
    world: World,
) -> None:
    world.read()
    world.down = True
    for _ in range(4):
        with pytest.raises(Unavailable):
            world.read(lambda reads: reads.details.body("m"))
    # The first answer, the read that failed, and one more look.
    assert len(world.asked) == 3


def test_a_wrong_connection_is_reported_as_such_and_read_again_when_it_may_be_right(world: World) -> None:
    def wrong() -> Mapping[str, Any]:
        world.looks += 1
        raise SettingsError("Connection 'ownership_ledger' has no host.")

    store = Store(wrong, world.open, lambda: world.now)
    for _ in range(2):
        with pytest.raises(SettingsError, match="has no host"), store.reads(EVERYTHING):
            pass
    assert world.looks == 1
    world.now += AGAIN_AFTER_S + 0.1
    with pytest.raises(SettingsError), store.reads(EVERYTHING):
        pass
    assert world.looks == 2


def test_only_a_few_read_at_once_and_the_others_are_told_to_come_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    inside, leave = threading.Semaphore(0), threading.Event()

    def reader() -> None:
        with world.store.reads(EVERYTHING):
            inside.release()
            leave.wait(10)

    world.read()
    readers = [threading.Thread(target=reader) for _ in range(AT_ONCE)]
    for each in readers:
        each.start()
    for _ in readers:
        assert inside.acquire(timeout=10)
    with pytest.raises(Unavailable, match="other requests are reading"):
        world.read()
    leave.set()
    for each in readers:
        each.join()
    world.read()


def test_a_reader_that_fails_gives_its_turn_back(world: World) -> None:
    for _ in range(2 * AT_ONCE):
        with pytest.raises(ZeroDivisionError), world.store.reads(EVERYTHING):
            raise ZeroDivisionError
    world.read()


def test_the_database_of_the_page_connects_when_it_is_first_used() -> None:
    database = opened_for_page({"host": "127.0.0.1", "port": 1, "dbname": "none", "user": "nobody"})
    store = Store(dict, lambda _parameters: database)
    with pytest.raises(Unavailable, match="ownership_ledger"), store.reads(EVERYTHING):
        pass
    store.close()


def test_an_api_server_is_reported_by_its_first_request_and_then_once_a_minute(world: World) -> None:
    world.down = True
    with pytest.raises(Unavailable):
        world.read()
    assert world.reported == []
    world.down = False
    world.now += AGAIN_AFTER_S + 0.1
    for reports in (1, 1, 2, 2):
        world.read()
        world.now += EVERY_SECONDS / 2
        assert len(world.reported) == reports


def test_an_api_server_that_is_asked_to_report_itself_does_so_once_a_minute_and_tells_of_no_outage(
    world: World,
) -> None:
    world.down = True
    world.store.report()
    assert world.reported == []
    world.down = False
    world.now += AGAIN_AFTER_S + 0.1
    for reports in (1, 1, 2, 2):
        world.store.report()
        world.now += EVERY_SECONDS / 2
        assert len(world.reported) == reports
