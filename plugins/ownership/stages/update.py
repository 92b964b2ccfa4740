"""`update_course_batches`: the rows, by compare-and-set, each change's image written before it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from more_itertools import chunked

from ownership.domain.clock import now
from ownership.domain.contracts import Work
from ownership.domain.errors import TakenOver, Transient
from ownership.domain.plan import BatchId, Row
from ownership.domain.states import ChangeOutcome, EventState
from ownership.ledger.changes import Image, new_image
from ownership.stages.claimed_work import ClaimedWork, load
from ownership.stages.parts import Parts

ROWS_PER_WAVE = 1000
"""Rows between two checks of the claim."""
ROUNDS = 8
"""Tries of a row that other writers keep editing."""


def update_course_batches(parts: Parts, work: Work) -> Work:
    """Move every planned row that still names a source.

    :raises Transient: if a row is edited faster than it can be moved, or Cassandra is unavailable.
    :raises TakenOver: if the claim is lost.
    """
    if not work.phases:
        return work
    claimed = load(parts, work)
    mids = claimed.mids_with_plans(claimed.book.phases)
    settle_undecided(parts, parts.changes.undecided(mids))
    ids = sorted(parts.changes.batches(mids))
    moved = _move_in_waves(parts, claimed, ids)
    held = claimed.book.held
    parts.events.note(held, state=EventState.APPLIED, applied_at=now())
    return work.step(
        claimed.book.phases,
        events={"applied": len(held)},
        batches={"moved": moved, "unchanged": len(ids) - moved},
    )


class _Wave(NamedTuple):
    """Rows that are to be changed, with their images, which are in the ledger."""

    changes: list[tuple[Row, Row]]
    images: list[Image]


def _move_in_waves(parts: Parts, claimed: ClaimedWork, ids: Sequence[BatchId]) -> int:
    """`move` for many rows. While Cassandra works on one wave, the images of the next are written."""
    moved = 0
    under_way: tuple[_Wave, list[int], Future[list[bool]]] | None = None
    with ThreadPoolExecutor(1) as pool:  # at its end it waits for the wave under way, also after an exception
        for part in chunked(ids, ROWS_PER_WAVE):
            try:
                wave = _recorded(parts, claimed, part)
            except BaseException:
                if under_way:
                    _finish(parts, claimed, *under_way)
                raise
            if under_way:
                moved += _finish(parts, claimed, *under_way)
                under_way = None
            if wave:
                wanted = _still_wanted(parts, claimed, wave)
                changes = [wave.changes[n] for n in wanted]
                under_way = wave, wanted, pool.submit(parts.rows.compare_and_set, changes, alone=False)
        return moved + _finish(parts, claimed, *under_way) if under_way else moved


def _finish(
    parts: Parts, claimed: ClaimedWork, wave: _Wave, wanted: list[int], applied: Future[list[bool]]
) -> int:
    """Wait for a wave, record its outcomes, and try its refused rows again. Returns how many rows changed."""
    moved, refused = _settle_wave(parts, claimed, wave, dict(zip(wanted, applied.result(), strict=True)))
    return moved + (move(parts, claimed, refused, alone=True) if refused else 0)


def move(parts: Parts, claimed: ClaimedWork, ids: Collection[BatchId], *, alone: bool = False) -> int:
    """Change the rows of `ids` that name a source; each `alone` if they were refused before.

    The fence stands before each wave: only the holder of the claim writes. Returns how many rows changed.

    :raises Transient: if other writers edit a row faster than it can be moved.
    """
    todo, moved = list(ids), 0
    for _ in range(ROUNDS):
        wave = _recorded(parts, claimed, todo)
        if wave is None:
            return moved
        wanted = _still_wanted(parts, claimed, wave)
        applied = parts.rows.compare_and_set([wave.changes[n] for n in wanted], alone=alone)
        more, todo = _settle_wave(parts, claimed, wave, dict(zip(wanted, applied, strict=True)))
        moved, alone = moved + more, True
        if not todo:
            return moved
    raise Transient(
        f"batch {todo[0].batch_id} of course {todo[0].course_id} is edited faster than it can be moved"
    )


def _recorded(parts: Parts, claimed: ClaimedWork, ids: Collection[BatchId]) -> _Wave | None:
    """Read rows and write the images of those that are to be changed; None if there is none."""
    claimed.fence()
    rows = parts.rows.read(ids)
    changes = [(row, after) for row in rows.values() if (after := claimed.book.apply(row)) != row]
    if not changes:
        return None
    images = [_image(claimed, before, after) for before, after in changes]
    parts.changes.record(images)
    return _Wave(changes, images)


def _still_wanted(parts: Parts, claimed: ClaimedWork, wave: _Wave) -> list[int]:
    """The fence between images and rows: the numbers of the changes that the run may still make."""
    phases = len(claimed.book.phases)
    try:
        claimed.fence()
    except TakenOver:
        parts.changes.settle_images([(i, ChangeOutcome.REFUSED) for i in wave.images])
        raise
    if len(claimed.book.phases) == phases:
        return list(range(len(wave.changes)))
    return [n for n, (before, after) in enumerate(wave.changes) if claimed.book.apply(before) == after]


def _settle_wave(
    parts: Parts, claimed: ClaimedWork, wave: _Wave, applied: Mapping[int, bool]
) -> tuple[int, list[BatchId]]:
    """Record the outcomes of a wave's images. Returns how many rows changed, and which were refused."""
    outcomes = [
        (image, ChangeOutcome.APPLIED if applied.get(n) else ChangeOutcome.REFUSED)
        for n, image in enumerate(wave.images)
    ]
    _settle_images(parts, claimed, outcomes)
    refused = [image.id for image, outcome in outcomes if outcome != ChangeOutcome.APPLIED]
    return len(outcomes) - len(refused), refused


