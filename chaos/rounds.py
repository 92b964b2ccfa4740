"""One round: a world is made, its messages are sent, a fault strikes, and in the end everything is compared."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

import httpx
from cassandra import DriverException
from cassandra.cluster import NoHostAvailable
from elastic_transport import TransportError
from elasticsearch import ApiError

from chaos import oracle
from chaos.faults import FAULTS, STAGES, Fault
from chaos.worlds import Edit, World, random_world
from local.airflow import DAG_ID, token
from local.outcome import standing
from local.processes import NotReadyError, await_condition
from local.schema import KEYSPACE
from local.stack import Stack
from local.stores import both_stores
from local.story import REJECTED
from local.world import Batch, Offset, Platform

SETTLED_WITHIN_S = 300.0
"""From the end of the fault until every event is final; a failed stage is tried again after 10, 20, 40 … seconds."""
AGAIN_WITHIN_S = 180.0
"""For what the platform itself does while something is broken: it tries again, as its producers and the LMS do."""
STAGE_WITHIN_S = 10.0
_BROKEN = (RuntimeError, DriverException, NoHostAvailable, TransportError, ApiError, OSError)

T = TypeVar("T")


@dataclass
class Round:
    """What a round did and found."""

    seed: int
    fault: str
    when: str
    events: int = 0
    messages: int = 0
    batches: int = 0
    edits: int = 0
    broken_s: float = 0.0
    settled_s: float = 0.0
    """From the end of the fault, or of the sending if that was later, until every event was final."""
    violations: list[str] = field(default_factory=list)


def play(stack: Stack, platform: Platform, seed: int, fault: Fault | None = None) -> Round:
    """The round of `seed`: the same world, fault and moment each time; the processes' own timing differs."""
    rng = Random(f"round {seed}")
    fault = fault or rng.choice(FAULTS)
    when = rng.choice((*STAGES, *(f"{rng.uniform(0, 5):.1f} s",) * 3))
    world = random_world(seed)
    done = Round(seed, fault.name, when, messages=len(world.messages), batches=len(world.batches))
    platform.add_users(world.users)
    platform.add_batches(world.batches)

    failed: list[BaseException] = []
    striking = threading.Thread(target=_strike, args=(stack, fault, when, rng, done, failed))
    striking.start()
    places = _send(platform, world, rng)
    done.edits = _edit(platform, world, rng)
    striking.join()
    if failed:
        raise failed[0]
    begun = time.monotonic()
    _await_final(platform, world, done)
    done.settled_s = round(time.monotonic() - begun, 1)
    done.violations += _compare(stack, platform, world, places)
    return done


def _strike(
    stack: Stack, fault: Fault, when: str, rng: Random, done: Round, failed: list[BaseException]
) -> None:
    try:
        if when in STAGES:
            _await_stage(stack, when)
        else:
            time.sleep(float(when.removesuffix(" s")))
        done.broken_s = round(fault.strike(stack, rng), 1)
    except BaseException as error:  # noqa: BLE001  # it is raised by the thread that waits for this one
        failed.append(error)


def _await_stage(stack: Stack, stage: str) -> None:
    """Return as soon as a task of the stage runs, or after a while: the messages may all be done by then."""
    a = stack.addresses
    headers = {"Authorization": f"Bearer {token(a.airflow, a.airflow_user, a.airflow_password)}"}
    with httpx.Client(base_url=f"{a.airflow}/api/v2", headers=headers, timeout=30) as http:

        def runs() -> bool:
            found = http.get(f"/dags/{DAG_ID}/dagRuns/~/taskInstances", params={"state": "running"}).json()
            return any(t["task_id"].endswith(stage) for t in found["task_instances"])

        try:
            await_condition(runs, timeout_s=STAGE_WITHIN_S, what=f"a running {stage}")
        except NotReadyError:
            return


