"""`update_course_batches`: the rows, by compare-and-set, each change's image written before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from ownership.domain.chunks import chunks
from ownership.domain.clock import now
from ownership.domain.contracts import Work
from ownership.domain.errors import TakenOver, Transient
from ownership.domain.plan import BatchId, Row
from ownership.domain.states import ChangeOutcome, EventState
from ownership.ledger.changes import Image, new_image
from ownership.stages.parts import Parts
from ownership.stages.working import Working

ROWS_PER_WAVE = 1000
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
    mids = working.concerned_mids(working.phases)
    judge(parts, parts.changes.undecided(mids))
    ids = sorted(parts.changes.batches(mids))
    moved = _move_in_waves(working, ids)
    parts.events.note(working.held, state=EventState.APPLIED, applied_at=now())
    return work.step(
        working.phases,
        events={"applied": len(working.held)},
        batches={"moved": moved, "unchanged": len(ids) - moved},
    )


class _Wave(NamedTuple):
    """Rows that are to be changed, with their images, which are in the ledger."""

    changes: list[tuple[Row, Row]]
    images: list[Image]


def _move_in_waves(working: Working, ids: Sequence[BatchId]) -> int:
    """`move` for many rows. While Cassandra works on one wave, the images of the next are written."""
    moved = 0
    under_way: tuple[_Wave, list[int], Future[list[bool]]] | None = None
    with ThreadPoolExecutor(1) as pool:  # whatever happens, it waits for the wave that is under way
        for part in chunks(ids, ROWS_PER_WAVE):
            try:
                wave = _recorded(working, part)
            except BaseException:
                if under_way:
                    _ended(working, *under_way)
                raise
            if under_way:
                moved += _ended(working, *under_way)
                under_way = None
            if wave:
                still = _still_wanted(working, wave)
                swapped = pool.submit(
                    working.parts.rows.compare_and_set, [wave.changes[n] for n in still], alone=False
                )
                under_way = wave, still, swapped
        return moved + _ended(working, *under_way) if under_way else moved


def _ended(working: Working, wave: _Wave, still: list[int], swapped: Future[list[bool]]) -> int:
    """Record how a wave ended, and try its refused rows again. Returns how many rows changed."""
    moved, refused = _settled(working, wave, dict(zip(still, swapped.result(), strict=True)))
    return moved + (move(working, refused, alone=True) if refused else 0)


def move(working: Working, ids: Collection[BatchId], *, alone: bool = False) -> int:
    """Change the rows of `ids` that name a source; each `alone` if they were refused before.

    The fence stands before each wave: whatever is written is written by the holder. Returns how many rows changed.
    """
    todo, moved = list(ids), 0
    for _ in range(ROUNDS):
        wave = _recorded(working, todo)
        if wave is None:
            return moved
        still = _still_wanted(working, wave)
        swapped = working.parts.rows.compare_and_set([wave.changes[n] for n in still], alone=alone)
        more, todo = _settled(working, wave, dict(zip(still, swapped, strict=True)))
        moved, alone = moved + more, True
        if not todo:
            return moved
    raise Transient(
        f"batch {todo[0].batch_id} of course {todo[0].course_id} is edited faster than it can be moved"
    )


def _recorded(working: Working, ids: Sequence[BatchId]) -> _Wave | None:
    """Read rows and write the images of those that are to be changed; None if there is none."""
    working.fence()
    rows = working.parts.rows.read(ids)
    changes = [(row, after) for row in rows.values() if (after := working.after(row)) != row]
    if not changes:
        return None
    images = [_image(working, before, after) for before, after in changes]
    working.parts.changes.record(images)
    return _Wave(changes, images)


def _still_wanted(working: Working, wave: _Wave) -> list[int]:
    """The fence between images and rows: the numbers of the changes that are still the run's to make."""
    held = working.phases
    try:
        working.fence()
    except TakenOver:
        working.parts.changes.settle_images([(i, ChangeOutcome.REFUSED) for i in wave.images])
        raise
    if working.phases is held:
        return list(range(len(wave.changes)))
    return [n for n, (before, after) in enumerate(wave.changes) if working.after(before) == after]


def _settled(working: Working, wave: _Wave, applied: Mapping[int, bool]) -> tuple[int, list[BatchId]]:
    """Write what became of a wave's images. Returns how many rows changed, and which were refused."""
    outcomes = [
        (image, ChangeOutcome.APPLIED if applied.get(n) else ChangeOutcome.REFUSED)
        for n, image in enumerate(wave.images)
    ]
    _settle(working, outcomes)
    refused = [image.id for image, outcome in outcomes if outcome != ChangeOutcome.APPLIED]
    return len(outcomes) - len(refused), refused


def judge(parts: Parts, images: Sequence[Image]) -> None:
    """Settle images that another try left without an outcome, by the row as it is now.

    `images`: all images of the batches concerned.
    """
    open_ = [i for i in images if i.outcome is None]
    if not open_:
        return
    rows = parts.rows.read({i.id for i in open_})
    applied = Counter(
        (i.id, i.before.owners, i.after.owners) for i in images if i.outcome == ChangeOutcome.APPLIED
    )
    parts.changes.settle_images(
        [
            (i, _verdict(i, rows.get(i.id), twin=(i.id, i.before.owners, i.after.owners) in applied))
            for i in open_
        ]
    )


def _verdict(image: Image, row: Row | None, *, twin: bool) -> ChangeOutcome:
    if twin or (row is not None and row.owners == image.before.owners):
        return ChangeOutcome.SUPERSEDED
    return (
        ChangeOutcome.APPLIED
        if row is not None and row.owners == image.after.owners
        else ChangeOutcome.IN_DOUBT
    )


def _image(working: Working, before: Row, after: Row) -> Image:
    steps = working.steps(before, after)
    return new_image(before.id, working.token(steps[-1].mid), before, after, steps)


def _settle(working: Working, outcomes: list[tuple[Image, ChangeOutcome]]) -> None:
    """Write the outcomes. A refusal after a time-out may be our own success: the row tells.

    If the claim was lost while the rows were written, the writes that applied are marked late: a
    successor may have built on the row before them. The second proof looks at them.
    """
    parts = working.parts
    refused = {image.id for image, outcome in outcomes if outcome == ChangeOutcome.REFUSED}
    rows = parts.rows.read(refused) if refused else {}
    for n, (image, outcome) in enumerate(outcomes):
        row = rows.get(image.id)
        if outcome == ChangeOutcome.REFUSED and row is not None and row.owners == image.after.owners:
            outcomes[n] = (image, ChangeOutcome.APPLIED)
    try:
        working.fence()
    except TakenOver:
        parts.changes.settle_images(
            [
                (i, ChangeOutcome.LATE if outcome == ChangeOutcome.APPLIED else outcome)
                for i, outcome in outcomes
            ]
        )
        raise
    parts.changes.settle_images(outcomes)
