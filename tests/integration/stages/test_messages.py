"""What comes out of the topic: repeated, contradicting, invalid and unreadable messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from local.platform.world import Offset
from tests.integration.stages.transfer_world import ORGANISATION, World

# --- the same again


def test_the_same_message_three_times_is_one_transfer(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    event = world.event(old, new)
    world.platform.emit_all([event, event], partition=0)
    run = world.run().pull()
    assert (run.pulled.received, run.pulled.known, run.pulled.claimed) == (1, 1, 1)
    run.finish()
    trail, row = world.trail(event["mid"]), world.read(event["mid"])
    # The third comes when all is done, in another spelling of the same JSON.
    world.platform.emit(json.dumps(event, indent=1, sort_keys=True).encode(), partition=1)
    again = world.run().pull()
    assert (again.pulled.received, again.pulled.known, again.pulled.claimed) == (0, 1, 0)
    assert world.owners(batch) == (new, ())
    assert world.trail(event["mid"]) == trail
    assert world.read(event["mid"]) == row


def test_the_whole_topic_read_again_changes_nothing(own_world: World) -> None:
    world = own_world
    a, b, c = world.users("a", "b", "c")
    batches = [world.batch(created_by=u, mentors=(u, "x")) for u in (a, b)]
    events: list[dict[str, Any] | bytes] = [
        world.event(a, b),
        world.event(b, c),
        world.event(c, c),
        b"no json",
        world.event(a, "nobody"),
    ]
    world.platform.emit_all(events)
    assert world.job.drain()[0].events == {"completed": 2, "skipped": 2}
    since = world.batch(created_by=b)  # B works on
    mids = [e["mid"] for e in events if isinstance(e, dict)]
    before = world.job.parts.events.read(mids), world.change_rows(), world.event_rows()
    dead = len(world.dead_letters())
    rows = [world.platform.row(x.course_id, x.batch_id) for x in batches]

    world.rewind()
    again = world.run().pull()

    assert (again.pulled.received, again.pulled.rejected, again.pulled.claimed) == (0, 0, 0)
    assert again.pulled.known == 4
    assert (world.job.parts.events.read(mids), world.change_rows(), world.event_rows()) == before
    assert len(world.dead_letters()) == dead == 1
    assert [world.platform.row(x.course_id, x.batch_id) for x in batches] == rows
    assert world.creators([*batches, since]) == [c, c, b]
    assert world.job.open_mids() == []


@pytest.mark.parametrize("together", [True, False])
def test_the_same_mid_with_another_payload_is_rejected(world: World, together: bool) -> None:
    old, new, thief = world.users("old", "new", "thief")
    batch = world.batch(created_by=old)
    event = world.event(old, new)
    forged = world.event(old, thief, mid=event["mid"])
    world.platform.emit(event, partition=0)
    if not together:
        world.whole_run()
    at = world.platform.emit(forged, partition=0)
    world.job.drain()
    assert world.state(event["mid"]) == "completed"
    assert world.owners(batch) == (new, ())
    rejected = world.rejected(rejection(at))
    assert rejected.reason == f"mid {event['mid']!r} was received before with another payload"
    assert json.loads(rejected.body) == forged
    headers, value = world.dead_letters()[-1]
    assert headers["offset"] == str(at.offset)
    assert json.loads(value) == forged


# --- valid events that must not be carried out


def test_what_must_not_be_carried_out_is_skipped_with_its_reason(world: World) -> None:
    known, inside, second, alone = world.users("known", "inside", "second", "alone")
    (stranger,) = world.users("stranger", organisation="another")
    ghost, elsewhere = f"ghost-{world.env}", "belongs to another organisation than the event's"
    cases = [
        (known, "nobody", ORGANISATION, "user 'nobody' is unknown to User-Org"),
        (ghost, known, ORGANISATION, f"user {ghost!r} is unknown to User-Org"),
        (stranger, inside, ORGANISATION, f"user {stranger!r} {elsewhere}"),
        (inside, stranger, ORGANISATION, f"user {stranger!r} {elsewhere}"),
        (inside, second, "a third one", f"user {inside!r} {elsewhere}"),
        (alone, alone, ORGANISATION, "old and new user are the same"),
        (alone, alone.upper(), ORGANISATION, "old and new user are the same"),
    ]
    owners = (known, ghost, stranger, inside, alone)
    batches = [world.batch(created_by=u, mentors=(u,)) for u in owners]
    events = [world.platform.event(*case[:3]) for case in cases]
    world.platform.emit_all(events)

    assert world.whole_run().events == {"skipped": len(cases)}

    for event, (*_, reason) in zip(events, cases, strict=True):
        assert world.read(event["mid"]).reason == reason
        assert world.changes(event["mid"]) == ([], [])
    assert [world.owners(b) for b in batches] == [(u, (u,)) for u in owners]


def test_a_skipped_event_holds_nobody_back(world: World) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    world.transfer(a, "nobody")
    world.transfer(a, b)
    assert world.whole_run().events == {"skipped": 1, "completed": 1}
    assert world.owners(batch) == (b, ())


def test_the_organisation_is_compared_whatever_its_case(world: World) -> None:
    old, new = world.users("old", "new", organisation="Org-Of-Mixed-Case")
    batch = world.batch(created_by=old)
    event = world.platform.event(old, new, "ORG-of-mixed-case")
    world.platform.emit(event)
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (new, ())


# --- poison


def rejection(at: Offset) -> str:
    """Mid of the ledger's row for a rejected message."""
    return f"rejected:{at.topic}:{at.partition}:{at.offset}"


