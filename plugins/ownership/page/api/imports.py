"""Imports: files of transfers, first as dry runs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from ownership.domain.contracts import Contract
from ownership.domain.imports import FAILURES, ImportedRow, ImportNotReady, ImportState, RowState, Step
from ownership.domain.text import MAX_FILE_NAME
from ownership.domain.transfer_files import (
    COLUMNS,
    MAX_BYTES,
    MAX_ROWS,
    REPORT_COLUMNS,
    FileRefused,
    failed_file,
    template,
)
from ownership.ledger.imports import failed_rows
from ownership.ledger.reads.lists import PAGE_SIZE
from ownership.page.access import User
from ownership.page.api.models import Answer
from ownership.page.api.orders import KEY, Key
from ownership.page.api.problems import OF_BODIES, Problem, ProblemError, wrong_field
from ownership.page.api.requests import JsonRoute, check_bearer, check_media_type, media_type, receive_at_most
from ownership.page.importing import (
    Asked,
    SentBefore,
    check_unpacked,
    found,
    import_id_of,
    is_stalled,
    progress_of,
    read_form,
)
from ownership.page.parameters import IMPORT_ID, NO_NUL
from ownership.page.store import Ledger

CSV = "text/csv"
FORM = "multipart/form-data"
_NOT_THERE: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such import"}
}
_STARTS: dict[int | str, dict[str, Any]] = {
    **OF_BODIES,
    **_NOT_THERE,
    409: {"model": Problem, "description": "This does not apply as it is now"},
    502: {"model": Problem, "description": "Airflow failed to start the runs"},
}
_AS_CSV: dict[int | str, dict[str, Any]] = {
    200: {"content": {CSV: {"schema": {"type": "string"}}}, "description": "A CSV file"}
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            CSV: {"schema": {"type": "string"}},
            FORM: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "to_user": {"type": "string"},
                    },
                    "required": ["file"],
                }
            },
        },
        "description": f"UTF-8, at most {MAX_ROWS:,} rows and {MAX_BYTES:,} bytes. Either the columns "
        f"{', '.join(COLUMNS)}, or the platform's report of deleted users' assets as it is "
        f"({', '.join(REPORT_COLUMNS)}). As the body, or as `file` of a form, which needs the header Authorization.",
    }
}

Id = Annotated[str, Path(pattern=IMPORT_ID)]

files = APIRouter(tags=["imports"])
"""The route that takes a file: no JSON."""
router = APIRouter(route_class=JsonRoute, tags=["imports"])


class ListedImport(Answer):
    """An import."""

    id: str
    created_by: str
    created_at: datetime
    file_name: str
    rows: int
    wrong_rows: int
    """Rows of the file that cannot be transfers."""
    started_by: str | None
    """Who started the transfers; null before."""
    started_at: datetime | None


class ImportList(Answer):
    """One page of imports, the newest first."""

    imports: list[ListedImport]
    next: str | None
    """Give it as `after` for the next page; null on the last."""


class OneImport(ListedImport):
    """An import, and how far it is."""

    state: ImportState
    by_state: dict[RowState, int]
    would_move: int
    """Batches that the dry runs found to move."""
    moved: int
    failures: int
    """Rows in `failed.csv`."""
    stalled: bool
    """True if rows wait and no run brings them: ask for the same again (`check`, or `go`)."""


class ImportRow(BaseModel):
    """A row of an import."""

    row: int
    """As a spreadsheet counts: the header is row 1."""
    from_user: str
    to_user: str
    organisation_id: str
    reason: str
    assets: int | None
    """Of the platform's report: rows of this user."""
    state: RowState
    error_column: str | None
    error: str | None
    dry_run_mid: str | None
    would_move: int | None
    transfer_mid: str | None
    moved: int | None


class RowList(BaseModel):
    """One page of an import's rows, in the file's order."""

    rows: list[ImportRow]
    next: int | None
    """Give it as `after` for the next page; null on the last."""


class Check(Contract):
    """Nothing: an empty object."""


class Go(Contract):
    """Which rows are carried out."""

    only_good: bool = Field(
        default=False,
        strict=True,
        description="True: the good rows. False: all rows, and none if one is not good.",
    )


def _row(of: ImportedRow) -> ImportRow:
    column, error = (of.failure().error if of.state in FAILURES else None) or (None, None)
    return ImportRow(
        **of.row._asdict() | {"error": error},
        row=of.row.number,
        state=of.state,
        error_column=column,
        dry_run_mid=of.dry_run_mid,
        would_move=of.would_move,
        transfer_mid=of.transfer_mid,
        moved=of.moved,
    )


def _as_it_is(store: Ledger, import_id: str) -> OneImport:
    of, progress = found(store, import_id), progress_of(store, import_id)
    return OneImport(
        **of._asdict(),
        state=progress.state,
        by_state=dict(progress.rows),
        would_move=progress.would_move,
        moved=progress.moved,
        failures=progress.failures,
        stalled=is_stalled(store, import_id, progress.state),
    )


