"""The contract of `course_batch` on every Cassandra that is supported, also where it allows less than the newest does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from cassandra import InvalidRequest
from cassandra.query import BatchStatement, BoundStatement

from local.stack import Stack
from ownership.domain.errors import SettingsError
from ownership.domain.plan import BatchId, Row
from ownership.platform.cassandra import Cql, StatementRefused
from ownership.platform.course_batches import CourseBatches, check_table
from tests.integration.stages.transfer_world import World, opened_world

Refusal = Callable[[Any], bool]


@pytest.fixture(scope="module")
def module_world(stack: Stack, rows_server: str) -> Iterator[World]:
    """A world whose rows are in each of the servers in turn."""
    with opened_world(replace(stack.addresses, cassandra=rows_server)) as world:
        yield world


class StrictSession:
    """The real session of a server that refuses some statements."""

    def __init__(self, session: Any, refuses: Refusal) -> None:
        self._session = session
        self._refuses = refuses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def prepare(self, cql: str) -> Any:
        """As Cassandra 3.11 does it: a query that it does not know is refused when it is prepared."""
        if self._refuses(cql):
            raise InvalidRequest("refused when prepared")
        return self._session.prepare(cql)

    def execute_async(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """As a guardrail does it: what the values make of the query decides."""
        if self._refuses(statement):
            raise InvalidRequest("refused when executed")
        return self._session.execute_async(statement, *args, **kwargs)


class TracedSession:
    """The real session, whose server says how it executed each statement."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._futures: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def execute_async(self, *args: Any, **kwargs: Any) -> Any:
        """As the session's, traced."""
        self._futures.append(self._session.execute_async(*args, **kwargs, trace=True))
        return self._futures[-1]

    def executed(self) -> list[dict[str, str]]:
        """What the server has noted of the statements so far."""
        return [future.get_query_trace().parameters for future in self._futures]


def is_batch(statement: Any) -> bool:
    """True for a conditional batch."""
    return isinstance(statement, BatchStatement)


def has_two_in_relations(statement: Any) -> bool:
    """True for what Cassandra 3.11 does not prepare."""
    return isinstance(statement, str) and statement.count(" IN ?") == 2


def is_beyond_a_guardrail(statement: Any) -> bool:
    """True for a read of several rows that is executed."""
    return isinstance(statement, BoundStatement) and " IN ?" in statement.prepared_statement.query_string


def rows_of(world: World, refuses: Refusal, *, batch_size: int = 25) -> CourseBatches:
    """The world's rows through a server that refuses some statements."""
    session: Any = StrictSession(world.job.parts.cql.session, refuses)
    settings = world.job.settings
    return CourseBatches(
        Cql(lambda: session), settings.keyspace, settings.course_batch_table, batch_size=batch_size
    )


def rows_only(world: World, count: int, **fields: Any) -> list[Any]:
    """Batches whose documents nobody brings up to date."""
    made = world.batches(count, documents=False, **fields)
    world.hidden |= {b.batch_id for b in made}
    return made


def ids(batches: list[Any]) -> list[BatchId]:
    """The keys of batches."""
    return [BatchId(b.course_id, b.batch_id) for b in batches]


@pytest.mark.parametrize("refuses", [has_two_in_relations, is_beyond_a_guardrail])
def test_a_server_that_refuses_reads_of_several_rows_is_read_row_by_row(world: World, refuses: Refusal):
    mentor, creator = world.users("mentor", "creator")
    batches = world.batches(9, created_by=creator, mentors=(mentor,))
    rows = rows_of(world, refuses)
    wanted = [*ids(batches), BatchId(batches[0].course_id, "no such batch"), BatchId("", "of no course")]

    assert rows.read(wanted) == {i: Row(i, creator, (mentor,), 1) for i in ids(batches)}
    assert {i: r["createdby"] for i, r in rows.read_whole(wanted).items()} == dict.fromkeys(
        ids(batches), creator
    )
    assert rows.creators_written_ms(wanted).keys() == set(ids(batches))


def test_a_statement_that_is_wrong_in_itself_is_reported_and_not_read_row_by_row_for_ever(world: World):
    rows = CourseBatches(world.job.parts.cql, world.job.settings.keyspace, "no_such_table", batch_size=1)
    with pytest.raises(StatementRefused, match=r"no_such_table.*lms-cassandra\.course_batch\.table"):
        rows.read([BatchId("course", "batch")])


