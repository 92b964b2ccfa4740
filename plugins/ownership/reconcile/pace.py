"""A limit on rows a second."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Lets its caller take so many rows a second in the mean; what was not taken is not saved up."""

    def __init__(
        self,
        per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """`per_second` 0 is no limit."""
        self._per_second, self._clock, self._sleep = per_second, clock, sleep
        self._free_at = clock()

    def take(self, rows: int) -> None:
        """Return when `rows` more may be read: at once if what was taken before is paid for by time."""
        if self._per_second <= 0:
            return
        now = self._clock()
        if (wait := self._free_at - now) > 0:
            self._sleep(wait)
        self._free_at = max(self._free_at, now) + rows / self._per_second
