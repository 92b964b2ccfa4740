"""How many of the accepted transfers are proven in both stores, and how many of them in time. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Self


class ProvenCounts(NamedTuple):
    """Events by how far their proof is; each accepted event is in one of the counts.

    The deadline of an event is `deadline.minutes` after its acceptance. It does not hold for what people decide on:
    an event that waits for an approval or was approved.
    """

    in_time: int = 0
    """Proven within the deadline."""
    late: int = 0
    """Proven after it."""
    overdue: int = 0
    """Open, and past the deadline."""
    pending: int = 0
    """Open, and within the deadline."""
    asked: int = 0
    """Asked for an approval, and not proven within the deadline of other events."""
    unproven: int = 0
    """Ended with nothing to prove: skipped, declined, abandoned, or a dry run."""

    @property
    def accepted(self) -> int:
        """All of them."""
        return sum(self)

    @property
    def due(self) -> int:
        """Events that should be proven by now."""
        return self.in_time + self.late + self.overdue

    @property
    def share(self) -> float:
        """The share of the due events that were proven in time, 0 to 1; 1 where none was due."""
        return self.in_time / self.due if self.due else 1.0

    @classmethod
    def sum_of(cls, counts: Iterable[ProvenCounts]) -> Self:
        """All of them together."""
        return cls(*map(sum, zip(*counts, strict=True)))


class RequestCounts(NamedTuple):
    """What arrived of one API call of the platform, which emits an event for each of its assets."""

    events: int
    """Accepted, dry runs and undos of an operator's left out."""
    proven: int
    open: int
    ended: int
    """Ended without a proof: skipped, declined or abandoned."""
    rejected: int
    """Messages that are no events."""

    @property
    def arrived(self) -> int:
        """Events and rejected messages."""
        return self.events + self.rejected

    @property
    def complete(self) -> bool:
        """True if everything that arrived is proven."""
        return self.proven == self.arrived
