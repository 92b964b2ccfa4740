"""The later phases of a slice's lanes. Each begins when the one before it is committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from ownership.domain.clock import now_ms
from ownership.domain.contracts import Slice, Work
from ownership.domain.queue import ClaimedEvent, choose
from ownership.stages.claim import Given
from ownership.stages.lookup import lookup_users
from ownership.stages.parts import Parts
from ownership.stages.reindex import reindex_course_batches
from ownership.stages.update import update_course_batches

log = structlog.get_logger(__name__)

LATER_STAGES = (update_course_batches, reindex_course_batches)
_UNFINISHED = frozenset({"planned", "applied", "waiting"})
"""What a stage counts events as that do not end in it."""


class Attempt(Protocol):
    """Runs a stage, and decides what its failure is: an outcome of its events, or an exception."""

    def __call__(self, stage: Callable[[Parts, Given], Work], given: Given, /) -> Work:
        """What the stage hands on."""


def apply_later_phases(parts: Parts, done: Work, attempt: Attempt) -> Work:
    """Carry out the events that wait in a slice, phase after phase, until none of them can go on.

    `done` is the slice after its first phases. After an exception of `attempt` the same call may be repeated: it goes
    on with what is not committed. Returns the slice with the counts of all its phases; what still waits is left to a
    later run.
    """
    events, batches, failures = Counter(done.events), Counter(done.batches), dict(done.failures)
    waiting = done.waiting
    while True:
        free, blocked = _divided(parts, waiting, done.run_id)
        if not free:
            break
        log.info("next phase", slice=done.label, run_id=done.run_id, free=len(free), blocked=len(blocked))
        steps = [attempt(lookup_users, Slice(label=done.label, run_id=done.run_id, events=free))]
        for stage in LATER_STAGES:
            if steps[-1].phases:
                steps.append(attempt(stage, steps[-1]))
        for step in steps:
            events.update({k: n for k, n in step.events.items() if k not in _UNFINISHED})
            failures |= step.failures
        batches.update(steps[-1].batches if len(steps) > len(LATER_STAGES) else {})
        waiting = (*blocked, *steps[-1].waiting)
    return done.step((), events=events, batches=batches, failures=failures, waiting=blocked)


def _divided(
    parts: Parts, waiting: Sequence[ClaimedEvent], run_id: str
) -> tuple[tuple[ClaimedEvent, ...], tuple[ClaimedEvent, ...]]:
    """Those of `waiting` that the run holds: first the ones that can go on, then those behind another open event.

    This is the rule of a claim. The commit of a phase takes its events out of the queue; an event that failed, awaits
    an approval, was taken over or came late is there, and blocks later ones of its users.
    """
    if not waiting:
        return (), ()
    queued, now = parts.queue.read(), now_ms()
    tokens = {q.mid: q.fencing_token for q in queued}
    held = [e for e in waiting if tokens.get(e.mid) == e.fencing_token]
    only = {e.mid for e in held}
    choice = choose(queued, run_id=run_id, now_ms=now, judged_ms=now, grace_ms=0, limit=len(only), only=only)
    free = {q.mid for q in choice.take}
    return tuple(e for e in held if e.mid in free), tuple(e for e in held if e.mid not in free)