def without(event: dict[str, Any], *path: str) -> dict[str, Any]:
    """The event without one field."""
    copy: dict[str, Any] = json.loads(json.dumps(event))
    part = copy
    for name in path[:-1]:
        part = part[name]
    del part[path[-1]]
    return copy


def poisons(world: World) -> dict[str, tuple[bytes | None, str]]:
    """Messages that are no transfer, and how the reason begins: every kind has it, see `tests/unit/domain/test_event.py`."""
    event = world.event("a", "b")
    return {
        "null value": (None, "the message is empty"),
        "empty": (b"", "the message is empty"),
        "text": (b"not json", "not JSON"),
        "not UTF-8": (b"\xfe\x00{", "not UTF-8"),
        "list": (b"[]", "the message is a JSON array of 0, not an object"),
        "huge": (json.dumps({**event, "padding": "x" * (1 << 20)}).encode(), "the message has 1049"),
        "nested 10,000 deep": (b"[" * 10_000 + b"]" * 10_000, "the JSON is nested too deeply"),
        "another eid": (json.dumps({**event, "eid": "BE_AUDIT"}).encode(), "eid: "),
        "no edata": (json.dumps(without(event, "edata")).encode(), "edata: Field required"),
    }


def test_poison_is_rejected_with_its_reason_and_the_events_around_it_complete(
    own_world: World,
) -> None:
    world = own_world
    old, new, last = world.users("old", "new", "last")
    batch = world.batch(created_by=old)
    bad = poisons(world)
    first, second = world.event(old, new), world.event(new, last)
    values = [value for value, _ in bad.values()]
    offsets = world.platform.emit_all([first, *values, second], partition=0)[1:-1]

    run = world.run().pull()

    assert (run.pulled.received, run.pulled.rejected) == (2, len(bad))
    assert run.finish().events == {"completed": 2}
    assert world.owners(batch) == (last, ())
    letters = {int(h["offset"]): (h, value) for h, value in world.dead_letters()}
    assert set(letters) == {at.offset for at in offsets}
    for (name, (value, reason)), at in zip(bad.items(), offsets, strict=True):
        row = world.rejected(rejection(at))
        assert row.reason.startswith(reason), (name, row.reason)
        assert row.body == (value or b""), name
        assert row.kafka_ms > 0, name
        headers, copy = letters[at.offset]
        assert headers.pop("error_message").startswith(reason), name
        assert headers == {
            "topic": world.platform.input_topic,
            "partition": "0",
            "offset": str(at.offset),
            "error_class": "Poison",
        } | ({"truncated": str(len(value or b""))} if "truncated" in headers else {}), name
        assert (value or b"").startswith(copy), name
        assert "truncated" in headers or copy == (value or b""), name
    # Read again, they are the same rows and no new letters.
    world.rewind()
    assert world.run().pull().pulled.rejected == 0
    assert len(world.dead_letters()) == len(bad)


