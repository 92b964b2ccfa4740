"""`update_course_batches`: the rows, by compare-and-set, each change's image written before it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ownership.chunks import chunks
from ownership.clock import now
from ownership.contracts import Work
from ownership.errors import TakenOver, Transient
from ownership.ledger.changes import APPLIED, IN_DOUBT, LATE, REFUSED, SUPERSEDED, Image, new_image
from ownership.parts import Parts
from ownership.plan import BatchId, Row
from ownership.stages.working import Working
from ownership.states import APPLIED as STATE_APPLIED

ROWS_PER_WAVE = 500
"""Rows between two looks at the claim."""
ROUNDS = 8
"""Tries of a row that others keep editing."""


def update_course_batches(parts: Parts, work: Work) -> Work:
    """Move every planned row that still names a source.

    :raises Transient: if a row is edited faster than it can be moved, or Cassandra is unavailable.
    :raises TakenOver: if the claim is lost.
    """
    if not work.phases:
        return work
    working = Working(parts, work)
    found: set[BatchId] = set()
    for planned, images in working.audited(working.phases):
        judge(parts, images)
        found |= {p.id for p in planned}
    ids = sorted(found)
    moved = 0
    for wave in chunks(ids, ROWS_PER_WAVE):
        moved += move(working, wave)
    parts.events.note(working.held, state=STATE_APPLIED, applied_at=now())
    return work.step(
        working.phases,
        events={"applied": len(working.held)},
        batches={"moved": moved, "unchanged": len(ids) - moved},
    )


def move(working: Working, ids: Collection[BatchId]) -> int:
    """Change the rows of `ids` that name a source. Returns how many rows changed.

    The fence stands before each wave: whatever is written is written by the holder.
    """
    parts, todo, moved = working.parts, list(ids), 0
    for attempt in range(ROUNDS):
        working.fence()
        rows = parts.rows.read(todo)
        changes = [(row, after) for row in rows.values() if (after := working.after(row)) != row]
        if not changes:
            return moved
        images = [_image(working, before, after) for before, after in changes]
        parts.changes.record(images)
        try:
            working.fence()
        except TakenOver:
            parts.changes.settle_images([(i, REFUSED) for i in images])
            raise
        still = [n for n, (before, after) in enumerate(changes) if working.after(before) == after]
        applied = dict(
            zip(still, parts.rows.swap([changes[n] for n in still], alone=attempt > 0), strict=True)
        )
        outcomes = [(image, APPLIED if applied.get(n) else REFUSED) for n, image in enumerate(images)]
        _settle(working, outcomes)
        moved += sum(outcome == APPLIED for _, outcome in outcomes)
        todo = [image.id for image, outcome in outcomes if outcome != APPLIED]
        if not todo:
            return moved
    raise Transient(
        f"batch {todo[0].batch_id} of course {todo[0].course_id} is edited faster than it can be moved"
    )


def judge(parts: Parts, images: Sequence[Image]) -> list[Image]:
    """Settle images that another try left without an outcome, by the row as it is now."""
    open_ = [i for i in images if i.outcome is None]
    if not open_:
        return list(images)
    rows = parts.rows.read({i.id for i in open_})
    judged: dict[int, str] = {}
    for image in open_:
        row = rows.get(image.id)
        twin = any(
            i is not image
            and i.outcome == APPLIED
            and (i.id, i.before.owners, i.after.owners) == (image.id, image.before.owners, image.after.owners)
            for i in images
        )
        judged[id(image)] = _verdict(image, row, twin=twin)
    parts.changes.settle_images([(i, judged[id(i)]) for i in open_])
    return [i._replace(outcome=judged.get(id(i), i.outcome)) for i in images]


def _verdict(image: Image, row: Row | None, *, twin: bool) -> str:
    if twin or (row is not None and row.owners == image.before.owners):
        return SUPERSEDED
    return APPLIED if row is not None and row.owners == image.after.owners else IN_DOUBT


def _image(working: Working, before: Row, after: Row) -> Image:
    steps = working.steps(before, after)
    return new_image(before.id, working.token(steps[-1].mid), before, after, steps)


def _settle(working: Working, outcomes: list[tuple[Image, str]]) -> None:
    """Write the outcomes. A refusal after a time-out may be our own success: the row tells.

    If the claim was lost while the rows were written, the writes that applied are marked late: a
    successor may have built on the row before them. The second proof looks at them.
    """
    parts = working.parts
    refused = {image.id for image, outcome in outcomes if outcome == REFUSED}
    rows = parts.rows.read(refused) if refused else {}
    for n, (image, outcome) in enumerate(outcomes):
        row = rows.get(image.id)
        if outcome == REFUSED and row is not None and row.owners == image.after.owners:
            outcomes[n] = (image, APPLIED)
    try:
        working.fence()
    except TakenOver:
        parts.changes.settle_images([(i, LATE if outcome == APPLIED else outcome) for i, outcome in outcomes])
        raise
    parts.changes.settle_images(outcomes)
