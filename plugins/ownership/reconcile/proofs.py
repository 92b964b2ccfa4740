"""What the ledger says of the last days: moves that nobody proved, and users who gave everything away.

The ledger lists events by the hour of their message, so the look is as long as the days are many, however old the
ledger is. An event of an earlier hour is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ownership.changes import APPLIED, IN_DOUBT, LATE, Image
from ownership.chunks import chunks
from ownership.cql import some_keys
from ownership.events import folded
from ownership.ledger import HOUR_MS
from ownership.options import Options
from ownership.parts import Parts, now_ms
from ownership.reconcile.compare import UNMOVED, UNPROVEN
from ownership.reconcile.pace import Pace
from ownership.reconcile.report import DIFFERENT, IN_FLIGHT, LEFT, Tally, sample
from ownership.schema import EVENT
from ownership.states import COMPLETED, OPEN_STATES, REJECTED

HOURS_AT_ONCE = 24
EVENTS_AT_ONCE = 50
ROWS_AT_ONCE = 5000
"""Audit rows, about, that are in memory at once: one partition, or those of some small events."""
MOST_SOURCES = 50_000
"""Old users that are known at once; the newest."""
UNDER_WAY_MS = HOUR_MS
"""As long as this after its message an open event is under way: its stages are tried again for an hour."""

__all__ = ["UNMOVED", "Gave", "sources", "unproven"]


class Outline(NamedTuple):
    """An event without its payload. Times in epoch ms."""

    mid: str
    state: str
    source: str
    options: Options
    buckets: int
    planned: int
    """Batches by its counts; 0 until it has any."""
    kafka_ms: int
    completed_ms: int


class Gave(NamedTuple):
    """A user's last transfer of everything."""

    completed_ms: int
    mid: str


def sources(parts: Parts, days: int) -> dict[str, Gave]:
    """By old user (folded), their last completed transfer of everything within the days, `MOST_SOURCES` at most."""
    found: dict[str, Gave] = {}
    for e in outlines(parts, days):
        if e.state != COMPLETED or not e.options.whole or not e.completed_ms:
            continue
        gave = Gave(e.completed_ms, e.mid)
        if e.source in found or len(found) < MOST_SOURCES:
            found[e.source] = max(gave, found.get(e.source, gave))
    return found


def unproven(parts: Parts, days: int, tally: Tally, pace: Pace) -> None:
    """Count batches that a transfer moved and that nobody proved.

    Of an event that is not completed: rows that are as its images left them. Of a completed one: images that are
    late, or without an outcome, where the row is as they left it, and images in doubt. What an event that is under
    way moved is in flight.
    """
    for events in _groups(e for e in outlines(parts, days) if e.buckets and e.state != REJECTED):
        _look(parts, events, tally, pace)


def _look(parts: Parts, events: Sequence[Outline], tally: Tally, pace: Pace) -> None:
    of = {e.mid: e for e in events}
    suspects: list[tuple[str, Image]] = []
    for buckets in {e.buckets for e in events}:
        mids = [e.mid for e in events if e.buckets == buckets]
        for _, images in parts.changes.read_by_bucket(mids, buckets):
            pace.take(len(images))
            suspects += [(at.mid, i) for i in images for at, _ in i.hops if _doubtful(of.get(at.mid), i)]
    if not suspects:
        return
    under_way = _under_way(parts, events)
    rows = parts.rows.read({i.id for _, i in suspects})
    # An event may have completed meanwhile, and proven what it moved.
    states = {e.mid: e.state for e in _read(parts, sorted({mid for mid, _ in suspects}))}
    seen = set()
    for mid, image in suspects:
        row = rows.get(image.id)
        stands = row is not None and (image.outcome == IN_DOUBT or row.owners == image.after.owners)
        if not stands or (mid, image.id) in seen:
            continue
        if of[mid].state != COMPLETED and states.get(mid) == COMPLETED:
            continue
        seen.add((mid, image.id))
        note = f"{mid} is {states.get(mid, of[mid].state)}, its image {image.outcome or 'without an outcome'}"
        if mid in under_way:
            tally.found(IN_FLIGHT, sample(IN_FLIGHT, row, None, note))
        else:
            tally.found(UNPROVEN, sample(UNPROVEN, row, None, note))
            tally.counts[DIFFERENT] += 1
            tally.counts[LEFT] += 1


def _doubtful(event: Outline | None, image: Image) -> bool:
    if event is None:  # a hop of an event of another group, which looks at it itself
        return False
    if event.state == COMPLETED:
        return image.outcome in (LATE, IN_DOUBT, None)
    return image.outcome in (APPLIED, LATE, IN_DOUBT, None)


def _under_way(parts: Parts, events: Iterable[Outline]) -> set[str]:
    """Open events that a run holds, or whose message is young."""
    now = now_ms()
    held = {r.transfer.mid for r in parts.open_list.read()[1] if r.holder and r.until_ms > now}
    young = {e.mid for e in events if e.state in OPEN_STATES and e.kafka_ms > now - UNDER_WAY_MS}
    return held | young


def outlines(parts: Parts, days: int) -> Iterator[Outline]:
    """The events of the last days, those of the newest hours first; some more hours may be there."""
    if days <= 0:
        return
    end = now_ms() // HOUR_MS + 1
    for first in range(end, end - days * 24, -HOURS_AT_ONCE):
        mids = parts.ledger.of_hours((first - HOURS_AT_ONCE) * HOUR_MS, first * HOUR_MS)
        for some in chunks(mids, 1000):
            yield from _read(parts, some)


def _read(parts: Parts, mids: Sequence[str]) -> list[Outline]:
    cql = (
        "SELECT mid, state, from_user, options, buckets, counts, kafka_ms, completed_at "
        f"FROM {parts.settings.ledger_keyspace}.{EVENT} WHERE mid IN ?"
    )
    wanted = some_keys(m for m in mids if not m.startswith("rejected:"))
    return [
        _outline(r) for rows in parts.cql.select_each(cql, wanted) for r in rows if r.from_user is not None
    ]


def _outline(r: Any) -> Outline:
    return Outline(
        r.mid,
        r.state,
        folded(r.from_user),
        Options.of(r.options),
        r.buckets or 0,
        sum(n for name, n in (r.counts or {}).items() if name != "rows"),
        r.kafka_ms or 0,
        _ms(r.completed_at),
    )


def _ms(at: datetime | None) -> int:
    return int(at.replace(tzinfo=UTC).timestamp() * 1000) if at else 0


def _groups(events: Iterable[Outline]) -> Iterator[list[Outline]]:
    """Events whose audit rows are few enough together. Of one without counts nobody knows: it is alone."""
    group: list[Outline] = []
    size = 0
    for e in events:
        rows = e.planned or ROWS_AT_ONCE
        if group and (size + rows > ROWS_AT_ONCE or len(group) == EVENTS_AT_ONCE):
            yield group
            group, size = [], 0
        group.append(e)
        size += rows
    if group:
        yield group
