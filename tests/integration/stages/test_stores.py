"""Row and document differ, or are edited while a transfer is under way: the row decides, nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from local.platform.world import COMPLETED, Batch
from ownership.platform.search_index import Written
from ownership.stages.intake import Window
from tests.integration.stages.transfer_world import World


def test_where_the_index_names_the_old_user_and_the_row_somebody_else_both_end_with_somebody_else(
    world: World,
) -> None:
    old, new, other = world.users("old", "new", "other")
    batch = world.batch(created_by=old, mentors=(old,))
    world.edit(batch, createdby=other, mentors=["m"])
    mid = world.transfer(old, new)
    world.whole_run()
    assert world.owners(batch) == (other, ("m",))
    assert world.state(mid) == "completed"
    assert world.outcomes(mid) == {batch.batch_id: "changed_elsewhere"}
    assert world.read(mid).counts == {"changed_elsewhere": 1}
    assert world.trail(mid) == {}


def test_where_the_index_names_the_old_user_and_the_row_the_new_one_the_document_follows(
    world: World,
) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    world.edit(batch, createdby=new)
    mid = world.transfer(old, new)
    world.whole_run()
    assert world.owners(batch) == (new, ())
    assert world.read(mid).counts == {"already": 1}


def test_a_mentor_added_to_the_row_after_indexing_is_kept_in_both(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old, mentors=("x",))
    world.edit(batch, mentors=["x", "added"])
    world.transfer(old, new)
    world.whole_run()
    assert world.owners(batch) == (new, ("x", "added"))


def test_the_old_user_added_as_mentor_after_indexing_is_moved_too(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old, mentors=("x",))
    world.edit(batch, mentors=["x", old])
    world.transfer(old, new)
    world.whole_run()
    assert world.owners(batch) == (new, ("x", new))


@pytest.mark.parametrize("after", ["lookup", "update"])
def test_a_document_deleted_meanwhile_is_created_again_from_the_row(world: World, after: str) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(
        created_by=old,
        mentors=(old, "x"),
        name="Its name",
        description="Its description",
        created_for=("org-1",),
        cert_templates={"t": {"name": "Certificate", "url": "https://example.org"}},
    )
    world.transfer(old, new)
    run = world.run().pull().lookup()
    if after == "update":
        run.update()
    world.platform.delete_document(batch.batch_id)
    if after == "lookup":
        run.update()
    assert run.reindex().settle().events == {"completed": 1}
    expected = replace(batch, created_by=new, mentors=(new, "x")).document()
    found = world.platform.document(batch.batch_id)
    # A column that is null makes no field.
    assert found == {k: v for k, v in expected.items() if v is not None}


def test_a_missing_row_is_not_created_its_document_stays_and_the_event_reports_it(world: World) -> None:
    old, new = world.users("old", "new")
    (orphan,) = world.batches(rows=False, created_by=old)
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    summary = world.whole_run()
    assert summary.events == {"completed": 1}
    assert world.row(orphan) is None
    assert world.platform.document(orphan.batch_id) == orphan.document()
    assert world.outcomes(mid) == {orphan.batch_id: "gone", batch.batch_id: "moved"}
    assert world.read(mid).counts["gone"] == 1
    assert summary.batches == {"gone": 1, "moved": 1}
    assert world.owners(batch) == (new, ())


@pytest.mark.parametrize("before", ["lookup", "update", "reindex", "second proof"])
def test_a_document_without_a_course_counts_as_having_no_row_and_blocks_nobody(
    world: World, before: str
) -> None:
    a, b, c = world.users("a", "b", "c")
    batch = world.batch(created_by=a)
    stray = f"stray-{a}"
    fields = {"batchId": stray, "createdBy": a, "status": 1}
    try:
        mid = world.transfer(a, b)
        run = world.run().pull()
        for stage in (run.lookup, run.update, run.reindex):
            if stage.__name__ == before:
                world.platform.put_document(stray, **fields)
            stage()
        assert run.errors == []
        assert run.settle().events == {"completed": 1}
        assert world.owners(batch) == (b, ())
        if before == "second proof":
            world.platform.put_document(stray, **fields)
            at = world.read(mid).kafka_ms
            again = world.run().pull(window=Window(at - 1000, at + 1000))
            assert again.pulled.follow_ups == 0
            assert world.read(mid).reproved_at is not None
        else:
            assert world.outcomes(mid).get(stray, "gone") == "gone"
        if before == "lookup":
            assert world.read(mid).counts["gone"] == 1
        # Nor do the transfers that come later.
        later = world.transfer(b, c), world.transfer(a, c)
        assert world.whole_run().events == {"completed": 2}
        assert world.job.states(later) == ["completed"] * 2
        assert world.owners(batch) == (c, ())
        assert world.platform.document(stray) == fields
    finally:
        world.platform.delete_document(stray)


@pytest.mark.parametrize("after", ["lookup", "update"])
def test_a_row_deleted_meanwhile_is_not_created_again(world: World, after: str) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    if after == "update":
        run.update()
    world.platform.delete_row(batch.course_id, batch.batch_id)
    if after == "lookup":
        run.update()
    assert run.reindex().settle().events == {"completed": 1}
    assert world.row(batch) is None
    assert world.document(batch) == (old, ())
    assert world.outcomes(mid) == {batch.batch_id: "gone" if after == "lookup" else "moved"}


def test_a_batch_completed_between_lookup_and_update_is_left_alone(world: World) -> None:
    old, new = world.users("old", "new")
    batch, other = world.batches(2, created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    world.edit(batch, status=COMPLETED)
    assert run.update().reindex().settle().events == {"completed": 1}
    assert world.owners(batch) == (old, ())
    assert world.owners(other) == (new, ())
    assert world.outcomes(mid) == {batch.batch_id: "not_live", other.batch_id: "moved"}


def edits(batch: Batch, world: World) -> None:
    world.edit(batch, createdby="editor", mentors=["x", "editor"])


@pytest.mark.parametrize("after", ["lookup", "update"])
def test_a_row_that_the_lms_gives_to_somebody_else_meanwhile_is_theirs(world: World, after: str) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old, mentors=("x", old))
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    if after == "update":
        run.update()
    edits(batch, world)
    if after == "lookup":
        run.update()
    assert run.reindex().settle().events == {"completed": 1}
    assert world.owners(batch) == ("editor", ("x", "editor"))
    assert world.outcomes(mid) == {batch.batch_id: "changed_elsewhere" if after == "lookup" else "moved"}


@pytest.mark.parametrize("after", ["lookup", "update"])
def test_a_mentor_added_meanwhile_is_kept(world: World, after: str) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old, mentors=("x",))
    world.transfer(old, new)
    run = world.run().pull().lookup()
    if after == "update":
        run.update()
    world.edit(batch, mentors=["x", "added"])
    if after == "lookup":
        run.update()
    assert run.reindex().settle().events == {"completed": 1}
    assert world.owners(batch) == (new, ("x", "added"))


def test_a_row_that_is_given_back_to_the_old_user_before_the_proof_is_moved_again(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup().update()
    world.edit(batch, createdby=old)  # the LMS saves a form that it had read before
    assert run.reindex().settle().events == {"completed": 1}
    assert world.owners(batch) == (new, ())
    assert world.trail(mid) == {batch.batch_id: [((old, ()), (new, ()))] * 2}


def test_a_row_edited_between_image_and_write_refuses_the_write(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = world.users("old", "new")
    batch, *others = world.batches(3, created_by=old, mentors=("x",))
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    compare_and_set = world.job.parts.rows.compare_and_set
    late = [lambda: world.edit(batch, mentors=["x", "added"])]

    def edited_first(*args: object, **how: bool) -> list[bool | None]:
        if late:
            late.pop()()
        return compare_and_set(*args, **how)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(world.job.parts.rows, "compare_and_set", edited_first)
    assert run.update().reindex().settle().events == {"completed": 1}

    assert world.owners(batch) == (new, ("x", "added"))
    assert {world.owners(b) for b in others} == {(new, ("x",))}
    images = [i for i in world.changes(mid)[1] if i.id.batch_id == batch.batch_id]
    assert [(i.before.mentors, i.outcome) for i in images] == [
        (("x",), "refused"),
        (("x", "added"), "applied"),
    ]


def test_a_batch_that_appears_between_lookup_and_proof_is_moved_as_well(world: World) -> None:
    old, new = world.users("old", "new")
    first = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup().update()
    second = world.batch(created_by="x", mentors=(old,))
    assert run.reindex().settle().events == {"completed": 1}
    assert world.owners(first) == (new, ())
    assert world.owners(second) == ("x", (new,))
    assert world.read(mid).counts["moved"] == 2
    assert world.outcomes(mid) == {first.batch_id: "moved", second.batch_id: "moved"}


def test_a_document_that_the_lms_writes_late_in_the_proof_does_not_win(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    world.transfer(old, new)
    run = world.run().pull().lookup().update()
    write, late = world.job.parts.index.write, [True]

    def written_first(*args: Any) -> Written:
        if late:
            late.pop()
            world.platform.put_document(batch.batch_id, createdBy="stale", name="Edited")
        return write(*args)

    monkeypatch.setattr(world.job.parts.index, "write", written_first)
    assert run.reindex().settle().events == {"completed": 1}
    assert world.owners(batch) == (new, ())
    found = world.platform.document(batch.batch_id)
    assert found is not None
    assert found["name"] == "Edited"
