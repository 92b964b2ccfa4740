"""`update_course_batches`: the rows, by compare-and-set, each change's image written before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple
from uuid import UUID

from more_itertools import chunked

from ownership.domain.clock import now, now_ms
from ownership.domain.contracts import Work
from ownership.domain.errors import TakenOver, Transient
from ownership.domain.plan import BatchId, Hop, Row
from ownership.domain.states import MADE, ChangeOutcome, EventState
from ownership.domain.unwritable import Unwritable, is_partly_changed
from ownership.ledger.changes import Image, new_image
from ownership.stages.claimed_work import ClaimedWork, load
from ownership.stages.parts import Parts

ROWS_PER_WAVE = 1000
"""Rows between two checks of the claim."""
COURSES_PER_CHECK = 64
"""Courses that are decided between two checks of the claim."""
ROUNDS = 8
"""Tries of a row that other writers keep editing."""
CLOCK_SKEW_US = 1_000_000
"""How far the clocks of this worker and of Cassandra may differ."""


def update_course_batches(parts: Parts, work: Work) -> Work:
    """Move every planned row that still names a source.

    Rows that no write can change yet are left to the next stage, which waits for them or names them.

    :raises Transient: if a row is edited faster than it can be moved, or Cassandra is unavailable.
    :raises TakenOver: if the claim is lost.
    """
    claimed = load(parts, work)
    if not claimed.book.phases:
        return work.step((), events={})
    mids = claimed.mids_with_plans(claimed.book.phases)
    settle_undecided(parts, mids, claimed.claim.keep_alive, claimed.book.fencing_tokens)
    ids = sorted(parts.changes.batches(mids))
    moved = _move_in_waves(parts, claimed, ids)
    held = claimed.book.held
    parts.events.note(held, state=EventState.APPLIED, applied_at=now())
    return work.step(
        claimed.book.phases,
        events={"applied": len(held)},
        batches={"moved": moved, "unchanged": len(ids) - moved},
    )


class Moved(NamedTuple):
    """What became of rows that were to be changed."""

    rows: int
    """How many changed."""
    unwritable: list[Unwritable]
    """Rows that keep their value for now."""


class _Wave(NamedTuple):
    """Rows that are to be changed: their images, which are in the ledger."""

    images: list[Image]
    to_verify: set[BatchId]
    """Rows that may keep their value although the answer is *applied*."""
    unwritable: list[Unwritable]
    """Rows of which it is known beforehand: nothing is written."""


class _UnderWay(NamedTuple):
    """A wave that Cassandra works on."""

    wave: _Wave
    wanted: Sequence[Image]
    """Those of its images whose changes are made."""
    applied: Future[list[bool | None]]


def _move_in_waves(parts: Parts, claimed: ClaimedWork, ids: Sequence[BatchId]) -> int:
    """`move` for many rows. While Cassandra works on one wave, the job writes what it knows of its neighbours.

    Those are the outcomes of the wave before, and the images of the next one.
    """
    moved = 0
    under_way: deque[_UnderWay] = deque()
    with ThreadPoolExecutor(1) as pool:
        try:
            for part in chunked(ids, ROWS_PER_WAVE):
                wave = _recorded(parts, claimed, part)
                wait([before.applied for before in under_way])
                if wave.images:
                    wanted = _still_wanted(parts, claimed, wave)
                    changes = [(i.before, i.after) for i in wanted]
                    applied = pool.submit(parts.rows.compare_and_set, changes, alone=False)
                    under_way.append(_UnderWay(wave, wanted, applied))
                while len(under_way) > (1 if wave.images else 0):
                    moved += _finish(parts, claimed, under_way.popleft())
        finally:
            moved += _finish_all(parts, claimed, under_way)
    return moved


def _finish_all(parts: Parts, claimed: ClaimedWork, under_way: deque[_UnderWay]) -> int:
    """Finish waves, the oldest first. What one of them raises keeps no later one from recording its outcomes."""
    if not under_way:
        return 0
    try:
        moved = _finish(parts, claimed, under_way.popleft())
    finally:
        later = _finish_all(parts, claimed, under_way)
    return moved + later


def _finish(parts: Parts, claimed: ClaimedWork, under_way: _UnderWay) -> int:
    """Wait for a wave, record its outcomes, and try its refused rows again. Returns how many rows changed."""
    wave, wanted, applied = under_way
    moved, refused = _settle_wave(parts, claimed, wave, wanted, applied.result())
    return moved.rows + (move(parts, claimed, refused, alone=True).rows if refused else 0)


def move(parts: Parts, claimed: ClaimedWork, ids: Collection[BatchId], *, alone: bool = False) -> Moved:
    """Change the rows of `ids` that name a source; each `alone` if they were refused before.

    The fence stands before each wave: only the holder of the claim writes.

    :raises Transient: if other writers edit a row faster than it can be moved.
    """
    todo, rows = list(ids), 0
    unwritable: list[Unwritable] = []
    for _ in range(ROUNDS):
        wave = _recorded(parts, claimed, todo)
        unwritable += wave.unwritable
        if not wave.images:
            return Moved(rows, unwritable)
        wanted = _still_wanted(parts, claimed, wave)
        applied = parts.rows.compare_and_set([(i.before, i.after) for i in wanted], alone=alone)
        moved, todo = _settle_wave(parts, claimed, wave, wanted, applied)
        rows += moved.rows
        unwritable += moved.unwritable
        if not todo:
            return Moved(rows, unwritable)
        alone = True
    raise Transient(
        f"batch {todo[0].batch_id} of course {todo[0].course_id} is edited faster than it can be moved"
    )


def _recorded(parts: Parts, claimed: ClaimedWork, ids: Collection[BatchId]) -> _Wave:
    """Read rows and write the images of those that are to be changed."""
    claimed.fence()
    wave = _Wave([], set(), [])
    now_us = now_ms() * 1000
    for row, written_us in parts.rows.read_timed(ids).values():
        after = claimed.book.apply(row)
        if after == row:
            continue
        new_creator = after.created_by != row.created_by
        if new_creator and written_us > now_us:
            wave.unwritable.append(Unwritable(row.id, written_us))
            continue
        if after.mentors != row.mentors or (new_creator and written_us > now_us - CLOCK_SKEW_US):
            wave.to_verify.add(row.id)
        hops = claimed.book.hops(row, after)
        token = claimed.book.fencing_tokens[hops[-1].mid]
        wave.images.append(new_image(row.id, token, row, after, hops))
    parts.changes.record(wave.images)
    return wave


def _still_wanted(parts: Parts, claimed: ClaimedWork, wave: _Wave) -> Sequence[Image]:
    """The fence between images and rows: the changes that the run may still make."""
    phases = len(claimed.book.phases)
    try:
        claimed.fence()
    except TakenOver:
        parts.changes.settle_images([(i, ChangeOutcome.REFUSED) for i in wave.images])
        raise
    if len(claimed.book.phases) == phases:
        return wave.images
    return [i for i in wave.images if claimed.book.apply(i.before) == i.after]


def _settle_wave(
    parts: Parts, claimed: ClaimedWork, wave: _Wave, wanted: Sequence[Image], applied: Sequence[bool | None]
) -> tuple[Moved, list[BatchId]]:
    """Record the outcomes of a wave's images, by the answers and, where these do not tell, by the rows.

    `applied` are the answers for `wanted`; of the other images no change was made. Returns what became of the rows, and
    which were refused.

    A refusal after a time-out may be our own success, unless an earlier try has counted the change. Without a time-out it
    is none, whatever the row shows: then another made it so, such as an earlier try that was frozen. And a value with a
    write time in the future stays although the answer is *applied*: what is recorded then is what changed.
    """
    answers: dict[BatchId, bool | None] = {i.id: False for i in wave.images}
    answers |= {i.id: answer for i, answer in zip(wanted, applied, strict=True)}
    unanswered = {i for i, answer in answers.items() if answer is None}
    to_read = unanswered | wave.to_verify
    rows = parts.rows.read_timed(to_read) if to_read else {}
    counted = _counted(parts, [i for i in wave.images if i.id in unanswered])
    outcomes: list[tuple[Image, ChangeOutcome]] = []
    again: list[BatchId] = []
    unwritable: list[Unwritable] = []
    partly: list[Image] = []
    for image in wave.images:
        row, written_us = rows.get(image.id) or (None, 0)
        outcome = ChangeOutcome.APPLIED
        if image.id in unanswered:
            outcome = _outcome_of(image, row, repeated=image.uuid in counted)
            if row is None or row.owners != image.after.owners:
                again.append(image.id)
        elif not answers[image.id]:
            outcome = ChangeOutcome.REFUSED
            again.append(image.id)
        elif row is not None and _kept(row, image):
            outcome = ChangeOutcome.REFUSED
            creator_kept = row.created_by != image.after.created_by
            unwritable.append(Unwritable(image.id, written_us if creator_kept else None))
            if row.owners != image.before.owners:
                partly.append(_image_of(image, row))
        outcomes.append((image, outcome))
    parts.changes.record(partly)
    settled = [*outcomes, *((image, ChangeOutcome.APPLIED) for image in partly)]
    _settle_images(parts, claimed, settled, unanswered)
    return Moved(len(outcomes) - len(again) - len(unwritable), unwritable), again


def _kept(row: Row, image: Image) -> bool:
    """True if a change that was answered with *applied* left the row, or one of its owner fields, as it was."""
    before, after = image.before, image.after
    return row.owners != after.owners and (
        row.owners == before.owners or is_partly_changed(row, before, after)
    )


def settle_undecided(
    parts: Parts,
    mids: Collection[str],
    keep_alive: Callable[[], None] = lambda: None,
    tokens: Mapping[str, int] | None = None,
) -> None:
    """Give images of events that an earlier try left without an outcome the outcome that their row shows now.

    Before that, what Cassandra had accepted and not answered is made or ruled out; `keep_alive` is called meanwhile.
    An outcome that another try has written meanwhile stays. With `tokens`, the caller's fencing tokens by mid, a newer
    try's images are left alone: a caller that was frozen would judge them before their changes are made.
    """
    images = parts.changes.undecided(mids)
    newest = tokens or {}
    earlier = [i for i in images if i.fencing_token <= newest.get(i.hops[-1].mid, i.fencing_token)]
    _count_what_woke(parts, [i for i in earlier if i.outcome == ChangeOutcome.SUPERSEDED])
    undecided = [i for i in earlier if i.outcome is None]
    if not undecided:
        return
    for courses in chunked(sorted({i.id.course_id for i in undecided}), COURSES_PER_CHECK):
        keep_alive()
        parts.rows.decide(courses)
    rows = parts.rows.read({i.id for i in undecided})
    made = _changes_made(images)
    outcomes = []
    for i in undecided:
        change = _change_of(i)
        outcomes.append((i, _outcome_of(i, rows.get(i.id), repeated=change in made)))
        if outcomes[-1][1] in MADE:
            made.add(change)
    parts.changes.settle_images(outcomes, stay=tuple(ChangeOutcome))


def _count_what_woke(parts: Parts, superseded: Collection[Image]) -> None:
    """Count changes of tries that were frozen while they were judged, made their change then, and died.

    The row shows such a change, and nothing else explains it: neither the same change of another image nor any later
    one.
    """
    if not superseded:
        return
    rows = parts.rows.read({i.id for i in superseded})
    seen = [i for i in superseded if i.id in rows and rows[i.id].owners == i.after.owners]
    shown = {_change_of(i): i for i in seen}
    # Read after the rows: each change was preceded by its image.
    images = parts.changes.of_batches({i.id for i in seen})
    place = {i.uuid: n for n, i in enumerate(images)}
    may_explain = [i for i in images if i.outcome not in (ChangeOutcome.REFUSED, ChangeOutcome.SUPERSEDED)]
    changes, last = set(map(_change_of, may_explain)), {i.id: place[i.uuid] for i in may_explain}
    woke = [i for change, i in shown.items() if change not in changes and last.get(i.id, -1) < place[i.uuid]]
    stay = tuple({*ChangeOutcome} - {ChangeOutcome.SUPERSEDED})
    parts.changes.settle_images([(i, ChangeOutcome.APPLIED) for i in woke], stay=stay)


def _outcome_of(image: Image, row: Row | None, *, repeated: bool) -> ChangeOutcome:
    """What became of a change, by the row as it is now; `repeated`: another try made the same change."""
    if repeated or (row is not None and row.owners == image.before.owners):
        return ChangeOutcome.SUPERSEDED
    if row is not None and row.owners == image.after.owners:
        return ChangeOutcome.APPLIED
    return ChangeOutcome.IN_DOUBT


def _change_of(image: Image) -> tuple[object, ...]:
    """What the tries of one change have in common. Another event may make the same one, after an undo."""
    return image.id, image.hops[-1].mid, image.before.owners, image.after.owners


def _counted(parts: Parts, images: Sequence[Image]) -> set[UUID]:
    """Those of the images whose change an earlier try has counted: it could not tell its own from ours by the row.

    What a later try has counted it made itself, after the row was changed back.
    """
    first: dict[tuple[object, ...], int] = {}
    for i in parts.changes.of_batches({i.id for i in images}):
        if i.outcome in MADE:
            first.setdefault(_change_of(i), i.fencing_token)
    return {i.uuid for i in images if first.get(_change_of(i), i.fencing_token) < i.fencing_token}


def _changes_made(images: Iterable[Image]) -> set[tuple[object, ...]]:
    return {_change_of(i) for i in images if i.outcome in MADE}


def _image_of(image: Image, row: Row) -> Image:
    """What changed in truth, where a change took effect in part: the share of the image's last event."""
    hop = Hop(image.hops[-1].mid, image.before, row)
    return new_image(image.id, image.fencing_token, image.before, row, [hop])