def test_what_decides_changes_without_an_answer_is_one_serial_read_of_each_course(world: World):
    """A plain read neither makes nor rules out what nodes have accepted; a serial one is of one partition."""
    (old,) = world.users("old")
    batches = rows_only(world, 3, created_by=old)
    session: Any = TracedSession(world.job.parts.cql.session)
    settings = world.job.settings
    rows = CourseBatches(Cql(lambda: session), settings.keyspace, settings.course_batch_table, batch_size=1)
    courses = {b.course_id for b in batches} | {"no such course"}

    rows.decide(courses)
    row = rows.read(ids(batches))[ids(batches)[0]]
    rows.compare_and_set([(row, row._replace(created_by="new"))])

    *reads, conditional = session.executed()  # 3.11 reads each row by itself
    level = conditional["serial_consistency_level"]
    assert [read["consistency_level"] == level for read in reads[: len(courses) + 1]] == [True, True, False]


def test_a_batch_that_the_server_refuses_is_written_row_by_row(world: World):
    old, new = world.users("old", "new")
    batches = rows_only(world, 9, created_by=old)
    rows = rows_of(world, is_batch)
    changes = [(row, row._replace(created_by=new)) for row in rows.read(ids(batches)).values()]
    world.edit(batches[4], createdby="somebody-else")

    applied = rows.compare_and_set(changes)

    now = rows.read(ids(batches))
    assert [now[before.id].created_by for before, _ in changes] == [
        new if done else "somebody-else" for done in applied
    ]
    assert [done for done in applied if not done] == [None]


def test_with_a_batch_size_of_one_no_batch_is_sent_to_a_store_that_has_none(world: World):
    old, new = world.users("old", "new")
    batches = rows_only(world, 9, created_by=old, mentors=(old,))
    sent: list[Any] = []

    def noted(statement: Any) -> bool:
        sent.append(statement)
        return False

    rows = rows_of(world, noted, batch_size=1)
    changes = [
        (row, row._replace(created_by=new, mentors=(new,))) for row in rows.read(ids(batches)).values()
    ]
    assert rows.compare_and_set(changes) == [True] * 9
    assert not any(map(is_batch, sent))
    assert {world.row(b) for b in batches} == {(new, (new,))}


def test_a_whole_transfer_is_carried_out_where_conditional_batches_and_wide_reads_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    old, new = world.users("old", "new")
    batches = world.batches(9, created_by=old, mentors=(old,))
    strict = StrictSession(
        world.job.parts.cql.session,
        lambda s: is_batch(s) or has_two_in_relations(s) or is_beyond_a_guardrail(s),
    )
    monkeypatch.setattr(world.job.parts.cql, "session", strict)
    monkeypatch.setattr(world.job.parts.cql, "_prepared", {})
    mid = world.transfer(old, new)

    world.whole_run()

    assert world.state(mid) == "completed"
    assert {world.owners(b) for b in batches} == {(new, (new,))}


def test_what_was_changed_beside_a_batch_that_the_server_refuses_is_in_the_audit_trail(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    old, new = world.users("old", "new")
    alone = world.batch(created_by=old)  # the only one of its course, so no conditional batch
    together = world.batches(3, created_by=old)
    cql = world.job.parts.cql
    monkeypatch.setattr(cql, "session", StrictSession(cql.session, is_batch))
    mid = world.transfer(old, new)

    world.whole_run()

    assert world.state(mid) == "completed"
    assert world.trail(mid).keys() == {b.batch_id for b in (alone, *together)}


def test_a_table_whose_mentors_are_no_plain_list_is_refused(world: World):
    name, table = world.job.settings.keyspace, f"frozen_{world.env}"
    world.platform.session.execute(
        f"CREATE TABLE {name}.{table} (courseid text, batchid text, createdby text, mentors frozen<list<text>>, "
        "createdfor list<text>, status int, PRIMARY KEY (courseid, batchid))"
    )
    settings = world.job.settings.model_copy(update={"course_batch_table": table})
    check_table(world.job.parts.cql, world.job.settings)
    with pytest.raises(
        SettingsError, match=rf"Column mentors of table '{name}\.{table}' is frozen<list<text>>"
    ):
        check_table(world.job.parts.cql, settings)
    world.platform.session.execute(f"DROP TABLE {name}.{table}")


def test_a_column_that_is_added_while_the_session_lives_shifts_no_value(world: World):
    (creator,) = world.users("creator")
    batch = world.batch(created_by=creator)
    rows = world.job.parts.rows
    (before,) = rows.read_whole(ids([batch])).values()
    cql = world.job.parts.cql
    table = f"{world.job.settings.keyspace}.{world.job.settings.course_batch_table}"
    cql.session.execute(f"ALTER TABLE {table} ADD aaa_first text")
    try:
        (after,) = rows.read_whole(ids([batch])).values()
        assert before.items() <= after.items()
        assert after["createdby"] == creator
    finally:
        cql.session.execute(f"ALTER TABLE {table} DROP aaa_first")


FUTURE_US = 3_600_000_000


def write_ahead(world: World, batch: Any, ahead_us: int, **columns: Any) -> int:
    """Write columns of a row as a clock would that is ahead; the write time."""
    at_us = time.time_ns() // 1000 + ahead_us
    table = f"{world.job.settings.keyspace}.{world.job.settings.course_batch_table}"
    sets = ", ".join(f"{name} = %s" for name in columns)
    world.job.parts.cql.session.execute(
        f"UPDATE {table} USING TIMESTAMP {at_us} SET {sets} WHERE courseid = %s AND batchid = %s",
        (*columns.values(), batch.course_id, batch.batch_id),
    )
    return at_us


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("ax", "bx", id="an element changes"),
        pytest.param("axb", "bx", id="an element goes"),
        pytest.param("aabb", "b", id="elements go"),
        pytest.param("bx", "axb", id="the list grows"),
        pytest.param("a", "", id="none is left"),
        pytest.param("", "ab", id="there was none"),
    ],
)
@pytest.mark.parametrize("size", [1, 25], ids=["alone", "in a batch"])
def test_mentors_are_changed_to_exactly_the_wanted_list(world: World, before: str, after: str, size: int):
    (creator,) = world.users("creator")
    batches = rows_only(world, 2, created_by=creator, mentors=tuple(before))
    rows = rows_of(world, lambda _: False, batch_size=size)
    changes = [(row, row._replace(mentors=tuple(after))) for row in rows.read(ids(batches)).values()]
    assert rows.compare_and_set(changes) == [True, True]
    assert {row.mentors for row in rows.read(ids(batches)).values()} == {tuple(after)}


