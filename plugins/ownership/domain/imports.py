"""An import: the transfers of one file, on their way from a dry run of each to their proof. Pure.

A row's place on this way follows from the states of its two events; nothing else remembers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from ownership.domain.states import FINAL_STATES, EventState
from ownership.domain.transfer_files import FileRow, RowError


class RowState(StrEnum):
    """How far a row of an import is."""

    WRONG = "wrong"
    """The file's row cannot be a transfer."""
    CHECKING = "checking"
    """Its dry run is not done."""
    READY = "ready"
    """Its dry run says what would move."""
    REFUSED = "refused"
    """Its dry run failed, or the users are not valid; so it stays once the other rows are carried out."""
    MOVING = "moving"
    """Its transfer is not done, or awaits an approval."""
    DONE = "done"
    """Its transfer is proven in both stores."""
    FAILED = "failed"
    """Its transfer failed, or ended otherwise. The job tries a failed one again by itself."""


FAILURES: Final = (RowState.WRONG, RowState.REFUSED, RowState.FAILED)
"""Rows that did not become a transfer, or not a complete one."""


class ImportState(StrEnum):
    """How far an import is."""

    CHECKING = "checking"
    CHECKED = "checked"
    STARTED = "started"
    DONE = "done"


class ImportNotReady(ValueError):
    """The transfers of an import cannot be started; the text says why."""


class Step(StrEnum):
    """What the events of an import are."""

    CHECK = "check"
    """Dry runs."""
    GO = "go"
    """Transfers."""


class Import(NamedTuple):
    """A file that was taken in. Its content is in its rows."""

    id: str
    created_by: str
    created_at: datetime
    file_name: str
    file_digest: str
    """SHA-256 of the file and of the new owner beside it, hexadecimal."""
    rows: int
    wrong_rows: int
    organisation_ids: tuple[str, ...]
    """Of the rows that can be transfers."""
    started_by: str | None = None
    """Who started the transfers, and when."""
    started_at: datetime | None = None


class RowEvents(NamedTuple):
    """The states of a row's events, None for an event that the ledger does not have (yet)."""

    wrong: bool
    dry_run: EventState | None
    started: bool
    """True if its transfer is to be carried out."""
    transfer: EventState | None
    left_out: bool = False
    """True if the transfers of other rows were started without it."""

    @property
    def state(self) -> RowState:
        """How far the row is."""
        if self.wrong:
            return RowState.WRONG
        if self.started:
            return _TRANSFERS.get(self.transfer, RowState.MOVING)
        if self.left_out:  # its dry run may have been tried again since, and nothing would carry it out
            return RowState.REFUSED
        return _DRY_RUNS.get(self.dry_run, RowState.CHECKING)


_ENDED: Final[tuple[EventState | None, ...]] = (EventState.FAILED, *FINAL_STATES)
_TRANSFERS: Final = dict.fromkeys(_ENDED, RowState.FAILED) | {EventState.COMPLETED: RowState.DONE}
_DRY_RUNS: Final = dict.fromkeys(_ENDED, RowState.REFUSED) | {EventState.REHEARSED: RowState.READY}


class ImportedRow(NamedTuple):
    """A row of an import, and what became of it."""

    row: FileRow
    events: RowEvents
    dry_run_mid: str | None = None
    would_move: int | None = None
    """Batches that its dry run found to move."""
    transfer_mid: str | None = None
    moved: int | None = None
    reason: str | None = None
    """What the ledger says of the event that failed."""

    @property
    def state(self) -> RowState:
        """How far it is."""
        return self.events.state

    def failure(self) -> FileRow:
        """The row with the error of its event, to be mended."""
        if self.row.error:
            return self.row
        ended = self.events.transfer if self.events.started else self.events.dry_run
        unsaid = "was left out: its dry run had failed" if self.events.left_out else str(ended)
        return self.row._replace(error=RowError("", self.reason or unsaid))


class ImportProgress(NamedTuple):
    """The rows of an import by state, and their batches."""

    rows: Mapping[RowState, int]
    would_move: int
    moved: int

    def of(self, *states: RowState) -> int:
        """Rows in these states."""
        return sum(self.rows.get(s, 0) for s in states)

    @property
    def failures(self) -> int:
        """Rows that did not become a transfer, or not a complete one."""
        return self.of(*FAILURES)

    @property
    def state(self) -> ImportState:
        """How far the import is."""
        if self.of(RowState.MOVING):
            return ImportState.STARTED
        if self.of(RowState.DONE, RowState.FAILED):
            return ImportState.DONE
        return ImportState.CHECKING if self.of(RowState.CHECKING) else ImportState.CHECKED

    def check_startable(self, *, only_good: bool) -> None:
        """Verify that transfers can be started.

        :raises ImportNotReady: while rows are being checked, if no row is good, or if some are not and all are wanted.
        """
        if n := self.of(RowState.CHECKING):
            raise ImportNotReady(f"{n} rows are still being checked.")
        bad = self.of(RowState.WRONG, RowState.REFUSED)
        if bad and not only_good:
            raise ImportNotReady(f"{bad} rows cannot be carried out, and all of them were asked for.")
        if not self.of(RowState.READY):
            raise ImportNotReady("No row can be carried out.")


def mid_of(import_id: str, number: int, step: Step) -> str:
    """The mid of a row's event: the same however often the row is started."""
    return f"import:{import_id}:{number}" + (":check" if step is Step.CHECK else "")


def conf_of(import_id: str, rows: list[FileRow], step: Step) -> dict[str, Any]:
    """The conf of a run that brings the events of these rows."""
    events = [
        {
            "mid": mid_of(import_id, r.number, step),
            "from_user": r.from_user,
            "to_user": r.to_user,
            "organisation_id": r.organisation_id,
            **({"reason": r.reason} if r.reason else {}),
        }
        for r in rows
    ]
    return {"events": events, "dry_run": step is Step.CHECK}


BLOCK_ROWS: Final = 1000
"""Numbers of the rows that one run brings, a block: as many events as a conf may have."""


def run_prefix(import_id: str, step: Step, block: int) -> str:
    """Begins the ids of the runs of a block in a step."""
    return f"import_{import_id}_{step}_{block}_"
