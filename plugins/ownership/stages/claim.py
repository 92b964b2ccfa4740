"""A run's claim on events: the fence before every wave of writes, and the lease that is renewed in time."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import TypeVar

from ownership.domain.clock import now_ms
from ownership.domain.contracts import Slice, Work
from ownership.domain.errors import SettingsError
from ownership.domain.queue import ClaimedEvent
from ownership.ledger.database import CONNECTION
from ownership.ledger.events import EventRow
from ownership.stages.parts import Parts

CHECK_EVERY_MS = 1000
"""How often `keep_alive` looks at the queue at most."""


Given = TypeVar("Given", Slice, Work)


def take_again(parts: Parts, given: Given) -> Given:
    """What a later try of a stage works on: what its run still holds, under a new fencing token.

    The try before may be alive: on a worker that was frozen, or cut off from Airflow. From now on it writes nothing.
    """
    claimed = [*given.claimed, *given.waiting]
    lease_ms = parts.settings.claim_seconds * 1000
    return given.under(parts.queue.claim_again(claimed, run_id=given.run_id, lease_ms=lease_ms))


def read_events(parts: Parts, claimed: Sequence[ClaimedEvent]) -> dict[str, EventRow]:
    """The rows of events that a stage is given, by mid.

    :raises SettingsError: if the ledger has none of them.
    """
    rows = parts.events.read([e.mid for e in claimed])
    if claimed and not rows:
        raise SettingsError(
            f"None of the {len(claimed)} events of this task is in the ledger at {parts.database.address}. On this worker "
            f"or on that of the run's pull, Connection '{CONNECTION}' leads elsewhere: give all workers the same. If the "
            "ledger was restored from a backup, the next run reads the events again."
        )
    return rows


class Claim:
    """The events that a run holds."""

    def __init__(self, parts: Parts, events: Iterable[ClaimedEvent], run_id: str) -> None:
        self.events = list(events)
        self._queue = parts.queue
        self._run_id = run_id
        self._lease_ms = parts.settings.claim_seconds * 1000
        self._checked_at = 0

    def check(self) -> frozenset[str]:
        """The mids of the events that another run took over, at each look until the caller leaves them out.

        Renews the lease when a third of it is over: the queue says when it expires.
        """
        if not self.events:
            return frozenset()
        self._checked_at = now_ms()
        lost, lease_ends_ms = self._queue.held(self.events)
        if len(lost) < len(self.events) and lease_ends_ms - now_ms() < self._lease_ms * 2 // 3:
            self.renew(self._lease_ms)
        return lost

    def keep_alive(self) -> None:
        """Check now and then, during a wait that needs no fence."""
        if now_ms() - self._checked_at > CHECK_EVERY_MS:
            self.check()

    def renew(self, lease_ms: int) -> None:
        """Let the lease expire `lease_ms` from now."""
        self._queue.renew(self.events, run_id=self._run_id, lease_expires_ms=now_ms() + lease_ms)

    def restrict_to(self, mids: Container[str]) -> None:
        """Check and renew only these events from now on."""
        self.events = [e for e in self.events if e.mid in mids]