def _settle_images(
    parts: Parts,
    claimed: ClaimedWork,
    outcomes: Sequence[tuple[Image, ChangeOutcome]],
    unanswered: Collection[BatchId],
) -> None:
    """Write the outcomes. `unanswered`: batches of which only the row tells what became of the change.

    What the fence still holds is written under its tokens: a process that freezes between the two writes nothing.

    Of events that were lost while the rows were written, the writes that applied are marked late: a successor may have
    built on the row before them. The second proof looks at them. What the successor has judged stays, where it counted
    the change as applied, by this image or an earlier try's, or the answer was a refusal. Where only the row tells, it
    is left to the successor.

    :raises TakenOver: if nothing is left of the claim.
    """
    taken_over: TakenOver | None = None
    try:
        claimed.fence()
    except TakenOver as e:
        taken_over = e
    held = {e.mid for e in claimed.book.held}
    mine: list[tuple[Image, ChangeOutcome]] = []
    late: list[Image] = []
    unmade: list[tuple[Image, ChangeOutcome]] = []
    for image, outcome in outcomes:
        if all(h.mid in held for h in image.hops):
            mine.append((image, outcome))
        elif outcome != ChangeOutcome.APPLIED:
            unmade.append((image, outcome))
        elif image.id not in unanswered:
            late.append(image)
    counted = _counted(parts, late)
    unmade += [(i, ChangeOutcome.SUPERSEDED) for i in late if i.uuid in counted]
    uncounted = [(i, ChangeOutcome.LATE) for i in late if i.uuid not in counted]
    parts.changes.settle_images(mine, tokens=claimed.book.fencing_tokens)
    parts.changes.settle_images(uncounted, stay=(ChangeOutcome.APPLIED,))
    parts.changes.settle_images(unmade, stay=tuple(ChangeOutcome))
    if taken_over:
        raise taken_over