def settle_undecided(parts: Parts, images: Sequence[Image]) -> None:
    """Give images that an earlier try left without an outcome the outcome that their row shows now.

    `images`: all images of the batches concerned.
    """
    undecided = [i for i in images if i.outcome is None]
    if not undecided:
        return
    rows = parts.rows.read({i.id for i in undecided})
    applied = {(i.id, i.before.owners, i.after.owners) for i in images if i.outcome == ChangeOutcome.APPLIED}
    parts.changes.settle_images(
        [
            (i, _outcome_of(i, rows.get(i.id), repeated=(i.id, i.before.owners, i.after.owners) in applied))
            for i in undecided
        ]
    )


def _outcome_of(image: Image, row: Row | None, *, repeated: bool) -> ChangeOutcome:
    """What became of a change, by the row as it is now; `repeated`: the same change was applied by another try."""
    if repeated or (row is not None and row.owners == image.before.owners):
        return ChangeOutcome.SUPERSEDED
    if row is not None and row.owners == image.after.owners:
        return ChangeOutcome.APPLIED
    return ChangeOutcome.IN_DOUBT


def _image(claimed: ClaimedWork, before: Row, after: Row) -> Image:
    hops = claimed.book.hops(before, after)
    return new_image(before.id, claimed.book.fencing_token(hops[-1].mid), before, after, hops)


def _settle_images(parts: Parts, claimed: ClaimedWork, outcomes: list[tuple[Image, ChangeOutcome]]) -> None:
    """Write the outcomes. A refusal after a time-out may be our own success: the row tells.

    If the claim was lost while the rows were written, the writes that applied are marked late: a
    successor may have built on the row before them. The second proof looks at them.
    """
    refused = {image.id for image, outcome in outcomes if outcome == ChangeOutcome.REFUSED}
    rows = parts.rows.read(refused) if refused else {}
    for n, (image, outcome) in enumerate(outcomes):
        row = rows.get(image.id)
        if outcome == ChangeOutcome.REFUSED and row is not None and row.owners == image.after.owners:
            outcomes[n] = (image, ChangeOutcome.APPLIED)
    try:
        claimed.fence()
    except TakenOver:
        parts.changes.settle_images(
            [(i, ChangeOutcome.LATE if o == ChangeOutcome.APPLIED else o) for i, o in outcomes]
        )
        raise
    parts.changes.settle_images(outcomes)
