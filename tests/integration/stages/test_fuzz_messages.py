"""Some hundred messages that are almost events, through a real topic, a real pull and a real ledger."""

from __future__ import annotations

import json
from random import Random

from local.platform.world import Offset
from ownership.domain.errors import Poison
from ownership.domain.event import TransferEvent, parse_event
from tests.fuzz.near_valid import PEOPLE, message
from tests.integration.stages.transfer_world import World

MESSAGES = 400
SEED = 2026


UNNAMED = "unnamed-"


def judged(value: bytes, number: int) -> TransferEvent | str:
    """The event that a message is, or why it is none."""
    try:
        return parse_event(value, unnamed=f"{UNNAMED}{number}")
    except Poison as e:
        return str(e)


def test_each_of_some_hundred_near_valid_messages_is_one_row_of_the_ledger_and_the_bad_ones_dead_letters(
    own_world: World,
) -> None:
    world = own_world
    random = Random(SEED)
    users = world.users("a", "b", "c", "d")
    values = [message(random, users) for _ in range(MESSAGES)]
    expected = [judged(v, n) for n, v in enumerate(values)]
    good = {e.mid for e in expected if isinstance(e, TransferEvent)}
    # The number of good ones is one of mids: the same one twice with two payloads would be rejected.
    assert len(good) == sum(isinstance(e, TransferEvent) for e in expected)
    assert 100 < len(good) < MESSAGES - 100

    offsets = world.platform.emit_all(list(values))
    run = world.run().pull()

    mid_at = {
        (r[0], r[1]): r[2] for r in world.execute("SELECT kafka_partition, kafka_offset, mid FROM event")
    }
    mids = [
        mid_at[at.partition, at.offset] if isinstance(e, TransferEvent) else name(at)
        for e, at in zip(expected, offsets, strict=True)
    ]
    named = {e.mid for e in expected if isinstance(e, TransferEvent) and not e.mid.startswith(UNNAMED)}
    assert named - set(mids) == set()
    assert (run.pulled.received, run.pulled.known) == (len(good), 0)
    assert run.pulled.rejected == MESSAGES - len(good)
    assert world.event_rows() == MESSAGES
    letters = {(int(h["partition"]), int(h["offset"])): (h, value) for h, value in world.dead_letters()}
    assert len(letters) == MESSAGES - len(good)
    rows = world.job.parts.events.read(mids)
    bodies = world.job.parts.events.bodies(mids)
    rejected = world.job.parts.events.rejected(mids)
    for value, found, at, mid in zip(values, expected, offsets, mids, strict=True):
        if isinstance(found, TransferEvent):
            transfer = rows[mid].transfer
            assert bodies[mid] == value
            assert (transfer.from_user, transfer.to_user) == (found.from_user, found.to_user)
            continue
        assert (rejected[mid].body, rejected[mid].reason) == (value, found)
        assert not any(detail in found for detail in PEOPLE.values())
        headers, copy = letters[at.partition, at.offset]
        assert copy == value
        assert headers["error_message"] == found[:1000]
    # All of it is consumed, and read again it is known.
    consumed = world.job.inbox.arrivals.consumed(world.platform.input_topic)
    backlog = world.job.topic.backlog({p: c.next_offset for p, c in consumed.items()})
    assert [s.start for s in backlog] == [s.end for s in backlog]
    json.dumps([s.model_dump(mode="json") for s in run.pulled.slices], allow_nan=False)
    world.rewind()
    again = world.run().pull().pulled
    assert (again.received, again.rejected) == (0, 0)
    assert world.event_rows() == MESSAGES
    # And every accepted one ends: these users are of another organisation, the odd ones are unknown.
    run.finish()
    world.job.drain()
    accepted = [m for m, e in zip(mids, expected, strict=True) if isinstance(e, TransferEvent)]
    assert set(world.job.states(accepted)) == {"skipped"}
    assert world.job.open_mids() == []


def name(at: Offset) -> str:
    """The mid of a rejected message."""
    return f"rejected:{at.topic}:{at.partition}:{at.offset}"