def test_a_message_older_than_the_ledgers_retention_is_rejected(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    ancient = world.event(old, new)["ets"] - 401 * 24 * 3600 * 1000
    at = world.platform.emit(world.event(old, new, ets=ancient), timestamp=ancient)
    assert world.run().pull().pulled.rejected == 1
    assert world.rejected(rejection(at)).reason.startswith("older than ledger.retention.days")
    assert world.owners(batch) == (old, ())


def test_fields_that_nobody_told_us_about_are_ignored(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    event = world.event(
        old,
        new,
        edata={"assetInformation": None, "iteration": "2", "newField": {"deep": [1, {}]}, "actionBy": None},
        context=None,
        object=None,
    )
    world.platform.emit(event)
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (new, ())


def test_the_platforms_own_examples_good_and_bad_end_as_they_should(own_world: World) -> None:
    """The kinds of lines that the platform's sample of its events has, in its order."""
    world = own_world
    a, b, c, d = world.users("a", "b", "c", "d")
    (outsider,) = world.users("outsider", organisation="other")
    batches = [world.batch(created_by=u) for u in (a, b, c, d, outsider)]
    good = [
        world.event(a, b, request_id="req-1"),
        world.event(b, d, request_id="req-2", reason="User Deletion"),
        *(
            world.event(c, d, request_id="req-3", asset={"objectType": "Content", "identifier": f"do_{n}"})
            for n in range(3)
        ),
    ]
    skipped = [world.event(a, a), world.event("00000000-dead", b), world.event(outsider, b)]
    lines: list[Any] = [
        *good,
        *skipped,
        without(world.event(a, b), "edata", "fromUserProfile"),
        world.event(a, b, edata={"toUserProfile": {"userId": None}}),
        without(world.event(a, b), "mid"),
        b"not json",
        b"[]",
        b"{}",
        b"null",
        b'{"eid":"BE_JOB_REQUEST","edata":',
    ]
    # One more of the list has the same mid and payload as the first.
    world.platform.emit_all([*lines, good[0]])

    run = world.run().pull()

    assert (run.pulled.received, run.pulled.known, run.pulled.rejected) == (9, 1, 7)
    # The one without a mid is carried out, too: there is nothing left for it to move.
    assert run.finish().events == {"completed": 6, "skipped": 3}
    assert world.job.states([e["mid"] for e in good]) == ["completed"] * 5
    assert world.job.states([e["mid"] for e in skipped]) == ["skipped"] * 3
    assert world.creators(batches) == [d, d, d, d, outsider]
    assert len(world.dead_letters()) == 7
    assert world.job.open_mids() == []


def test_events_with_the_longest_ids_are_queued_and_claimed_by_the_hundred(own_world: World) -> None:
    world = own_world
    long = [f"{n:03}-{'x' * 252}" for n in range(120)]
    events = [
        world.event(long[n], f"{long[n][:-1]}y", mid=f"LP.{n:03}.{'m' * 293}") for n in range(len(long))
    ]
    world.platform.emit_all(events, partition=0)

    run = world.run().pull()

    assert (run.pulled.received, run.pulled.claimed) == (120, 120)
    assert run.finish().events == {"skipped": 120}
