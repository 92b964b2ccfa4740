"""Exports as they are sent: CSV or JSON lines, a page of rows at a time.

The ledger is asked for the next page when the client has taken the one before. Where that fails, or the client takes
nothing for `STALLED_S`, the connection is cut: HTTP tells a cut answer from a whole one, a file alone does not.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final, Literal, TypeVar

from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from ownership.domain.clock import now
from ownership.domain.csv_text import csv_lines
from ownership.ledger.reads.exports import BEFORE_ALL, ChangePlace, Exports, Page
from ownership.ledger.reads.lists import Filters
from ownership.page.api.problems import answer
from ownership.page.store import Ledger

AT_ONCE: Final = 2
"""Exports of one process at the same time."""
STALLED_S: Final = 60.0
"""A client that takes nothing for so long is given up."""

P = TypeVar("P")
Format = Literal["csv", "jsonl"]
Row = tuple[Any, ...]
Rows = Iterator[Sequence[Row]]
"""Rows, a page at a time."""
_MEDIA_TYPES: Final = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
_turns = threading.BoundedSemaphore(AT_ONCE)


def transfers(store: Ledger, filters: Filters, mid: str) -> Rows:
    """All transfers that fit, then rejected messages."""
    with store.reads() as reads:
        span = reads.exports.span(filters, mid)
    yield from _pages(store, span, lambda exports, at: exports.transfers(filters, at))
    if not mid:
        yield from _pages(store, BEFORE_ALL, lambda exports, at: exports.messages(filters, at))


def changes(store: Ledger, filters: Filters, mid: str) -> Rows:
    """All changes of transfers that fit."""
    with store.reads() as reads:
        first, last = reads.exports.span(filters, mid)
    place = ChangePlace.before(first + 1, last)
    yield from _pages(store, place, lambda exports, at: exports.changes(filters, at))


def _pages(store: Ledger, place: P, read: Callable[[Exports, P], Page[P]]) -> Rows:
    """The pages from a place on."""
    at: P | None = place
    while at is not None:
        with store.reads() as reads:
            found, at = read(reads.exports, at)
        yield found


def _csv(columns: Sequence[str], rows: Rows) -> Iterator[str]:
    head = csv_lines([columns])
    for page in rows:
        yield head + csv_lines(map(_cell, row) for row in page)
        head = ""


def _cell(value: Any) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return json.dumps(value, ensure_ascii=False)
    return _plain(value)


def _json_lines(columns: Sequence[str], rows: Rows) -> Iterator[str]:
    count = 0
    for page in rows:
        count += len(page)
        objects = (dict(zip(columns, map(_plain, row), strict=True)) for row in page)
        yield "".join(json.dumps(o, ensure_ascii=False) + "\n" for o in objects)
    yield json.dumps({"end": True, "rows": count}) + "\n"


def _plain(value: Any) -> Any:
    # The database has its server's time zone.
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


class ExportResponse(StreamingResponse):
    """An export that is sent as the client takes it, few at a time."""

    def __init__(self, name: str, columns: Sequence[str], rows: Rows, format_: Format) -> None:
        """Reads the first page, whose error is an answer yet."""
        parts = (_csv if format_ == "csv" else _json_lines)(columns, rows)
        first = next(parts, "")
        super().__init__(chain([first], parts), media_type=_MEDIA_TYPES[format_])
        self.headers["content-disposition"] = (
            f'attachment; filename="{name}-{now():%Y%m%dT%H%M%SZ}.{format_}"'
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""

        async def patient(message: Message) -> None:
            await asyncio.wait_for(send(message), STALLED_S)

        if not _turns.acquire(blocking=False):
            busy = answer(503, f"{AT_ONCE} other exports are being sent: try again later.", name="busy")
            busy.headers["retry-after"] = "30"
            await busy(scope, receive, send)
            return
        try:
            await super().__call__(scope, receive, patient)
        finally:
            _turns.release()
