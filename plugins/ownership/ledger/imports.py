"""Imports: files of transfers and their rows, beside the events that their runs bring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Select,
    case,
    cast,
    func,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from ownership.domain.imports import (
    BLOCK_ROWS,
    FAILURES,
    Import,
    ImportedRow,
    ImportProgress,
    RowEvents,
    RowState,
    Step,
    mid_of,
)
from ownership.domain.organisations import EVERYTHING, VisibleOrganisations
from ownership.domain.states import BatchOutcome, EventState
from ownership.domain.transfer_files import FileRow, RowError
from ownership.ledger.database import Database, copy
from ownership.ledger.schema import columns_of, event, import_row, imports

PAGE_ROWS: Final = 1000
"""Rows that are read at once."""
_ROW: Final = import_row.c
_DRY_RUN: Final = event.alias("dry_run")
_TRANSFER: Final = event.alias("transfer")
_LEFT_OUT: Final = imports.c.started_at.isnot(None) & _ROW.transfer_mid.is_(None)
_COPIED: Final = (
    "import_id", "number", "from_user", "to_user", "organisation_id", "reason", "assets", "error_column", "error",
    "dry_run_mid",
)  # fmt: skip


class Imports:
    """Reads and writes of imports."""

    def __init__(self, database: Database, visible: VisibleOrganisations = EVERYTHING) -> None:
        """`visible`: an import is there only for those who may see all organisations of its rows."""
        self._database = database
        self._of_visible: list[ColumnElement[bool]] = []
        if visible.ids is not None:
            ids = literal(sorted(visible.ids), imports.c.organisation_ids.type)
            self._of_visible = [imports.c.organisation_ids.contained_by(ids)]

    def create(self, new: Import, rows: Sequence[FileRow]) -> bool:
        """Write an import and its rows; False if one with this id is there."""

        def work(connection: Connection) -> bool:
            values = new._asdict() | {"organisation_ids": list(new.organisation_ids)}
            written = connection.execute(
                insert(imports).values(**values).on_conflict_do_nothing().returning(imports.c.id)
            )
            if written.first() is None:
                return False
            copy(connection, "import_row", _COPIED, (_copied(new.id, row) for row in rows))
            return True

        return self._database.run(work)

    def get(self, import_id: str) -> Import | None:
        """An import, None if there is none with this id."""
        query = _IMPORTS.where(imports.c.id == import_id, *self._of_visible)
        row = self._database.run(lambda c: c.execute(query).first())
        return _import(row) if row else None

    def newest(self, limit: int, before: Import | None = None) -> list[Import]:
        """Imports, the newest first; those older than `before`."""
        key = (imports.c.created_at, imports.c.id)
        query = _IMPORTS.where(*self._of_visible).order_by(*(c.desc() for c in key)).limit(limit)
        if before:
            query = query.where(tuple_(*key) < tuple_(before.created_at, before.id))
        return self._database.run(lambda c: [_import(r) for r in c.execute(query)])

    def progress(self, import_id: str) -> ImportProgress:
        """How far the rows of an import are."""
        return self._database.run(lambda c: _progress(c, import_id))

    def rows(self, import_id: str, after: int = 0, *, limit: int = PAGE_ROWS) -> list[ImportedRow]:
        """Rows behind row `after`, in the file's order."""
        query = (
            _with_events(
                *import_row.c,
                _DRY_RUN.c.state.label("dry_run_state"),
                _TRANSFER.c.state.label("transfer_state"),
                _LEFT_OUT.label("left_out"),
                _batches(_DRY_RUN).label("would_move"),
                _batches(_TRANSFER).label("moved"),
                func.coalesce(_TRANSFER.c.reason, _DRY_RUN.c.reason).label("why"),
            )
            .where(import_row.c.import_id == import_id, _ROW.number > after)
            .order_by(_ROW.number)
            .limit(limit)
        )
        return self._database.run(lambda c: [_imported(r) for r in c.execute(query)])

    def start(self, import_id: str, by: str, *, only_good: bool) -> None:
        """Mark the rows whose dry run is good as to be carried out, once; nothing if that was done before.

        :raises ImportNotReady: while rows are being checked, if no row is good, or if some are not and all are wanted.
        """

        def work(connection: Connection) -> None:
            locked = select(imports.c.started_at).where(imports.c.id == import_id).with_for_update()
            if connection.scalar(locked) is not None:
                return
            _progress(connection, import_id).check_startable(only_good=only_good)
            good = select(event.c.mid).where(
                event.c.mid == _ROW.dry_run_mid, event.c.state == EventState.REHEARSED
            )
            mid = func.concat("import:", _ROW.import_id, ":", _ROW.number)
            connection.execute(
                update(import_row).values(transfer_mid=mid).where(_ROW.import_id == import_id, good.exists())
            )
            started = {"started_by": by, "started_at": func.now()}
            connection.execute(update(imports).values(**started).where(imports.c.id == import_id))

        self._database.run(work)

    def missing_blocks(self, import_id: str, step: Step) -> list[int]:
        """Blocks with rows whose event of this step the ledger does not have: it is to be brought by a run."""
        block = _ROW.number // BLOCK_ROWS
        query = select(block).distinct().where(*_is_missing(import_id, step))
        return self._database.run(lambda c: sorted(c.scalars(query)))

    def missing(self, import_id: str, step: Step, block: int) -> list[FileRow]:
        """These rows of a block."""
        of_block = _ROW.number // BLOCK_ROWS == block
        query = select(import_row).where(*_is_missing(import_id, step), of_block).order_by(_ROW.number)
        return self._database.run(lambda c: [_file_row(r) for r in c.execute(query)])


