"""What the ledger's transactions hold when a server, a connection or a client fails in the middle of one."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, text

from ownership.domain.errors import Unavailable
from ownership.ledger import database as database_module
from ownership.ledger.database import Database
from tests.harness import administrator, ledger_name
from tests.integration.stages.transfer_world import World


def cut(connection: Connection) -> None:
    """The server ends the session of this transaction, as an administrator would."""
    session = connection.connection.driver_connection.info  # type: ignore[union-attr]  # None fails the test
    with administrator(session.dsn) as server:
        server.execute("SELECT pg_terminate_backend(%s, 10000)", (session.backend_pid,))


def test_a_transaction_whose_connection_is_cut_is_run_again_as_a_whole(ledger: Database) -> None:
    tries: list[int] = []

    def work(connection: Connection) -> int:
        connection.execute(text("UPDATE queue_head SET fencing_token = fencing_token + 1"))
        tries.append(1)
        if len(tries) == 1:
            cut(connection)
        return int(connection.scalar(text("SELECT fencing_token FROM queue_head")) or 0)

    assert ledger.run(work) == 1
    assert len(tries) == 2


def test_a_database_that_is_away_is_unavailable_after_the_last_try_and_names_its_connection(
    ledger: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def work(connection: Connection) -> None:
        tries.append(1)
        cut(connection)
        connection.execute(text("SELECT 1"))

    with pytest.raises(Unavailable, match=r"PostgreSQL \(ledger\) unavailable"):
        ledger.run(work)
    assert len(tries) == database_module.TRIES


def test_a_server_that_does_not_answer_is_given_up(ledger: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    # The server's own time-out is set aside: it would end the statement first.
    monkeypatch.setattr(database_module, "ANSWER_MS", -700)
    with pytest.raises(Unavailable, match="no answer within"):
        ledger.run(lambda c: c.execute(text("SELECT pg_sleep(60)")), statement_ms=1000)
    monkeypatch.undo()
    assert ledger.run(lambda c: c.scalar(text("SELECT 1"))) == 1


def test_a_client_that_falls_silent_in_a_transaction_loses_its_locks(
    ledger: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "IDLE_MS", 200)
    holds, free = threading.Event(), threading.Event()
    lock = text("SELECT fencing_token FROM queue_head FOR UPDATE")
    tries: list[int] = []

    def frozen(connection: Connection) -> None:
        tries.append(1)
        if len(tries) == 1:
            connection.execute(lock)
            holds.set()
            assert free.wait(60)
        connection.execute(text("SELECT 1"))

    thread = threading.Thread(target=ledger.run, args=(frozen,))
    thread.start()
    assert holds.wait(60)
    try:
        assert ledger.run(lambda c: c.scalar(lock)) == 0
    finally:
        free.set()
        thread.join(60)
    assert len(tries) == 2


def test_two_runs_that_accept_the_same_messages_store_each_once(own_world: World) -> None:
    world = own_world
    users = world.users(*(f"u{n}" for n in range(20)))
    messages = [world.event(users[n], users[n + 1]) for n in range(0, 20, 2)]
    world.platform.emit_all([*messages, b"not json"], partition=0)
    inbox, topic = world.job.inbox, world.job.topic
    read = list(topic.read(topic.backlog({})))
    assert len(read) == 11
    start = threading.Barrier(4)
    found: list[Any] = []

    def accepts(reverse: bool) -> None:
        start.wait(60)
        found.append(inbox.accept(reversed(read) if reverse else read))

    threads = [threading.Thread(target=accepts, args=(n % 2 == 1,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    received = [t.mid for accepted in found for t in accepted.received]
    assert sorted(received) == sorted(m["mid"] for m in messages)
    assert sorted(len(a.received) + len(a.known) for a in found) == [10] * 4
    assert world.event_rows() == 11
    assert inbox.arrivals.consumed(topic.name)[0].next_offset == 11


def test_nothing_is_consumed_where_the_ledger_refuses_a_row(own_world: World) -> None:
    world = own_world
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    world.transfer(a, b)
    world.execute("ALTER TABLE queue ADD CONSTRAINT never CHECK (false) NOT VALID")
    with pytest.raises(Exception, match="never"):
        world.run().pull()
    assert (world.event_rows(), world.job.inbox.arrivals.consumed(world.platform.input_topic)) == (0, {})

    world.execute("ALTER TABLE queue DROP CONSTRAINT never")
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (b, ())


@pytest.mark.parametrize("partition", [0, 1], ids=["read before", "without a message before"])
def test_a_ledger_that_was_restored_from_an_older_backup_reads_on_from_its_own_offsets(
    own_world: World, partition: int
) -> None:
    """What was done since is carried out again without a change: its audit trail is lost with the ledger's end."""
    world = own_world
    a, b, c, d, e, f = world.users(*"abcdef")
    batches = [world.batch(created_by=user) for user in (a, c, e)]
    events = [world.event(a, b), world.event(c, d), world.event(e, f)]
    before, since, claimed = (event["mid"] for event in events)
    world.platform.emit(events[0], partition=0)
    assert world.whole_run().events == {"completed": 1}
    kept = ledger_name(world.env)
    with administrator(world.ledger) as server:
        _disconnect(server, kept)
        server.execute(f"CREATE DATABASE backup_{kept} TEMPLATE {kept} OWNER ownership")
        world.platform.emit(events[1], partition=partition)
        assert world.whole_run().events == {"completed": 1}
        assert world.read(since).counts["moved"] == 1
        world.platform.emit(events[2], partition=partition)
        under_way = world.run().pull()
        _disconnect(server, kept)
        server.execute(f"DROP DATABASE {kept} WITH (FORCE)")
        server.execute(f"ALTER DATABASE backup_{kept} RENAME TO {kept}")
        server.execute(f"ALTER DATABASE {kept} SET synchronous_commit = on")

    (error,) = under_way.lookup().errors
    assert "If the ledger was restored from a backup, the next run reads the events again." in str(error)
    run = world.run().pull()

    assert (run.pulled.received, run.pulled.known, run.pulled.claimed) == (2, 0, 2)
    (note,) = run.pulled.notes.values()
    assert "the consumer group stands at offset" in note
    assert run.finish().events == {"completed": 2}
    assert {world.state(mid) for mid in (before, since, claimed)} == {"completed"}
    assert world.trail(since) == {}
    assert world.creators(batches) == [b, d, f]


def _disconnect(server: psycopg.Connection[Any], name: str) -> None:
    """End the sessions of a database, so that it can be copied or renamed; their clients connect again."""
    server.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", (name,)
    )
