"""Take a file of transfers in: write its rows down, and start the runs that carry them out.

Nothing runs in the background. The rows' events have mids of their own, so each step may be repeated: it starts runs
only for rows whose event the ledger does not have, and that no live run brings.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, NamedTuple

import structlog
from fastapi import Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from ownership.domain.clock import now
from ownership.domain.imports import Import, ImportProgress, ImportState, Step, conf_of, run_prefix
from ownership.domain.text import MAX_FILE_NAME, one_line, printable
from ownership.domain.transfer_files import MAX_BYTES, FileRow, RowError, good_rows, read_rows
from ownership.page import access, airflow_facts
from ownership.page.access import User
from ownership.page.actions import TRANSFER_DAG
from ownership.page.api.problems import FieldError, ProblemError
from ownership.page.api.requests import receive_at_most
from ownership.page.starting import refused, trigger
from ownership.page.store import Ledger
from ownership.page.views.links import RunLink

log = structlog.get_logger(__name__)

MAX_RUNS: Final = 20
"""Runs that are started for a block of rows, one after the other; each may end before it brings them."""
FORM_BYTES: Final = 20_000
"""Of a form beside its file."""
_UNDER_WAY: Final = {ImportState.CHECKING: Step.CHECK, ImportState.STARTED: Step.GO}
"""What an import's rows wait for, by its state."""


class SentBefore(Exception):
    """The same key brought another file."""


class Importer:
    """A request of a user about an import."""

    def __init__(self, request: Request, user: User, store: Ledger) -> None:
        self._request, self._user, self._store = request, user, store

    async def check_start(self) -> None:
        """Answer 403 unless the user may start transfers."""
        await run_in_threadpool(access.check_start, TRANSFER_DAG, self._request, self._user)

    async def take(self, content: bytes, *, name: str, to_user: str, import_id: str) -> None:
        """Write a file down as import `import_id`, unless that was done before, and start its dry runs.

        :raises FileRefused: if the file cannot be read as a whole.
        :raises SentBefore: if the import has another file.
        """
        await self.check_start()
        await run_in_threadpool(self._write, content, name, to_user, import_id)
        await self.start_missing(import_id, Step.CHECK)

    def _write(self, content: bytes, name: str, to_user: str, import_id: str) -> None:
        rows = [self._own(row) for row in read_rows(content, to_user=to_user)]
        good = good_rows(rows)
        # Whoever may not see all sees their own rows' imports, whatever is wrong with others.
        of = rows if self._store.visible.every else good
        new = Import(
            id=import_id,
            created_by=str(self._user.get_name()),
            created_at=now(),
            file_name=one_line(name, MAX_FILE_NAME),
            file_digest=hashlib.sha256(b"%b\0%b" % (to_user.encode(), content)).hexdigest(),
            rows=len(rows),
            wrong_rows=len(rows) - len(good),
            organisation_ids=tuple(sorted({r.organisation_id for r in of if r.organisation_id})),
        )
        with self._store.reads() as reads:
            if reads.imports.create(new, rows):
                log.info("import", id=new.id, rows=new.rows, wrong=new.wrong_rows, by=new.created_by)
                return
            there = reads.imports.get(import_id)
        if there is None or there.file_digest != new.file_digest:
            raise SentBefore

    def _own(self, row: FileRow) -> FileRow:
        """The row, with an error if the user may not transfer in its organisation."""
        if row.error or self._store.visible.has(row.organisation_id):
            return row
        return row._replace(error=RowError("organisation_id", "is not among your organisations"))

    async def go(self, import_id: str, *, only_good: bool) -> None:
        """Start the transfers of an import, once; again, it starts what did not begin.

        :raises ImportNotReady: while rows are being checked, if no row is good, or if some are not and all are wanted.
        """
        await self.check_start()
        await run_in_threadpool(self._start, import_id, only_good=only_good)
        await self.start_missing(import_id, Step.GO)

    def _start(self, import_id: str, *, only_good: bool) -> None:
        found(self._store, import_id)
        with self._store.reads() as reads:
            reads.imports.start(import_id, str(self._user.get_name()), only_good=only_good)
        log.info("import started", id=import_id, by=self._user.get_name(), only_good=only_good)

    async def start_again(self, import_id: str) -> None:
        """Start runs for the rows that no run brings, of what is under way: nothing that was not asked for before."""
        await self.check_start()
        progress = await run_in_threadpool(progress_of, self._store, import_id)
        if step := _UNDER_WAY.get(progress.state):
            await self.start_missing(import_id, step)

    async def start_missing(self, import_id: str, step: Step) -> None:
        """Start runs for the rows that no run brings."""
        runs = await run_in_threadpool(_runs_to_start, self._store, import_id, step)
        for block, run_id in runs.items():
            rows = await run_in_threadpool(self._missing, import_id, step, block)
            if not rows:  # a run has just brought them
                continue
            answer = await trigger(self._request, TRANSFER_DAG, run_id, conf_of(import_id, rows, step))
            if answer.status_code not in (200, 409):  # 409: another request has just started it
                raise refused(answer)

    def _missing(self, import_id: str, step: Step, block: int) -> list[FileRow]:
        with self._store.reads() as reads:
            return reads.imports.missing(import_id, step, block)


