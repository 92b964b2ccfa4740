"""Messages as the platform's producers, and what is put before them, really send them."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from ownership.domain.clock import now_ms
from tests.integration.stages.transfer_world import ORGANISATION, World

MINUTE_MS = 60_000


def encoded(event: dict[str, Any]) -> bytes:
    """An event's bytes as the producer writes them."""
    return json.dumps(event).encode()


def test_ids_with_blanks_around_them_are_those_that_the_producer_has_checked(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old, mentors=(old, "x"))
    event = world.platform.event(f" {old}\t", f"{new} ", f" {ORGANISATION}\n")
    world.platform.emit(event)
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (new, (new, "x"))
    row = world.read(event["mid"])
    assert (row.transfer.from_user, row.transfer.to_user, row.organisation_id) == (old, new, ORGANISATION)


def test_a_character_that_nobody_sees_moves_nothing_and_is_named(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    world.platform.emit(world.event(old, f"{new}\u200b"))
    run = world.run().pull()
    assert (run.pulled.rejected, run.pulled.claimed) == (1, 0)
    headers, _ = world.dead_letters()[-1]
    assert "toUserProfile.userId: contains U+200B, ZERO WIDTH SPACE" in headers["error_message"]
    assert world.owners(batch) == (old, ())


@pytest.mark.parametrize("form", ["1.7672256E12", "text", "seconds", "microseconds", "absent", "nonsense"])
def test_a_time_in_any_form_is_no_reason_to_reject(world: World, form: str) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    now = now_ms()
    ets = {
        "1.7672256E12": float(now),
        "text": str(now),
        "seconds": now // 1000,
        "microseconds": now * 1000,
        "nonsense": "soon",
    }.get(form)
    event = {**world.event(old, new), "ets": ets}
    if form == "absent":
        del event["ets"]
    world.platform.emit(event)
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (new, ())
    assert abs(world.read(event["mid"]).transfer.key.t - now) < MINUTE_MS


def test_a_message_without_a_mid_is_named_by_its_place_at_every_read(own_world: World) -> None:
    world = own_world
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    event = world.event(old, new)
    del event["mid"]
    at = world.platform.emit(event, partition=1)
    assert world.whole_run().events == {"completed": 1}
    ((mid,),) = world.execute("SELECT mid FROM event")
    assert mid.startswith(f"message:{at.topic}:1:{at.offset}:")
    assert world.owners(batch) == (new, ())
    world.rewind()
    again = world.run().pull(window=world.window())
    assert (again.pulled.received, again.pulled.known, again.pulled.claimed) == (0, 1, 0)
    # The same words a second time are a second message.
    world.platform.emit(event, partition=1)
    assert world.run().pull().pulled.received == 1


@pytest.mark.parametrize(
    "together", [pytest.param(True, id="in one run"), pytest.param(False, id="run by run")]
)
def test_the_clock_of_a_producer_that_is_ahead_does_not_turn_the_order_round(
    world: World, together: bool
) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = [world.batch(created_by=u) for u in (a, c)]
    ahead = now_ms() + 50 * MINUTE_MS
    first, second = world.event(a, b, ets=ahead), world.event(c, a, ets=None)
    world.platform.emit(first, partition=0, timestamp=ahead)
    notes = []
    if not together:
        notes = [s.notes for s in world.job.drain()]
    world.platform.emit({**second, "ets": now_ms()}, partition=0)
    notes += [s.notes for s in world.job.drain()]
    assert world.creators(batches) == [b, a]
    row = world.read(first["mid"])
    assert row.transfer.key < world.read(second["mid"]).transfer.key
    assert row.transfer.key.t <= now_ms()
    assert row.kafka_ms <= now_ms()
    note = next(t[first["mid"]] for t in notes if first["mid"] in t)
    assert note.startswith("was sent by a clock that is ")


def test_the_place_in_the_order_of_an_event_that_was_ahead_stays_at_every_read(own_world: World) -> None:
    world = own_world
    old, new = world.users("old", "new")
    ahead = now_ms() + 50 * MINUTE_MS
    event = world.event(old, new, ets=ahead)
    world.platform.emit(event, timestamp=ahead)
    assert world.whole_run().events == {"completed": 1}
    before = world.read(event["mid"])
    world.rewind()
    world.run().pull(window=world.window())
    assert world.read(event["mid"]).transfer.key == before.transfer.key


@pytest.mark.parametrize("stamp", [1, 1_767_225_600])
def test_a_timestamp_of_a_message_that_is_none_is_no_reason_to_reject(world: World, stamp: int) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    event = world.event(old, new)
    world.platform.emit(event, timestamp=stamp)
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (new, ())
    assert abs(world.read(event["mid"]).kafka_ms - now_ms()) < MINUTE_MS


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        pytest.param(lambda m: b"\x00\x00\x00\x00\x01" + m, "framed by a schema registry", id="framed"),
        pytest.param(gzip.compress, "compressed with gzip", id="packed"),
        pytest.param(lambda m: m.decode().encode("utf-16"), "in UTF-16", id="UTF-16"),
        pytest.param(lambda m: json.dumps(m.decode()).encode(), "JSON inside a JSON text", id="twice"),
        pytest.param(lambda _: b"", "the message is empty", id="a tombstone"),
        pytest.param(lambda m: b"[" + m + b"]", "a JSON array of 1", id="a list"),
        pytest.param(lambda m: m[:-1] + b', "eid": "x"}', "the key 'eid' is there twice", id="a key twice"),
    ],
)
def test_a_message_that_is_framed_or_packed_is_rejected_by_its_name(
    world: World, spoil: Any, what: str
) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    at = world.platform.emit(spoil(encoded(world.event(old, new))))
    assert world.run().pull().pulled.rejected == 1
    assert what in world.rejected(f"rejected:{at.topic}:{at.partition}:{at.offset}").reason
    assert world.owners(batch) == (old, ())
    # It does not slip through when its dead letter is put back as it is.
    _, dead = world.dead_letters()[-1], len(world.dead_letters()) - 1
    order = {"dead_letters": {"partition": 0, "from_offset": dead, "to_offset": dead}}
    again = world.run().pull(redrive=order)
    assert what in next(iter(again.pulled.notes.values()))
    assert again.pulled.claimed == 0


