"""Times, numbers, ids and states as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from ownership.domain.clock import from_ms
from ownership.domain.states import EventState
from ownership.domain.text import printable

STATE_NAMES: Final[Mapping[str, str]] = {state: state.replace("_", " ") for state in EventState}
"""A state as people read it."""


class Moment(NamedTuple):
    """A point in time: for machines, and for people (UTC)."""

    iso: str
    text: str


def moment(at: datetime | int | None) -> Moment | None:
    """A datetime or epoch ms; a time beyond the calendar is a question mark."""
    if at is None:
        return None
    try:
        value = (from_ms(at) if isinstance(at, int) else at).astimezone(UTC)
    except (OverflowError, OSError, ValueError):
        return Moment("", "?")
    return Moment(value.isoformat(timespec="milliseconds"), f"{value:%Y-%m-%d %H:%M:%S}")


def number(n: int) -> str:
    """With a separator of thousands."""
    return f"{n:,}"


def counted(n: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{number(n)} {one if n == 1 else many or one + 's'}"


def owner_lines(created_by: object, mentors: Iterable[object]) -> tuple[str, ...]:
    """Creator and mentors, a line each."""
    created = (f"created by {plain(created_by)}",) if created_by is not None else ()
    return (*created, *(f"mentor {plain(m)}" for m in mentors))


def plain(value: object) -> str:
    """What stands in a document, which may be anything, as a text that can be shown."""
    return "" if value is None else printable(str(value)[:300])


def short(text: str, limit: int = 22) -> str:
    """`text`, without its middle if it is long: ids differ at both ends."""
    if len(text) <= limit:
        return text
    head = limit // 2
    return f"{text[:head]}…{text[-(limit - head - 1) :]}"
