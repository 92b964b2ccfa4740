"""Rows whose value no write can change yet. Pure.

Of two values Cassandra keeps the one with the later write time, whichever came last. A value that was written by a
clock that is ahead, or with a time in nanoseconds, stays: a compare-and-set is answered with *applied* and changes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import NamedTuple

from ownership.domain.clock import from_ms
from ownership.domain.plan import BatchId, Row

MAX_NAMED = 3
"""Batches that a sentence names."""
_YEAR_US = 31_556_952_000_000


class Unwritable(NamedTuple):
    """A row that keeps its value for now."""

    id: BatchId
    until_us: int | None
    """When its creator can be overwritten, epoch µs. None for mentors: a list does not tell its write time."""


def is_partly_changed(row: Row, before: Row, after: Row) -> bool:
    """True if a change took effect in one of the two owner fields only, or in some elements of the list."""
    longest = max(len(before.mentors), len(after.mentors))
    mentors = zip_longest(row.mentors, before.mentors, after.mentors)
    return (
        row.owners not in (before.owners, after.owners)
        and row.created_by in (before.created_by, after.created_by)
        and (
            row.mentors in (before.mentors, after.mentors)
            or (len(row.mentors) == longest and all(now in (was, then) for now, was, then in mentors))
        )
    )


def sentence(rows: Iterable[Unwritable]) -> str:
    """Which batches keep their value until when, the first few."""
    ordered = sorted(rows)
    named = "; ".join(map(_text, ordered[:MAX_NAMED]))
    more = f"; and {len(ordered) - MAX_NAMED} more" if len(ordered) > MAX_NAMED else ""
    return f"written by a clock that is ahead: {named}{more}"


def _text(row: Unwritable) -> str:
    field = "mentors" if row.until_us is None else "creator"
    until = "yet" if row.until_us is None else f"before {_moment(row.until_us)}"
    return (
        f"the {field} of batch {row.id.batch_id} of course {row.id.course_id} cannot be overwritten {until}"
    )


def _moment(at_us: int) -> str:
    try:
        return f"{from_ms(at_us // 1000):%Y-%m-%d %H:%M:%S} UTC"
    except OverflowError:
        return f"the year {1970 + at_us // _YEAR_US}"