def failed_rows(imports: Imports, import_id: str) -> Iterator[ImportedRow]:
    """The rows that did not become a transfer, or not a complete one."""
    after = 0
    while found := imports.rows(import_id, after):
        yield from (r for r in found if r.state in FAILURES)
        after = found[-1].row.number


def _is_missing(import_id: str, step: Step) -> tuple[ColumnElement[bool], ...]:
    mid = _ROW.dry_run_mid if step is Step.CHECK else _ROW.transfer_mid
    there = select(event.c.id).where(event.c.mid == mid).exists()
    return _ROW.import_id == import_id, mid.isnot(None), ~there


_IMPORTS: Final = select(*columns_of(imports, Import))


def _import(r: Any) -> Import:
    return Import(**r._asdict() | {"organisation_ids": tuple(r.organisation_ids)})


def _copied(import_id: str, row: FileRow) -> tuple[Any, ...]:
    error = row.error or (None, None)
    mid = None if row.error else mid_of(import_id, row.number, Step.CHECK)
    return (import_id, *row[:-1], *error, mid)  # its last field is the error


def _with_events(*columns: ColumnElement[Any]) -> Select[Any]:
    return (
        select(*columns)
        .select_from(import_row)
        .join(imports, imports.c.id == _ROW.import_id)
        .outerjoin(_DRY_RUN, _DRY_RUN.c.mid == _ROW.dry_run_mid)
        .outerjoin(_TRANSFER, _TRANSFER.c.mid == _ROW.transfer_mid)
    )


def _batches(table: FromClause) -> ColumnElement[int]:
    moved = cast(table.c.counts[BatchOutcome.MOVED.value].astext, Integer)
    none_at_the_end = case((table.c.ended_at.isnot(None), 0))  # `counts` leaves out what no batch came to
    return func.coalesce(moved, none_at_the_end)


def _progress(connection: Connection, import_id: str) -> ImportProgress:
    wrong, started = _ROW.error.isnot(None), _ROW.transfer_mid.isnot(None)
    groups = (wrong, _DRY_RUN.c.state, started, _TRANSFER.c.state, _LEFT_OUT)
    moves = (func.coalesce(func.sum(_batches(t)), 0) for t in (_DRY_RUN, _TRANSFER))
    query = _with_events(*groups, func.count(), *moves).where(_ROW.import_id == import_id).group_by(*groups)
    rows: dict[RowState, int] = {}
    would_move = moved = 0
    for *events, count, dry, done in connection.execute(query):
        state = _events(*events).state
        rows[state] = rows.get(state, 0) + count
        would_move, moved = would_move + int(dry), moved + int(done)
    return ImportProgress(rows, would_move, moved)


def _events(wrong: Any, dry_run: Any, started: Any, transfer: Any, left_out: Any) -> RowEvents:
    return RowEvents(
        wrong, dry_run and EventState(dry_run), started, transfer and EventState(transfer), left_out
    )


def _file_row(r: Any) -> FileRow:
    error = None if r.error is None else RowError(r.error_column, r.error)
    return FileRow(r.number, r.from_user, r.to_user, r.organisation_id, r.reason, r.assets, error)


def _imported(r: Any) -> ImportedRow:
    row = _file_row(r)
    started = r.transfer_mid is not None
    return ImportedRow(
        row,
        _events(row.error is not None, r.dry_run_state, started, r.transfer_state, r.left_out),
        r.dry_run_mid,
        r.would_move,
        r.transfer_mid,
        r.moved,
        r.why,
    )
