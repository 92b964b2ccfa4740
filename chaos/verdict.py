"""The checks at the end: both stores, the ledger, the queue, the dead letters, the committed offsets."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from chaos import oracle
from chaos.worlds import Edit, World
from local.demo.outcome import dead_letters, events_of
from local.demo.story import REJECTED
from local.platform.schema import failed_topic
from local.platform.stores import both_stores
from local.platform.world import Offset, Platform
from local.servers.processes import NotReadyError, await_condition
from local.stack import Stack

Places = list[tuple[str, Offset]]
"""For every message its mid, or "" if it is not an event, and its offset."""


def violations(stack: Stack, platform: Platform, world: World, places: Places) -> list[str]:
    """All deviations from the oracle's expectation, a sentence each."""
    wanted = oracle.states(world)
    rejected = [f"rejected:{p.topic}:{p.partition}:{p.offset}" for mid, p in places if not mid]
    events = events_of(stack.addresses.ledger, [*wanted, *rejected])
    found = [
        f"{mid} is {events[mid].state or 'unknown'}, not {state}: {events[mid].reason}"
        for mid, state in {**wanted, **dict.fromkeys(rejected, REJECTED)}.items()
        if events[mid].state != state
    ]
    stores = both_stores(platform, world.batches)
    found += oracle.wrong_owners(world, stores.row_owners, stores.document_owners)
    for batch in (b for b, edit in world.edits.items() if edit is Edit.NAME):
        row, document = stores.rows[batch], stores.documents[batch]
        names = (row and row["name"], document and document.get("name"))
        if names != (world.tag, world.tag):
            found.append(f"batch {batch} was renamed by the LMS and is named {names} again")
    found += _left_open(stack.addresses.ledger, list(wanted))
    found += _without_letter(stack, platform, [place for mid, place in places if not mid])
    return found + _uncommitted(stack, platform, places)


def _without_letter(stack: Stack, platform: Platform, rejected: Sequence[Offset]) -> list[str]:
    """Rejected messages without a copy on the dead-letter topic."""
    letters = dead_letters(stack.addresses.kafka, failed_topic(platform.env), rejected)
    return [f"{place} has no dead letter" for place in {*rejected} - {x.source for x in letters}]


def _left_open(ledger: str, mids: Sequence[str]) -> list[str]:
    """Final events that stay in the queue; the `settle` of a running run gets 60 s to remove them."""
    question = "SELECT mid FROM queue JOIN event ON event.id = queue.event_id WHERE mid = ANY(%s)"
    with psycopg.connect(ledger, autocommit=True, prepare_threshold=None) as connection:

        def there() -> list[str]:
            return [mid for (mid,) in connection.execute(question, (list(mids),))]

        try:
            await_condition(lambda: not there(), timeout_s=60, what="an empty queue", poll_s=0.5)
        except NotReadyError:
            return [f"{mid} is final and still in the queue" for mid in there()]
    return []


def _uncommitted(stack: Stack, platform: Platform, places: Places) -> list[str]:
    """Partitions whose committed offset is below a message of the round."""
    from confluent_kafka import Consumer, TopicPartition

    last: dict[int, int] = {}
    for _, place in places:
        last[place.partition] = max(last.get(place.partition, -1), place.offset)
    group = f"{platform.env}-user-ownership-transfer-group"
    consumer = Consumer({"bootstrap.servers": stack.addresses.kafka, "group.id": group})
    try:
        committed = consumer.committed([TopicPartition(platform.input_topic, p) for p in last], timeout=20)
    finally:
        consumer.close()
    return [
        f"partition {c.partition} is committed up to {c.offset}, but {last[c.partition]} was sent"
        for c in committed
        if c.offset <= last[c.partition]
    ]
