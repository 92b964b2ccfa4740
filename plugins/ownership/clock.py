"""The one clock of the job, and its conversions. Epoch milliseconds everywhere, as in the platform's events."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """This worker's clock, epoch ms."""
    return int(time.time() * 1000)


def now() -> datetime:
    """The same as a UTC datetime."""
    return datetime.now(UTC)


def to_ms(at: datetime) -> int:
    """Epoch ms of a datetime; one without a zone is taken as UTC."""
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def from_ms(at_ms: int) -> datetime:
    """The UTC datetime of an epoch ms. Raises OverflowError or ValueError beyond year 9999."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)