def _send(platform: Platform, world: World, rng: Random) -> list[tuple[str, Offset]]:
    """Send all groups. Returns the mid, or "" for what is no event, and place of every message."""
    places: list[tuple[str, Offset]] = []
    for group in world.groups:
        there = _again(lambda group=group: platform.emit_all(m.value for m in group))  # type: ignore[misc]
        places += [
            ("" if m.expected == REJECTED else m.mid(place), place)
            for m, place in zip(group, there, strict=True)
        ]
        time.sleep(rng.choice((0, 0, 0.3, 1.0)))  # a producer's own pace
    return places


def _edit(platform: Platform, world: World, rng: Random) -> int:
    of = {b.batch_id: b for b in world.batches}
    for batch, edit in world.edits.items():
        time.sleep(rng.uniform(0, 0.5))
        _again(lambda b=of[batch], e=edit: _edit_row(platform, world, b, e))  # type: ignore[misc]
        _again(lambda b=of[batch], e=edit: _edit_document(platform, world, b, e))  # type: ignore[misc]
    return len(world.edits)


def _edit_row(platform: Platform, world: World, batch: Batch, edit: Edit) -> None:
    if edit is Edit.DELETE:
        platform.delete_row(batch.course_id, batch.batch_id)
    else:
        columns, _ = _fields(world, edit)
        platform.update_row(batch.course_id, batch.batch_id, **columns)


def _edit_document(platform: Platform, world: World, batch: Batch, edit: Edit) -> None:
    if edit is Edit.DELETE:
        platform.delete_document(batch.batch_id)
    else:
        _, fields = _fields(world, edit)
        platform.put_document(batch.batch_id, **fields)


def _fields(world: World, edit: Edit) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns of the row and fields of the document that an edit sets."""
    of: dict[Edit, tuple[dict[str, Any], dict[str, Any]]] = {
        Edit.NAME: ({"name": world.tag}, {"name": world.tag}),
        Edit.OWNER: ({"createdby": world.outsider}, {"createdBy": world.outsider}),
        Edit.COMPLETE: ({"status": 2}, {"status": 2}),
    }
    return of[edit]


def _again(action: Callable[[], T]) -> T:
    """Try until it works: what was half done is simply done twice."""
    deadline = time.monotonic() + AGAIN_WITHIN_S
    while True:
        try:
            return action()
        except _BROKEN:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _await_final(platform: Platform, world: World, done: Round) -> None:
    wanted = oracle.states(world)
    done.events = len(wanted)

    def final() -> bool:
        return _again(lambda: standing(platform, list(wanted), []).final)

    try:
        await_condition(final, timeout_s=SETTLED_WITHIN_S, what="every event to be final", poll_s=0.5)
    except NotReadyError:
        open_ = {m: e for m, e in standing(platform, list(wanted), []).events.items() if not e.final}
        done.violations += [f"{mid} is still {e.state}: {e.reason}" for mid, e in open_.items()]


def _compare(stack: Stack, platform: Platform, world: World, places: list[tuple[str, Offset]]) -> list[str]:
    """Everything that is not as the oracle has it, a sentence each."""
    wanted = oracle.states(world)
    rejected = [f"rejected:{p.topic}:{p.partition}:{p.offset}" for mid, p in places if not mid]
    events = standing(platform, [*wanted, *rejected], []).events
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
    found += _left_open(platform, set(wanted))
    return found + _uncommitted(stack, platform, places)


def _left_open(platform: Platform, mids: set[str]) -> list[str]:
    """Rows of the queue whose events are final; settle of a run that still goes may yet remove them."""

    def there() -> set[str]:
        return {
            r["mid"] for r in platform.session.execute(f"SELECT mid FROM {KEYSPACE}.transfer_open")
        } & mids

    try:
        await_condition(lambda: not there(), timeout_s=60, what="an empty queue", poll_s=0.5)
    except NotReadyError:
        return [f"{mid} is final and still in the queue" for mid in there()]
    return []


def _uncommitted(stack: Stack, platform: Platform, places: list[tuple[str, Offset]]) -> list[str]:
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
