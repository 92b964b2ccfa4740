"""Marks: the lines of the crash-point table and the branches of the protocol that a world has reached.

They are read from the trace and the ledger, from outside: the product knows nothing of them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from simulation.scheduler import Fate, Line
from simulation.world import World

CRASH_POINTS = (
    "crash: nothing of a message",
    "crash: a dead letter, not its message",
    "crash: events and offset, not committed to Kafka",
    "crash: accepted, not claimed",
    "crash: claimed, no slices handed on",
    "crash: taken over by an order, not written",
    "crash: verdict, or part of the plan",
    "crash: image, row not changed",
    "crash: row changed, image without outcome",
    "crash: rows changed, documents not",
    "crash: documents changed, not committed",
    "crash: a phase committed, claims not released",
)
"""The lines of the table in docs/architecture.md, in its order."""
_SQL = (
    ("event", "SELECT DISTINCT state FROM event"),
    ("image", "SELECT DISTINCT coalesce(outcome, 'without outcome') FROM change"),
    ("batch", "SELECT DISTINCT outcome FROM plan WHERE outcome IS NOT NULL"),
    ("event from", "SELECT DISTINCT origin FROM event"),
    ("verdict", "SELECT DISTINCT verdict FROM event WHERE verdict IS NOT NULL"),
    ("", "SELECT DISTINCT 'a composed change' FROM change WHERE hops > 1"),
    ("", "SELECT DISTINCT 'an event came late' FROM event WHERE late"),
    ("", "SELECT DISTINCT 'an undo' FROM event WHERE options ? 'undo_of' AND state = 'completed'"),
    ("", "SELECT DISTINCT 'a plan is applied' FROM event WHERE options ? 'plan_of'"),
    ("", "SELECT DISTINCT 'an event about one batch' FROM event WHERE options ? 'asset'"),
    ("", "SELECT DISTINCT 'planned under another event' FROM event WHERE cardinality(planned_with) > 1"),
)
_TRACE = (
    ("a claim finds an event too young", r"Queue\.claim.*is too young"),
    ("a claim finds an event blocked", r"Queue\.claim.*waits for"),
    ("a claim finds an event held", r"Queue\.claim.*is held by"),
    ("a claim finds an event whose retry is not due", r"Queue\.claim.*is tried again at"),
    ("a claim finds an event that awaits approval", r"Queue\.claim.*awaits approval"),
    ("a fence finds a claim lost", r"Queue\.held.*lost"),
    ("a try takes its events again", r"Queue\.claim_again \S"),
    ("a compare-and-set is refused", r"rows.*refused"),
    ("a write without an answer takes effect later", r"whose answer was lost, takes effect"),
    ("a serial read", r"^rows serial read"),
    ("a document was written meanwhile", r"index.*conflict"),
    ("a later phase", r"Queue\.read"),
    ("a frozen process wakes", r"wakes"),
    ("a process gets SIGTERM", str(Fate.TERMINATED)),
    ("an outage", str(Fate.OUTAGE)),
    ("a commit whose answer was lost", rf"ledger.*{Fate.LOST_AFTER}"),
    ("a reconciliation", r"^rows page"),
    ("a run is cleared", r"is cleared"),
    ("a run is marked as failed", r"is marked as failed"),
)
MARKS: Sequence[str] = (
    *CRASH_POINTS,
    *(name for name, _ in _TRACE),
    *(f"event {s}" for s in ("completed", "skipped", "abandoned", "declined", "rehearsed")),
    *(f"image {o}" for o in ("applied", "refused", "superseded", "in_doubt", "late")),
    *(f"batch {o}" for o in ("moved", "already", "changed_elsewhere", "gone", "not_live")),
    *(f"event from {o}" for o in ("kafka", "manual", "follow-up")),
    *(f"verdict {d}" for d in ("valid", "invalid", "giver_deleted")),
    "a composed change", "an undo", "a plan is applied", "an event about one batch", "planned under another event",
)  # fmt: skip
"""All that a campaign must reach."""


def marks_of(world: World) -> frozenset[str]:
    """What a world has reached."""
    found = set(crash_points(world.scheduler.trace))
    lines = [f"{x.store} {x.what} {x.answer} {x.fate}" for x in world.scheduler.trace]
    found |= {name for name, pattern in _TRACE if any(re.search(pattern, line) for line in lines)}
    for kind, query in _SQL:
        found |= {f"{kind} {r[0]}".strip() for r in world.database.plainly(query)}
    return frozenset(found)


def crash_points(trace: Iterable[Line]) -> Iterator[str]:
    """The lines of the crash-point table to which deaths belong."""
    done: dict[str, list[str]] = defaultdict(list)
    for line in trace:
        if not line.n:
            continue
        if line.fate not in (
            Fate.DIES_BEFORE,
            Fate.DIES_LATE,
            Fate.LOST_BEFORE,
            Fate.LOST_LATE,
            Fate.TERMINATED,
            Fate.OUTAGE,
        ):
            done[line.actor].append(f"{line.store} {line.what} {line.answer}".rstrip())
        if line.fate in (Fate.DIES_BEFORE, Fate.DIES_LATE, Fate.DIES_AFTER):
            task = line.actor.partition(".")[2].partition("#")[0].partition("[")[0]
            if point := _CRASHES[task](done[line.actor]) if task in _CRASHES else "":
                yield point


def _last(done: Sequence[str], *beginnings: str) -> int:
    """The place of the last call that begins so; -1 if there is none."""
    return max((n for n, d in enumerate(done) if d.startswith(beginnings)), default=-1)


def _order(done: Sequence[str]) -> str:
    taken = done and done[-1].startswith("ledger Queue.take_over")
    return "crash: taken over by an order, not written" if taken else ""


def _pull(done: Sequence[str]) -> str:
    if of_order := _order(done):
        return of_order
    consumed, letter = _last(done, "kafka consume"), _last(done, "kafka dead letter")
    stored, committed = _last(done, "ledger Arrivals.store"), _last(done, "kafka commit")
    if any(d.startswith("ledger Queue.claim") and "#" in d for d in done):
        return "crash: claimed, no slices handed on"
    if letter > stored:
        return "crash: a dead letter, not its message"
    if consumed > stored:
        return "crash: nothing of a message"
    if stored > max(committed, 0):
        return "crash: events and offset, not committed to Kafka"
    return "crash: accepted, not claimed" if stored >= 0 else ""


def _lookup(done: Sequence[str]) -> str:
    return (
        "crash: verdict, or part of the plan"
        if _last(done, "ledger Events.decide", "ledger Changes.plan") >= 0
        else ""
    )


def _update(done: Sequence[str]) -> str:
    image, settled = _last(done, "ledger Changes.record"), _last(done, "ledger Changes.settle_images")
    row = max((n for n, d in enumerate(done) if d.startswith("rows b") and d.endswith("applied")), default=-1)
    if row > settled:
        return "crash: row changed, image without outcome"
    if image > settled:
        return "crash: image, row not changed"
    return "crash: rows changed, documents not" if settled >= 0 else ""


def _reindex(done: Sequence[str]) -> str:
    if _last(done, "ledger Events.complete") >= 0:
        return "crash: a phase committed, claims not released"
    return "crash: documents changed, not committed" if _last(done, "index write") >= 0 else ""


def _settle(_: Sequence[str]) -> str:
    return "crash: a phase committed, claims not released"


_CRASHES = {
    "pull": _pull,
    "lookup": _lookup,
    "update": _update,
    "reindex": _reindex,
    "settle": _settle,
    "decide": _order,
}
"""By task, which line of the table a death in it belongs to, by the calls that took effect."""
