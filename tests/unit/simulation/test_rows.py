"""The stand-in of Cassandra does what the server does with the statements of the job."""

from __future__ import annotations

from typing import Any

import pytest

from ownership.domain.plan import BatchId, Row
from ownership.platform.course_batches import CourseBatches
from simulation.choosers import Plain, Script, Scripted
from simulation.scheduler import Fate, Fault, Scheduler
from simulation.stores.rows import KEYSPACE, TABLE, Batch, Rows

KEY = BatchId("k", "b")


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    found = Rows(Scheduler(Plain(), start_ms=1_000_000))
    found.table[KEY] = {"createdby": "a", "mentors": ["m", "a"], "status": 1, "createdfor": None, "name": "n"}
    monkeypatch.setattr("ownership.platform.cassandra.execute_concurrent", found.execute_concurrent)
    monkeypatch.setattr("ownership.platform.cassandra.BatchStatement", Batch)
    return found


def batches(rows: Rows) -> CourseBatches:
    from ownership.platform.cassandra import Cql

    return CourseBatches(Cql(rows.session), KEYSPACE, TABLE, batch_size=10)


def test_a_row_is_read_as_it_is(rows: Rows) -> None:
    assert batches(rows).read([KEY, BatchId("k", "none")]) == {KEY: Row(KEY, "a", ("m", "a"), 1)}


@pytest.mark.parametrize("after", [("b", ()), ("b", ("m",)), ("b", ("b", "a", "c")), ("a", ("x", "y"))])
def test_a_compare_and_set_makes_the_row_what_it_says(rows: Rows, after: Any) -> None:
    store = batches(rows)
    before = store.read([KEY])[KEY]
    then = before._replace(created_by=after[0], mentors=after[1])
    assert store.compare_and_set([(before, then)]) == [True]
    assert store.read([KEY])[KEY] == then
    assert [(w.before["createdby"], w.after["createdby"]) for w in rows.job_writes] == [("a", after[0])]


@pytest.mark.parametrize("edit", [{"createdby": "x"}, {"mentors": ["m"]}, {"mentors": None}, {"status": 2}])
def test_a_compare_and_set_is_refused_after_any_edit(rows: Rows, edit: dict[str, Any]) -> None:
    store = batches(rows)
    before = store.read([KEY])[KEY]
    rows.table[KEY] = {**rows.table[KEY], **edit}
    now = dict(rows.table[KEY])
    assert store.compare_and_set([(before, before._replace(created_by="b"))]) == [False]
    assert rows.table[KEY] == now


def test_a_row_that_is_gone_is_not_created(rows: Rows) -> None:
    before = batches(rows).read([KEY])[KEY]
    del rows.table[KEY]
    assert batches(rows).compare_and_set([(before, before._replace(created_by="b"))]) == [False]
    assert rows.table == {}


def test_rows_of_a_course_apply_together_or_not_at_all(rows: Rows) -> None:
    other = BatchId("k", "b2")
    rows.table[other] = dict(rows.table[KEY])
    store = batches(rows)
    read = store.read([KEY, other])
    rows.table[other]["status"] = 2
    changes = [(r, r._replace(created_by="b")) for r in read.values()]
    assert store.compare_and_set(changes) == [False, False]
    assert rows.table[KEY]["createdby"] == "a"
    assert sorted(map(bool, store.compare_and_set(changes, alone=True))) == [False, True]


def test_a_creator_with_a_later_write_time_stays_though_the_answer_is_applied(rows: Rows) -> None:
    rows.written_us[KEY] = 10**18
    store = batches(rows)
    before = store.read([KEY])[KEY]
    assert store.compare_and_set([(before, before._replace(created_by="b", mentors=("c",)))]) == [True]
    assert store.read([KEY])[KEY].owners == ("a", ("c",))


def test_a_write_that_timed_out_takes_effect_before_the_next_one_of_its_course(rows: Rows) -> None:
    rows.scheduler.chooser = Scripted(Script(faults=(Fault("job", 2, Fate.LOST_LATE),)))
    answers: list[list[bool | None]] = []

    def job() -> None:
        store = batches(rows)
        before = store.read([KEY])[KEY]
        answers.append(store.compare_and_set([(before, before._replace(created_by="b"))]))

    rows.scheduler.spawn("job", job, mortal=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ownership.platform.cassandra.time.sleep", lambda _: None)
        rows.scheduler.run()
    assert answers == [[None]]  # the repeated statement finds the first one's success
    assert rows.table[KEY]["createdby"] == "b"
    assert [w.late for w in rows.job_writes] == [True]


def test_a_write_whose_process_died_takes_effect_before_the_next_serial_read_of_its_course(
    rows: Rows,
) -> None:
    rows.scheduler.chooser = Scripted(Script(faults=(Fault("job", 2, Fate.DIES_LATE),)))
    store = batches(rows)

    def job() -> None:
        before = store.read([KEY])[KEY]
        store.compare_and_set([(before, before._replace(created_by="b"))])

    rows.scheduler.spawn("job", job, mortal=True)
    rows.scheduler.run()
    store.decide(["l"])
    assert store.read([KEY])[KEY].created_by == "a"  # plain, and of another course
    store.decide(["k"])
    assert store.read([KEY])[KEY].created_by == "b"
