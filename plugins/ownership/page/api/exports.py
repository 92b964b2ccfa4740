"""Exports: transfers and changes as files."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from ownership.ledger.reads.exports import CHANGE_COLUMNS, TRANSFER_COLUMNS
from ownership.page import exporting
from ownership.page.api.requests import JsonRoute
from ownership.page.api.transfers import QueryFilters
from ownership.page.exporting import ExportResponse, Format
from ownership.page.parameters import TEXT
from ownership.page.store import Ledger

router = APIRouter(route_class=JsonRoute, tags=["exports"])

AS_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/csv": {"schema": {"type": "string"}}, "application/x-ndjson": {"schema": {"type": "string"}}},
        "description": "A file of any length. A broken one ends without the end of its HTTP body; whole JSON lines "
        'end with {"end": true, "rows": …}',
    }
}  # fmt: skip


class Export:
    """What a request wants exported, and how."""

    def __init__(
        self,
        store: Ledger,
        filters: QueryFilters,
        format_: Annotated[Format, Query(alias="format")] = "csv",
        mid: Annotated[TEXT, Query(description="One transfer")] = "",
    ) -> None:
        self.store, self.filters, self.format, self.mid = store, filters, format_, mid


@router.get(
    "/exports/transfers",
    summary="All transfers that fit, as a file",
    responses=AS_FILE,
    response_class=Response,
)
def transfers(export: Annotated[Export, Depends()]) -> Response:
    """In the order of their arrival; then the rejected messages."""
    rows = exporting.transfers(export.store, export.filters, export.mid)
    return ExportResponse("transfers", TRANSFER_COLUMNS, rows, export.format)


@router.get(
    "/exports/changes",
    summary="All changes of transfers that fit, as a file",
    responses=AS_FILE,
    response_class=Response,
)
def changes(export: Annotated[Export, Depends()]) -> Response:
    """Each compare-and-set on a row of a batch: owners before and after, outcome and times."""
    rows = exporting.changes(export.store, export.filters, export.mid)
    return ExportResponse("changes", CHANGE_COLUMNS, rows, export.format)
