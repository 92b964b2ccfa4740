"""What crosses the boundary between two tasks, as XCom: who, how many, which outcome.

Batches never cross it: they are in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict

from ownership.events import OrderKey, Transfer
from ownership.open_list import Held


class _Contract(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


HeldTuple = tuple[int, int, int, str, str, str, int]
"""t, partition, offset, mid, from user, to user, claim token."""


def packed(events: Iterable[Held]) -> tuple[HeldTuple, ...]:
    """Held events as plain tuples."""
    return tuple((*h.transfer.key, h.transfer.from_user, h.transfer.to_user, h.token) for h in events)


def unpacked(events: Sequence[HeldTuple]) -> list[Held]:
    """Held events from plain tuples."""
    return [Held(Transfer(OrderKey(t, p, o, mid), f, to), token) for t, p, o, mid, f, to, token in events]


class Slice(_Contract):
    """Lanes for one mapped instance of the stages."""

    label: str
    run_id: str
    events: tuple[HeldTuple, ...]

    @property
    def held(self) -> list[Held]:
        """The slice's events."""
        return unpacked(self.events)


class Phase(_Contract):
    """The part of a lane that this run applies."""

    events: tuple[HeldTuple, ...]
    moves: dict[str, str]
    """Source user -> where the batches end up."""
    later: tuple[str, ...] = ()
    """Mids of transfers that come later and completed before."""

    @property
    def held(self) -> list[Held]:
        """The phase's events, in order."""
        return unpacked(self.events)


class Work(_Contract):
    """What a stage hands to the next: the phases, and counts for whoever looks at the run."""

    label: str
    run_id: str
    phases: tuple[Phase, ...] = ()
    events: dict[str, int] = {}
    """Events by what became of them in this stage."""
    batches: dict[str, int] = {}
    """Batches by outcome."""
    failures: dict[str, str] = {}
    """Reason by mid, the first few."""

    def step(
        self,
        phases: Iterable[Phase],
        *,
        events: dict[str, int],
        batches: dict[str, int] | None = None,
        failures: dict[str, str] | None = None,
    ) -> Self:
        """The same slice after a stage."""
        return self.model_copy(
            update={
                "phases": tuple(phases),
                "events": {k: v for k, v in events.items() if v},
                "batches": {k: v for k, v in (batches or {}).items() if v},
                "failures": dict(list((failures or {}).items())[:20]),
            }
        )


class Pulled(_Contract):
    """What `pull_transfer_events` found."""

    slices: tuple[Slice, ...] = ()
    received: int = 0
    known: int = 0
    rejected: int = 0
    claimed: int = 0
    follow_ups: int = 0
    told: dict[str, str] = {}
    """What became of each event that the conf abandons or redrives, by mid."""
    waits: dict[str, str] = {}
    """Why events stay in the queue, by mid: those of the run's conf, and a few others."""


class Summary(_Contract):
    """How a run ended."""

    events: dict[str, int] = {}
    batches: dict[str, int] = {}
    failures: dict[str, str] = {}
    waits: dict[str, str] = {}

    @property
    def failed(self) -> int:
        """Events that are still open because a try failed."""
        return self.events.get("failed", 0)
