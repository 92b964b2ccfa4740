"""One round: create a world, send its messages, inject a fault, and compare everything at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import psycopg

from chaos import oracle
from chaos.faults import MOMENTS, STAGES, Fault, Scene, drawn, revive
from chaos.histories import Row, Verdict, Writes, judge, take
from chaos.relays import StatementRelay
from chaos.retrying import retried
from chaos.ui import AirflowUi
from chaos.verdict import Places, violations
from chaos.worlds import Edit, World, random_world
from local.demo.outcome import events_of
from local.demo.story import REJECTED
from local.platform.world import Batch, Platform
from local.servers.processes import NotReadyError, await_condition
from local.stack import Stack

SETTLED_WITHIN_S = 300.0
"""Limit from the end of the fault until every event is final; a failed stage is retried after 10, 20, 40 … s."""
STAGE_WITHIN_S = 30.0


@dataclass
class Round:
    """The result of a round."""

    seed: int
    fault: str
    when: str
    in_time: bool = True
    """False if the stage at which the fault was to strike did not run any more."""
    events: int = 0
    messages: int = 0
    batches: int = 0
    edits: int = 0
    met: int = 0
    """How many edits came directly before a statement of the job."""
    operations: int = 0
    """How many operations on rows and the queue were checked for linearizability."""
    unknown: int = 0
    """Of how many nobody knows whether they took effect."""
    broken_s: float = 0.0
    settled_s: float = 0.0
    """From the end of the fault, or of the sending if that was later, until every event was final."""
    violations: list[str] = field(default_factory=list)


def play(scene: Scene, platform: Platform, seed: int, fault: Fault | None = None) -> Round:
    """Play the round of `seed`: always the same world, fault and moment, but not the same timing of processes."""
    rng = Random(f"round {seed}")
    its_fault, when = drawn(seed)
    if fault:
        its_fault, when = fault, rng.choice(MOMENTS)
    if when not in STAGES:
        when = f"{rng.uniform(0, 5):.1f} s"
    world = random_world(seed)
    done = Round(seed, its_fault.name, when, messages=len(world.messages), batches=len(world.batches))
    platform.add_users(world.users)
    platform.add_batches(world.batches)
    lms = Lms(platform, world)
    if scene.cassandra:
        lms.lie_in_wait(scene.cassandra)
    its_fault.prepare(scene)

    failed: list[BaseException] = []
    striking = threading.Thread(target=_strike, args=(scene, its_fault, when, rng, done, failed))
    striking.start()
    places = send(platform, world, rng)
    lms.edit_at_random(rng, waiting=scene.cassandra is not None)
    striking.join()
    if failed:
        raise failed[0]
    begun = time.monotonic()
    _await_final(scene.stack, world, done)
    done.settled_s = round(time.monotonic() - begun, 1)
    lms.end()
    done.edits, done.met = len(world.edits), lms.met
    done.violations += retried(partial(violations, scene.stack, platform, world, places))
    if scene.shared:
        judged = _histories(scene.stack, scene.shared, world, lms)
        done.operations, done.unknown = judged.operations, judged.unknown
        done.violations += judged.violations
    return done


def _histories(stack: Stack, folder: Path, world: World, lms: Lms) -> Verdict:
    """Whether rows and claims are linearizable, by what all processes recorded since the last call."""
    rows = {b.batch_id: Row(b.created_by, tuple(b.mentors or ()), b.status) for b in world.batches}
    question = "SELECT id, mid FROM event WHERE mid = ANY(%s)"
    with psycopg.connect(stack.addresses.ledger, autocommit=True, prepare_threshold=None) as connection:
        found = connection.execute(question, (list(oracle.states(world)),)).fetchall()
    mids: dict[int, str] = dict(found)
    return judge(take(folder), rows, lms.wrote.operations, mids)


def _strike(
    scene: Scene, fault: Fault, when: str, rng: Random, done: Round, failed: list[BaseException]
) -> None:
    try:
        if when in STAGES:
            done.in_time = await_stage(scene.stack, when)
        else:
            time.sleep(float(when.removesuffix(" s")))
        done.broken_s = round(fault.strike(scene, rng), 1)
    except BaseException as error:  # noqa: BLE001  # it is raised by the thread that waits for this one
        failed.append(error)


def await_stage(stack: Stack, stage: str) -> bool:
    """Return as soon as a task of the stage is running; False after STAGE_WITHIN_S: all messages may be done by then."""

    def look() -> bool:
        with AirflowUi.at(stack) as ui:
            try:
                await_condition(
                    lambda: ui.is_running(stage), timeout_s=STAGE_WITHIN_S, what=f"a running {stage}"
                )
            except NotReadyError:
                return False
        return True

    return retried(look)


def send(platform: Platform, world: World, rng: Random) -> Places:
    """Send all groups. Returns for every message its mid, or "" if it is not an event, and its offset."""
    places: Places = []
    for group in world.groups:
        there = retried(partial(platform.emit_all, [m.value for m in group]))
        places += [
            ("" if m.expected == REJECTED else m.mid(place), place)
            for m, place in zip(group, there, strict=True)
        ]
        time.sleep(rng.choice((0, 0, 0.3, 1.0)))  # a producer's own pace
    return places


class Lms:
    """The LMS of a round: its edits, each carried out once. First the row, then the document."""

    def __init__(self, platform: Platform, world: World) -> None:
        self.wrote = Writes()
        """Its writes of rows."""
        self.met = 0
        """How many edits came directly before a statement of the job."""
        self._platform, self._world = platform, world
        self._batches = {b.batch_id: b for b in world.batches}
        self._todo = set(world.edits)
        self._documents = ThreadPoolExecutor(1, "documents")
        self._under_way: list[Future[None]] = []
        self._editing = threading.Lock()

    def lie_in_wait(self, relay: StatementRelay) -> None:
        """Carry the edits out that are to meet a statement of the job when the relay sees that."""
        for batch, nth in self._world.meetings.items():
            relay.before_request(batch, nth, partial(self._meet, batch))

    def edit_at_random(self, rng: Random, *, waiting: bool) -> None:
        """Carry edits out, with pauses; if others are `waiting` for their statement, without these."""
        for batch in self._world.edits:
            if not (waiting and batch in self._world.meetings):
                time.sleep(rng.uniform(0, 0.5))
                self._edit(batch)

    def end(self) -> None:
        """Carry the edits out that have met no statement."""
        for batch in self._world.edits:
            self._edit(batch)
        for document in self._under_way:
            document.result()
        self._documents.shutdown()

    def _meet(self, batch: str) -> None:
        self.met += self._edit(batch)

    def _edit(self, batch: str) -> bool:
        with self._editing:
            if batch not in self._todo:
                return False
            self._todo.remove(batch)
            retried(partial(self._edit_row, self._batches[batch]))
            edit = self._documents.submit(retried, partial(self._edit_document, batch))
            self._under_way.append(edit)
        return True

    def _edit_row(self, batch: Batch) -> None:
        columns = _COLUMNS[self._world.edits[batch.batch_id]](self._world)
        with self.wrote.plainly(batch.batch_id, columns):
            if columns is None:
                self._platform.delete_row(batch.course_id, batch.batch_id)
            else:
                self._platform.update_row(batch.course_id, batch.batch_id, **columns)

    def _edit_document(self, batch: str) -> None:
        columns = _COLUMNS[self._world.edits[batch]](self._world)
        if columns is None:
            self._platform.delete_document(batch)
        else:
            self._platform.put_document(batch, **{_FIELDS.get(n, n): value for n, value in columns.items()})


_COLUMNS: Mapping[Edit, Callable[[World], dict[str, Any] | None]] = {
    Edit.NAME: lambda world: {"name": world.tag},
    Edit.OWNER: lambda world: {"createdby": world.outsider},
    Edit.MENTORS: lambda world: {"mentors": [world.outsider]},
    Edit.COMPLETE: lambda _: {"status": 2},
    Edit.DELETE: lambda _: None,
}
"""The row's columns that an edit sets; None deletes it."""
_FIELDS = {"createdby": "createdBy"}
"""Names of the document's fields where they differ."""


def _await_final(stack: Stack, world: World, done: Round) -> None:
    ledger = stack.addresses.ledger
    wanted = oracle.states(world)
    done.events = len(wanted)

    def final() -> bool:
        revive(stack)  # a process may exit seconds after its database was unavailable
        return all(event.final for event in retried(lambda: events_of(ledger, wanted)).values())

    try:
        await_condition(final, timeout_s=SETTLED_WITHIN_S, what="every event to be final", poll_s=0.5)
    except NotReadyError:
        open_ = {m: e for m, e in events_of(ledger, wanted).items() if not e.final}
        done.violations += [f"{mid} is still {e.state}: {e.reason}" for mid, e in open_.items()]