def test_a_value_that_a_clock_wrote_ahead_stays_as_it_is(world: World):
    old, new = world.users("old", "new")
    ahead, normal = rows_only(world, 2, created_by=old, mentors=("x", old))
    at_us = write_ahead(world, ahead, FUTURE_US, createdby=old, mentors=["x", old])
    rows = rows_of(world, lambda _: False)
    changes = [
        (row, row._replace(created_by=new, mentors=("x", new)))
        for row in rows.read(ids([ahead, normal])).values()
    ]

    assert rows.compare_and_set(changes) == [True, True]

    assert world.row(ahead) == (old, ("x", old))
    assert world.row(normal) == (new, ("x", new))
    (timed,) = rows.read_timed(ids([ahead])).values()
    assert timed.created_by_us == at_us


OLD_COLUMNS = (
    "courseid text, batchid text, createdby text, mentors list<text>, status int, name text, startdate text, "
    "enddate text, PRIMARY KEY (courseid, batchid)"
)
"""Of an installation that has no timestamps."""


def test_a_row_is_read_whole_with_the_columns_that_the_table_has(world: World) -> None:
    session, keyspace = world.job.parts.cql.session, world.job.settings.keyspace
    session.execute(f"CREATE TABLE {keyspace}.old_batch ({OLD_COLUMNS})")
    session.execute(
        f"INSERT INTO {keyspace}.old_batch (courseid, batchid, startdate) VALUES ('c', 'b', '2026-01-01')"
    )
    rows = CourseBatches(world.job.parts.cql, keyspace, "old_batch", batch_size=1)

    (row,) = rows.read_whole([BatchId("c", "b")]).values()

    names = {"courseid", "batchid", "createdby", "mentors", "status", "name", "startdate", "enddate"}
    assert row.keys() == names
    assert {n: v for n, v in row.items() if v is not None} == {
        "courseid": "c",
        "batchid": "b",
        "startdate": "2026-01-01",
    }
    session.execute(f"DROP TABLE {keyspace}.old_batch")


def test_a_timestamp_beyond_all_years_stops_no_read(world: World) -> None:
    good, bad = rows_only(world, 2, created_by="a")
    session, settings = world.job.parts.cql.session, world.job.settings
    session.execute(
        f"UPDATE {settings.keyspace}.{settings.course_batch_table} SET start_date = 1767225600000000, "
        f"end_date = 1767225600000 WHERE courseid = '{bad.course_id}' AND batchid = '{bad.batch_id}'"
    )

    read = world.job.parts.rows.read_whole([BatchId(b.course_id, b.batch_id) for b in (good, bad)])

    row = read[BatchId(bad.course_id, bad.batch_id)]
    assert (row["start_date"], row["end_date"], row["updated_date"]) == (
        1767225600000000,
        1767225600000,
        None,
    )
    assert len(read) == 2
