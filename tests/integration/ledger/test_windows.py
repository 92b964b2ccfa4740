"""Events of a window, read a few at a time."""

from __future__ import annotations

import pytest

from ownership.domain.clock import now_ms
from ownership.domain.event import OrderKey, Transfer
from ownership.domain.states import EventState
from ownership.ledger.arrivals import Arrival, Arrivals, Origin
from ownership.ledger.database import Database
from ownership.ledger.events import Events


def arrival(mid: str, kafka_ms: int) -> Arrival:
    """An event whose message has this timestamp; its order time is another."""
    transfer = Transfer(OrderKey(now_ms(), 0, 0, mid), "old", "new")
    return Arrival(transfer, Origin("kafka", "topic", 0, 0, kafka_ms), b"{}", "organisation")


@pytest.mark.parametrize("size", [1, 2, 9])
def test_a_window_has_each_of_its_events_once_in_either_direction(ledger: Database, size: int) -> None:
    at = now_ms() - 60_000
    times = {"before": at - 1, "a": at, "b": at + 5, "c": at + 5, "d": at + 5, "e": at + 8, "end": at + 9}
    Arrivals(ledger).store([arrival(mid, ms) for mid, ms in times.items()])

    def window(*states: EventState, newest_first: bool) -> list[list[str]]:
        parts = Events(ledger).of_window(at, at + 9, states, size=size, newest_first=newest_first)
        return [[e.mid for e in part] for part in parts]

    forwards = window(EventState.RECEIVED, EventState.FAILED, newest_first=False)
    assert [mid for part in forwards for mid in part] == ["a", "b", "c", "d", "e"]
    backwards = window(EventState.RECEIVED, newest_first=True)
    assert [mid for part in backwards for mid in part] == ["e", "d", "c", "b", "a"]
    assert {len(part) for part in [*forwards[:-1], *backwards[:-1]]} <= {size}
    assert window(EventState.COMPLETED, newest_first=True) == []
