"""One round: create a world, send its messages, inject a fault, and compare everything at the end."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from chaos import oracle
from chaos.faults import MOMENTS, STAGES, Fault, Scene, drawn, revive
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
STAGE_WITHIN_S = 10.0


@dataclass
class Round:
    """The result of a round."""

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
    its_fault.prepare(scene)

    failed: list[BaseException] = []
    striking = threading.Thread(target=_strike, args=(scene, its_fault, when, rng, done, failed))
    striking.start()
    places = send(platform, world, rng)
    done.edits = edit(platform, world, rng)
    striking.join()
    if failed:
        raise failed[0]
    begun = time.monotonic()
    _await_final(scene.stack, world, done)
    done.settled_s = round(time.monotonic() - begun, 1)
    done.violations += violations(scene.stack, platform, world, places)
    return done


def _strike(
    scene: Scene, fault: Fault, when: str, rng: Random, done: Round, failed: list[BaseException]
) -> None:
    try:
        if when in STAGES:
            await_stage(scene.stack, when)
        else:
            time.sleep(float(when.removesuffix(" s")))
        done.broken_s = round(fault.strike(scene, rng), 1)
    except BaseException as error:  # noqa: BLE001  # it is raised by the thread that waits for this one
        failed.append(error)


def await_stage(stack: Stack, stage: str) -> None:
    """Return as soon as a task of the stage is running, or after STAGE_WITHIN_S: all messages may be done by then."""
    with AirflowUi.at(stack) as ui:
        try:
            await_condition(lambda: ui.is_running(stage), timeout_s=STAGE_WITHIN_S, what=f"a running {stage}")
        except NotReadyError:
            return


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


def edit(platform: Platform, world: World, rng: Random) -> int:
    """Carry out the LMS's edits. Returns how many."""
    of = {b.batch_id: b for b in world.batches}
    for batch, edit in world.edits.items():
        time.sleep(rng.uniform(0, 0.5))
        retried(partial(_edit_row, platform, world, of[batch], edit))
        retried(partial(_edit_document, platform, world, of[batch], edit))
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
    """The row's columns and the document's fields that an edit sets."""
    of: dict[Edit, tuple[dict[str, Any], dict[str, Any]]] = {
        Edit.NAME: ({"name": world.tag}, {"name": world.tag}),
        Edit.OWNER: ({"createdby": world.outsider}, {"createdBy": world.outsider}),
        Edit.COMPLETE: ({"status": 2}, {"status": 2}),
    }
    return of[edit]


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
