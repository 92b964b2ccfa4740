"""Imports: send a file, see what its rows would do, carry them out."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Form, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response

from ownership.domain.imports import ImportNotReady
from ownership.domain.transfer_files import COLUMNS, MAX_ROWS, FileRefused
from ownership.ledger.reads.lists import PAGE_SIZE
from ownership.page import access, airflow_facts, forms
from ownership.page.access import GuardedRoute, User
from ownership.page.actions import TRANSFER_DAG
from ownership.page.api.requests import BoundedRoute
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
from ownership.page.parameters import IMPORT_ID
from ownership.page.rendering import rendered
from ownership.page.store import Ledger
from ownership.page.views.imports import import_view, row_line
from ownership.page.views.links import import_href

router = APIRouter(route_class=BoundedRoute)
files = APIRouter(route_class=GuardedRoute)
"""The route that takes a file, which may be larger than other bodies."""
Id = Annotated[str, Query(alias="id", pattern=IMPORT_ID)]


@router.get("/imports")
def imports(
    user: User, store: Ledger, after: Annotated[str, Query(pattern=rf"^$|{IMPORT_ID}")] = ""
) -> Response:
    """The form to send a file, and the imports, the newest first."""
    with store.reads() as reads:
        last = reads.imports.get(after) if after else None
        newest = reads.imports.newest(PAGE_SIZE, last)
    return rendered(
        "imports.html",
        imports=newest,
        older=f"imports?after={newest[-1].id}" if len(newest) == PAGE_SIZE else None,
        newest="imports" if last else None,
        startable=TRANSFER_DAG in access.may_start(user),
        paused=airflow_facts.is_paused(TRANSFER_DAG),
        token=forms.import_token(user, import_id_of(str(user.get_id()), None)),
        columns=COLUMNS,
        max_rows=MAX_ROWS,
        user=user.get_name(),
    )


@files.post("/imports")
async def take(request: Request, user: User, asked: Asked) -> Response:
    """Take a file in; its dry runs are started in the name of the signed-in user."""
    check_unpacked(request)
    form = await read_form(request)
    import_id = forms.import_of(form.fields.get("token", ""), user)
    to_user = form.fields.get("to_user", "")
    try:
        await asked.take(form.content, name=form.file_name, to_user=to_user, import_id=import_id)
    except FileRefused as e:
        raise HTTPException(400, str(e)) from None
    except SentBefore:
        raise HTTPException(409, "This form was sent before, with another file. Open it again.") from None
    return RedirectResponse(import_href(import_id), status_code=303)


@router.get("/import")
def one(
    user: User,
    store: Ledger,
    import_id: Id,
    after: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    part: Literal["", "live"] = "",
) -> Response:
    """One import; `part=live` answers with only what moves while it is carried out."""
    of, progress = found(store, import_id), progress_of(store, import_id)
    view = import_view(of, progress)
    if part == "live":
        return rendered("import_live.html", view=view)
    with store.reads() as reads:
        rows = reads.imports.rows(import_id, after, limit=PAGE_SIZE)
    startable = TRANSFER_DAG in access.may_start(user)
    return rendered(
        "import.html",
        view=view,
        rows=[row_line(r) for r in rows],
        more=import_href(import_id, after=rows[-1].row.number) if len(rows) == PAGE_SIZE else None,
        first=import_href(import_id) if after else None,
        startable=startable,
        stalled=startable and is_stalled(store, import_id, progress.state),
        token=forms.import_token(user, import_id),
        paused=airflow_facts.is_paused(TRANSFER_DAG),
        user=user.get_name(),
    )


@router.post("/import")
async def go(
    user: User,
    store: Ledger,
    asked: Asked,
    what: Annotated[Literal["all", "good", "again"], Form()],
    token: Annotated[str, Form(max_length=4000)] = "",
) -> Response:
    """Carry rows out: all of them, the good ones, or those that no run brings (`again`)."""
    import_id = forms.import_of(token, user)
    await run_in_threadpool(found, store, import_id)
    if what == "again":
        await asked.start_again(import_id)
    else:
        try:
            await asked.go(import_id, only_good=what == "good")
        except ImportNotReady as e:
            raise HTTPException(409, str(e)) from None
    return RedirectResponse(import_href(import_id), status_code=303)