@files.post(
    "/imports",
    status_code=202,
    summary="Take a file of transfers in, and dry-run each row",
    responses={
        **_STARTS,
        400: {"model": Problem, "description": "The body is no form that can be read"},
        422: {"model": Problem, "description": "The file cannot be read"},
    },
    openapi_extra=_BODY,
)
async def create(
    request: Request,
    response: Response,
    user: User,
    store: Ledger,
    asked: Asked,
    key: Key = None,
    to_user: Annotated[
        str, Query(max_length=256, pattern=NO_NUL, description="New owner where a row names none")
    ] = "",
    name: Annotated[
        str,
        Query(max_length=MAX_FILE_NAME, pattern=NO_NUL, description="The file's name; a form has it itself"),
    ] = "",
) -> OneImport:
    """Rows that cannot be transfers are part of the import, each with its error; nothing is transferred yet."""
    check_media_type(request, CSV, FORM)
    check_unpacked(request)
    await asked.check_start()
    if media_type(request) == FORM:
        check_bearer(request)
        form = await read_form(request)
        content, name = form.content, name or form.file_name
        to_user = form.fields.get("to_user", to_user)
    else:
        content = await Request(request.scope, receive_at_most(request.receive, MAX_BYTES)).body()
    import_id = import_id_of(str(user.get_id()), key)
    try:
        await asked.take(content, name=name or "import.csv", to_user=to_user, import_id=import_id)
    except FileRefused as e:
        raise ProblemError(422, str(e), name="file") from None
    except SentBefore:
        raise wrong_field(KEY, "was sent before, with another file") from None
    response.headers["location"] = f"imports/{import_id}"
    return await run_in_threadpool(_as_it_is, store, import_id)


@router.get("/imports", summary="Imports, the newest first", responses=_NOT_THERE)
def imports(store: Ledger, after: Annotated[str, Query(pattern=rf"^$|{IMPORT_ID}")] = "") -> ImportList:
    """One page of 50."""
    last = found(store, after) if after else None
    with store.reads() as reads:
        newest = reads.imports.newest(PAGE_SIZE, last)
    return ImportList(imports=newest, next=newest[-1].id if len(newest) == PAGE_SIZE else None)


@router.get(
    "/imports/template.csv", summary="An empty file to fill in", responses=_AS_CSV, response_class=Response
)
def empty() -> Response:
    """Its first row names the columns."""
    return as_csv(template(), "template.csv")


@router.get("/imports/{import_id}", summary="How far an import is", responses=_NOT_THERE)
def one(store: Ledger, import_id: Id) -> OneImport:
    """With its rows by state."""
    return _as_it_is(store, import_id)


@router.get("/imports/{import_id}/rows", summary="The rows of an import", responses=_NOT_THERE)
def rows(store: Ledger, import_id: Id, after: Annotated[int, Query(ge=0, lt=2**31)] = 0) -> RowList:
    """One page, in the file's order."""
    found(store, import_id)
    with store.reads() as reads:
        page = reads.imports.rows(import_id, after, limit=PAGE_SIZE)
    return RowList(rows=[_row(r) for r in page], next=page[-1].row.number if len(page) == PAGE_SIZE else None)


@router.get(
    "/imports/{import_id}/failed.csv",
    summary="The rows that failed, to mend and send again",
    responses={**_NOT_THERE, **_AS_CSV},
    response_class=Response,
)
def failed(store: Ledger, import_id: Id) -> Response:
    """The columns error_row and error are ignored when the file comes back."""
    of = found(store, import_id)
    with store.reads() as reads:
        text = "".join(failed_file(r.failure() for r in failed_rows(reads.imports, import_id)))
    return as_csv(text, f"failed-{of.id}.csv")


@router.post(
    "/imports/{import_id}/check",
    status_code=202,
    summary="Dry-run the rows that no run brings",
    responses=_STARTS,
)
async def check(asked: Asked, store: Ledger, import_id: Id, _body: Check) -> OneImport:
    """For an import that is stalled. Nothing is started twice."""
    await run_in_threadpool(found, store, import_id)
    await asked.check_start()
    await asked.start_missing(import_id, Step.CHECK)
    return await run_in_threadpool(_as_it_is, store, import_id)


@router.post("/imports/{import_id}/go", status_code=202, summary="Carry the rows out", responses=_STARTS)
async def go(asked: Asked, store: Ledger, import_id: Id, body: Go) -> OneImport:
    """Nothing is started twice: asked again, it starts what no run brings."""
    await run_in_threadpool(found, store, import_id)
    try:
        await asked.go(import_id, only_good=body.only_good)
    except ImportNotReady as e:
        raise ProblemError(409, str(e), name="import") from None
    return await run_in_threadpool(_as_it_is, store, import_id)


def as_csv(text: str, name: str) -> Response:
    """A small file."""
    disposition = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(text, media_type="text/csv; charset=utf-8", headers=disposition)
