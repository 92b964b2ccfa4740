"""Documents that are as no LMS of today writes them, and documents that the job makes."""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from local.platform.schema import BATCH_INDEX
from local.platform.world import Batch
from local.stack import Stack
from ownership.domain.plan import BatchId
from ownership.stages.second_proof import follow_rows
from tests.integration.stages.transfer_world import World, opened_world

STAMPS = ("created_date", "updated_date", "start_date", "end_date", "enrollment_enddate")
TEXTS = ("createddate", "updateddate", "startdate", "enddate", "enrollmentenddate")


def put(world: World, own_id: str, **fields: Any) -> None:
    """A document under an id of its own, searchable at once."""
    world.platform.search.index(index=BATCH_INDEX, id=own_id, document={"status": 1, **fields}, refresh=True)


def names(batch: Batch, *fields: str) -> dict[str, Any]:
    """Fields of an old document that name a batch."""
    return {"courseId": batch.course_id, **dict.fromkeys(fields, batch.batch_id)}


@pytest.fixture
def own_ids(world: World) -> Iterator[list[str]]:
    """Ids of documents that a test puts and that no batch has."""
    ids: list[str] = []
    yield ids
    for own_id in ids:
        world.platform.delete_document(own_id)


def test_a_document_made_from_timestamps_has_the_platforms_dates(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup().update()
    world.edit(
        batch,
        **dict.fromkeys(TEXTS),
        created_date=datetime.fromisoformat("2026-03-31T20:00:00.007+00:00"),
        start_date=datetime.fromisoformat("2026-04-01T00:00:00+05:30"),
        end_date=datetime.fromisoformat("2026-05-01T23:59:59.999+05:30"),
        enrollment_enddate=datetime.fromisoformat("2026-04-20T23:59:59.999+05:30"),
        updated_date=datetime.fromisoformat("2026-04-02T12:00:00+05:30"),
        cert_templates={"t": {"name": "n", "criteria": '{"enrollment": {}}', "issuer": "no JSON"}},
    )
    world.platform.delete_document(batch.batch_id)

    assert run.reindex().settle().events == {"completed": 1}

    found = world.platform.document(batch.batch_id) or {}
    assert {
        f: found.get(f) for f in ("createdDate", "updatedDate", "startDate", "endDate", "enrollmentEndDate")
    } == {
        "createdDate": "2026-04-01 01:30:00:007+0530",
        "updatedDate": "2026-04-02 12:00:00:000+0530",
        "startDate": "2026-04-01",
        "endDate": "2026-05-01",
        "enrollmentEndDate": "2026-04-20",
    }
    assert found["cert_templates"] == {
        "t": {"name": "n", "criteria": {"enrollment": {}}, "issuer": "no JSON"}
    }
    assert (found["createdBy"], world.state(mid)) == (new, "completed")


def test_an_empty_text_as_a_date_makes_no_field(world: World) -> None:
    batch = world.batch(documents=False, created_by="somebody")
    world.edit(batch, **dict.fromkeys(TEXTS, ""), **dict.fromkeys(STAMPS))

    follow_rows(world.job.parts, {BatchId(batch.course_id, batch.batch_id)})

    found = world.platform.document(batch.batch_id) or {}
    assert found["createdBy"] == "somebody"
    assert not [name for name in found if name.endswith("Date")]


@pytest.mark.parametrize("fields", [("id", "identifier"), ("id",), ("batchId", "identifier")])
def test_an_old_document_under_an_id_of_its_own_follows_its_row(
    world: World, own_ids: list[str], fields: tuple[str, ...]
) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old, documents=False)
    world.hidden.add(batch.batch_id)
    own_ids.append(f"own-{batch.batch_id}")
    put(world, own_ids[0], createdBy=old, **names(batch, *fields))
    mid = world.transfer(old, new)

    assert world.whole_run().events == {"completed": 1}

    assert world.row(batch) == (new, ())
    assert (world.platform.document(own_ids[0]) or {})["createdBy"] == new
    assert world.platform.document(batch.batch_id) is None
    assert world.outcomes(mid) == {batch.batch_id: "moved"}


@pytest.mark.parametrize("form", ["number", "list", "list of a number"])
def test_a_batch_is_found_by_a_document_that_writes_its_course_in_another_form(
    world: World, form: str
) -> None:
    old, new = world.users("old", "new")
    number = uuid.uuid4().int % 10**12
    batch = Batch(str(number), f"batch-{number}", created_by=old)
    world.platform.add_batches([batch])
    course = {"number": number, "list": [str(number)], "list of a number": [number]}[form]
    world.platform.put_document(batch.batch_id, **batch.document() | {"courseId": course})
    mid = world.transfer(old, new)

    assert world.whole_run().events == {"completed": 1}

    assert world.owners(batch) == (new, ())
    assert world.outcomes(mid) == {batch.batch_id: "moved"}


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({"createdBy": ["old"]}, id="creators in a list"),
        pytest.param({"mentors": "old"}, id="one mentor without a list"),
        pytest.param({"mentors": [None, "old", ["x"]]}, id="mentors of several kinds"),
        pytest.param({"status": "1"}, id="a status as text"),
        pytest.param({"status": [1]}, id="a status in a list"),
    ],
)
def test_a_document_with_odd_values_follows_its_row(world: World, odd: dict[str, Any]) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old, mentors=("x", old))
    fields = json.loads(json.dumps(odd).replace('"old"', json.dumps(old)))
    world.platform.put_document(batch.batch_id, **batch.document() | fields)
    mid = world.transfer(old, new)

    assert world.whole_run().events == {"completed": 1}

    assert world.owners(batch) == (new, ("x", new))
    assert world.outcomes(mid) == {batch.batch_id: "moved"}


