"""Rows of the ledger for tests of the page: change a field by `_replace`, whose names mypy checks."""

from __future__ import annotations

from datetime import UTC, datetime

from ownership.domain.event import OrderKey, Transfer
from ownership.domain.states import EventState
from ownership.ledger.events import EventRow, RejectedMessage
from ownership.ledger.reads.lists import ListedEvent, ListedMessage

AT = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
AT_MS = int(AT.timestamp() * 1000)
NOW_MS = AT_MS + 60_000


def key(mid: str = "LP.1.a") -> OrderKey:
    return OrderKey(AT_MS, 0, 7, mid)


TRANSFER = Transfer(key(), "user-old", "user-new")
EVENT = EventRow(TRANSFER, EventState.COMPLETED, "kafka", "topic", AT_MS, AT, attempts=1)
LISTED = ListedEvent(TRANSFER, EventState.COMPLETED, AT_MS)
MESSAGE = RejectedMessage(
    "rejected:t:0:4", "kafka", "t", 0, 4, AT_MS, "LP.1.a", b"\xff", "not UTF-8", "{}", AT
)
LISTED_MESSAGE = ListedMessage(key("rejected:t:0:4"), "not JSON")