Asked = Annotated[Importer, Depends()]


def found(store: Ledger, import_id: str) -> Import:
    """An import; answer 404 if there is none with this id."""
    with store.reads() as reads:
        there = reads.imports.get(import_id)
    if there is None:
        raise HTTPException(404, "There is no such import.")
    return there


def progress_of(store: Ledger, import_id: str) -> ImportProgress:
    """How far an import is."""
    with store.reads() as reads:
        return reads.imports.progress(import_id)


def is_stalled(store: Ledger, import_id: str, state: ImportState) -> bool:
    """True if rows of an import in this state wait, and no run brings them."""
    step = _UNDER_WAY.get(state)
    return step is not None and bool(_runs_to_start(store, import_id, step))


def _runs_to_start(store: Ledger, import_id: str, step: Step) -> dict[int, str]:
    """By block with rows whose event the ledger does not have, and that no live run brings: the run to be started."""
    with store.reads() as reads:
        blocks = reads.imports.missing_blocks(import_id, step)
    ids = {
        n: [f"{run_prefix(import_id, step, n)}{attempt}" for attempt in range(1, MAX_RUNS + 1)]
        for n in blocks
    }
    runs = airflow_facts.runs_of(run_id for of in ids.values() for run_id in of)
    return {n: run_id for n in blocks if (run_id := _next_run(ids[n], runs))}


def _next_run(ids: Sequence[str], runs: dict[str, RunLink]) -> str | None:
    """The first id that no run has; None while a run lives, or when there were too many."""
    if any(not r.ended for i in ids if (r := runs.get(i))):
        return None
    return next((i for i in ids if i not in runs), None)


class SentForm(NamedTuple):
    """A form with a file."""

    fields: Mapping[str, str]
    file_name: str
    content: bytes


async def read_form(request: Request) -> SentForm:
    """Read a form with a file; answer 400 if it cannot be read, 413 if the file is too large, 422 if there is none."""
    bounded = Request(request.scope, receive_at_most(request.receive, MAX_BYTES + FORM_BYTES))
    try:
        async with bounded.form(max_files=1, max_fields=2, max_part_size=FORM_BYTES) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise ProblemError(
                    422, "Choose a file.", errors=[FieldError(field="file", detail="is no file")]
                )
            fields = {name: printable(value) for name, value in form.items() if isinstance(value, str)}
            content = await file.read()
    except UnicodeError:  # of a charset that the form names
        raise HTTPException(400, "The form is not in UTF-8.") from None
    if len(content) > MAX_BYTES:
        raise HTTPException(413, f"The file has more than {MAX_BYTES:,} bytes.")
    return SentForm(fields, file.filename or "", content)


def check_unpacked(request: Request) -> None:
    """Answer 415 for a body that is packed: nothing is unpacked here."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise HTTPException(415, "Send the file without Content-Encoding: nothing is unpacked.")


def import_id_of(user_id: str, key: str | None) -> str:
    """The id of a new import; the same for the same key of the same user."""
    if key is None:
        return secrets.token_hex(10)
    return hashlib.sha256(json.dumps([user_id, "imports", key]).encode()).hexdigest()[:20]