def test_a_document_whose_ids_no_ledger_can_hold_stops_nothing(world: World, own_ids: list[str]) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    own_ids += [f"own-{n}-{old}" for n in range(1, 5)]
    put(world, own_ids[0], createdBy=old, courseId="c", batchId="b\0")
    put(world, own_ids[1], createdBy=old, courseId="c\0", batchId="b")
    put(world, own_ids[2], createdBy=old, courseId=secrets.token_hex(4000), batchId="b")
    put(world, own_ids[3], createdBy=old, courseId=secrets.token_hex(650), batchId=secrets.token_hex(650))
    world.transfer(old, new)

    assert world.whole_run().events == {"completed": 1}

    assert world.owners(batch) == (new, ())


def test_a_second_document_of_a_batch_follows_its_row_too(world: World, own_ids: list[str]) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    own_ids.append(f"own-{batch.batch_id}")
    put(world, own_ids[0], createdBy=old, **names(batch, "identifier"))
    world.transfer(old, new)

    assert world.whole_run().events == {"completed": 1}

    assert world.owners(batch) == (new, ())
    assert (world.platform.document(own_ids[0]) or {})["createdBy"] == new


def test_of_batches_of_the_same_id_in_two_courses_each_document_follows_its_own_row(
    world: World, own_ids: list[str]
) -> None:
    old, new, other = world.users("old", "new", "other")
    batch = world.batch(created_by=old, mentors=("m",))
    twin = replace(batch, course_id=f"{batch.course_id}-twin", mentors=("n",))
    world.platform.add_batches([twin], documents=False)
    own_ids.append(f"own-{batch.batch_id}")
    put(world, own_ids[0], **twin.document())
    mid = world.transfer(old, new)

    assert world.whole_run().events == {"completed": 1}

    assert (world.owners(batch), world.row(twin)) == ((new, ("m",)), (new, ("n",)))
    assert (world.platform.document(own_ids[0]) or {})["mentors"] == ["n"]

    # The twin takes the place in the index: what is done with the batch is no matter of its document.
    world.hidden.add(batch.batch_id)
    world.platform.add_batches([twin := replace(twin, created_by=other)])
    assert world.undo(mid)[1].events == {"completed": 1}
    assert (world.row(batch), world.document(batch)) == ((old, ("m",)), (other, ("n",)))
    follow_rows(world.job.parts, {BatchId(batch.course_id, batch.batch_id)})
    assert world.document(batch) == (other, ("n",))


def test_a_document_that_names_no_batch_stops_nothing_and_is_in_the_events_plan(
    world: World, own_ids: list[str]
) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    own_ids.append(f"unnamed-{old}")
    put(world, own_ids[0], createdBy=old, courseId=batch.course_id)
    mid = world.transfer(old, new)

    assert world.whole_run().events == {"completed": 1}

    assert world.owners(batch) == (new, ())
    assert world.outcomes(mid) == {batch.batch_id: "moved", own_ids[0]: "gone"}


def test_a_document_that_the_index_refuses_fails_its_own_event_only(stack: Stack) -> None:
    index = f"strict-{uuid.uuid4().hex[:8]}"
    text = {"type": "text", "fields": {"raw": {"type": "keyword"}}}
    mappings = {"properties": {"createdBy": text, "mentors": text, "name": {"type": "date"}}}
    settings = {"es.course_batch.index": index, "user.ownership.transfer.parallelism": 1}
    with opened_world(stack.addresses, **settings) as world:
        world.platform.search.indices.create(
            index=index, mappings=mappings, settings={"number_of_replicas": 0}
        )
        a, b, c, d = world.users("a", "b", "c", "d")
        good = world.batches(3, created_by=a, name="2026-01-01")
        bad = world.batch(created_by=c, name="no date")
        others = world.batches(2, created_by=c, name="2026-01-01")
        first, second = world.transfer(a, b), world.transfer(c, d)

        run = world.run().pull()
        assert len(run.pulled.slices) == 1
        summary = run.finish()

        assert summary.events == {"completed": 1, "failed": 1}
        assert world.job.states([first, second]) == ["completed", "failed"]
        reason = f"the index refuses document {bad.batch_id}: "
        assert reason in (world.read(second).reason or "")
        assert "name" in summary.failures[second]
        found = world.job.parts.index.get([batch.batch_id for batch in (*good, bad, *others)])
        assert found.keys() == {batch.batch_id for batch in (*good, *others)}
        assert all(world.row(batch) == (d, ()) for batch in (bad, *others))

        world.edit(bad, name="2026-01-01")
        world.make_due(second)
        assert world.whole_run().events == {"completed": 1}
        world.platform.search.indices.delete(index=index)
