"""When an event happened, from clocks that are not the job's. Pure; epoch milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

MAX_CLOCK_DRIFT_MS: Final = 5 * 60 * 1000
"""An `ets` further than this from the broker's timestamp does not decide the order."""

EARLIEST_MS: Final = 946_684_800_000
"""The year 2000. A message's timestamp before it is none: it was never set, or in another unit."""

_UNITS: Final = (
    (Decimal(10) ** 8, Decimal(1000)),
    (Decimal(10) ** 11, Decimal(1)),
    (Decimal(10) ** 14, Decimal("0.001")),
    (Decimal(10) ** 17, Decimal("0.000001")),
)
"""From this number on a time is in seconds, ms, µs, ns; and ms in one of them. The first is in 1973."""
_TOO_LARGE: Final = Decimal(10) ** 20


def epoch_ms(value: Any) -> int | None:
    """Epoch ms of a producer's time: a number or its text, in seconds, ms, µs or ns; None if it is no time."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = Decimal(str(value).strip())
    except (InvalidOperation, ValueError):
        return None
    if not number.is_finite() or number >= _TOO_LARGE:
        return None
    in_ms = next((ms for least, ms in reversed(_UNITS) if number >= least), None)
    return None if in_ms is None else int(number * in_ms)


def order_time(ets: int | None, broker_ms: int) -> int:
    """The time that orders an event: the producer's clock unless it is far off the broker's, or says nothing."""
    return ets if ets is not None and abs(ets - broker_ms) <= MAX_CLOCK_DRIFT_MS else broker_ms


def none_ahead(times: Sequence[tuple[int, int]], clock_ms: int) -> list[int]:
    """The order times of messages (partition, time), none of them beyond the clock.

    `times` are in the order of offsets within a partition. A time ahead of the clock counts as the clock's. Such
    times keep their order, one ms apart, and none is after a later message of its partition that has a right time.
    """
    bounded = [t for _, t in times]
    ahead = sorted((n for n, t in enumerate(bounded) if t > clock_ms), key=lambda n: (bounded[n], n))
    for back, n in enumerate(reversed(ahead)):
        bounded[n] = clock_ms - back
    after: dict[int, int] = {}
    for n in reversed(range(len(times))):
        partition, t = times[n]
        if t > clock_ms:
            bounded[n] = min(bounded[n], after.get(partition, clock_ms))
        elif t > clock_ms - MAX_CLOCK_DRIFT_MS:
            after[partition] = min(t, after.get(partition, t))
    return bounded
