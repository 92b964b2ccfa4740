"""The one clock of the job, and its conversions. Epoch milliseconds everywhere, as in the platform's events."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS


def now_ms() -> int:
    """This worker's clock, epoch ms."""
    return int(time.time() * 1000)


def now() -> datetime:
    """The same as a UTC datetime."""
    return datetime.fromtimestamp(time.time(), UTC)


def to_ms(at: datetime) -> int:
    """Epoch ms of a datetime, rounded down; one without a zone is taken as UTC."""
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND


def from_ms(at_ms: int) -> datetime:
    """The UTC datetime of an epoch ms. Raises OverflowError beyond year 9999."""
    return _EPOCH + at_ms * _MILLISECOND


def calendar_time(at_ms: int) -> datetime | None:
    """The time at `at_ms`, epoch ms; None beyond the calendar, where a producer's timestamp in another unit may lie."""
    try:
        return from_ms(at_ms)
    except OverflowError:
        return None


def duration(milliseconds: int) -> str:
    """A time span in words, in the unit that fits: "2.8 s", "119 min", "3 days"; a negative one is "0.0 s"."""
    ms = max(0, milliseconds)
    if ms < 10_000:
        return f"{ms / 1000:.1f} s"
    if ms < 2 * MINUTE_MS:
        return f"{ms / 1000:.0f} s"
    if ms < 2 * HOUR_MS:
        return f"{ms / MINUTE_MS:.0f} min"
    return f"{ms / HOUR_MS:.0f} h" if ms < 2 * DAY_MS else f"{ms / DAY_MS:.0f} days"
