"""Imports, and one of them with its rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from ownership.domain.imports import FAILURES, Import, ImportedRow, ImportProgress, ImportState, RowState
from ownership.domain.states import EventState
from ownership.page.views.formats import counted, number

_COLOURS: Final[Mapping[RowState, EventState]] = {
    RowState.WRONG: EventState.REJECTED,
    RowState.CHECKING: EventState.RECEIVED,
    RowState.READY: EventState.REHEARSED,
    RowState.REFUSED: EventState.SKIPPED,
    RowState.MOVING: EventState.APPLIED,
    RowState.DONE: EventState.COMPLETED,
    RowState.FAILED: EventState.FAILED,
}
"""The state of an event that has the colour of a row's."""
_TONES: Final[Mapping[RowState, str]] = {RowState.DONE: "good", **dict.fromkeys(FAILURES, "warn")}


class RowLine(NamedTuple):
    """A row of an import."""

    of: ImportedRow
    colour: str
    batches: int | None
    error: str
    mid: str
    """Of its newest event; empty if it has none."""


class ImportView(NamedTuple):
    """One import."""

    of: Import
    state: ImportState
    sentence: str
    percent: int
    tiles: list[tuple[str, str, str]]
    """Row states with their numbers, and the tone of each."""
    polls: bool
    ready: int
    """Rows that can be carried out now."""
    would_move: str
    failures: int


def import_view(of: Import, progress: ImportProgress) -> ImportView:
    """An import as it is now."""
    is_checked = progress.state is ImportState.CHECKED
    waiting = progress.of(RowState.CHECKING, RowState.MOVING)
    return ImportView(
        of=of,
        state=progress.state,
        sentence=_sentence(progress),
        percent=100 * (of.rows - waiting) // of.rows,
        tiles=[(s.value, number(n), _TONES.get(s, "")) for s in RowState if (n := progress.rows.get(s, 0))],
        polls=progress.state in (ImportState.CHECKING, ImportState.STARTED),
        ready=progress.of(RowState.READY) if is_checked else 0,
        would_move=counted(progress.would_move, "batch", "batches"),
        failures=0 if progress.state is ImportState.CHECKING else progress.failures,
    )


def _sentence(progress: ImportProgress) -> str:
    failed = progress.failures
    but = f" {counted(failed, 'row')} cannot be carried out." if failed else ""
    match progress.state:
        case ImportState.CHECKING:
            return (
                f"Dry runs: {counted(progress.of(RowState.CHECKING), 'row')} to go. Nothing is transferred."
            )
        case ImportState.CHECKED:
            ready = counted(progress.of(RowState.READY), "row")
            return f"Checked: {ready} would move {counted(progress.would_move, 'batch', 'batches')}.{but}"
        case ImportState.STARTED:
            return f"Transfers: {counted(progress.of(RowState.MOVING), 'row')} to go."
        case ImportState.DONE:
            moved = counted(progress.moved, "batch", "batches")
            done = counted(progress.of(RowState.DONE), "row")
            return f"Done: {done} moved {moved}, proven in both stores." + (
                f" {counted(failed, 'row')} did not succeed." if failed else ""
            )


def row_line(of: ImportedRow) -> RowLine:
    """A row of an import."""
    events = ((of.transfer_mid, of.events.transfer), (of.dry_run_mid, of.events.dry_run))
    error = of.failure().error if of.state in FAILURES else None
    return RowLine(
        of,
        colour=_COLOURS[of.state].value,
        batches=of.moved if of.events.started else of.would_move,
        error=": ".join(filter(None, error or ())),
        mid=next((mid for mid, state in events if mid and state), ""),
    )