def test_a_number_of_any_length_does_not_stand_in_the_way_of_a_redrive(world: World) -> None:
    old, new = world.users("old")[0], f"later-{world.env}"
    batch = world.batch(created_by=old)
    event = world.event(old, new)
    world.platform.emit(encoded({**event, "ets": 0}).replace(b'"ets": 0', b'"ets": ' + b"9" * 5000))
    assert world.whole_run().events == {"skipped": 1}
    world.platform.add_user(new, ORGANISATION)
    assert world.whole_run(redrive={"mids": [event["mid"]]}).events == {"completed": 1}
    assert world.owners(batch) == (new, ())


def test_a_byte_order_mark_is_taken_off_and_the_event_can_be_undone(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    event = world.event(old, new)
    world.platform.emit(b"\xef\xbb\xbf" + encoded(event))
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (new, ())
    _, undone = world.undo(event["mid"])
    assert undone.events == {"completed": 1}
    assert world.owners(batch) == (old, ())


def test_half_a_surrogate_pair_in_names_and_words_does_not_stand_in_the_way(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    event = world.event(
        old,
        new,
        reason="left \ud83d",
        edata={"actionBy": {"userId": "ad\ud83dmin"}, "toUserProfile": {"firstName": "\ud83d"}},
    )
    world.platform.emit(encoded(event))
    assert world.whole_run().events == {"completed": 1}
    row = world.read(event["mid"])
    assert (row.request_reason, row.requested_by) == ("left \ufffd", "ad\ufffdmin")
    _, undone = world.undo(event["mid"])
    assert undone.events == {"completed": 1}
    assert world.owners(batch) == (old, ())
