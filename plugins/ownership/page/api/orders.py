"""What is asked of the job: new transfers, and actions on those that are there.

Each starts a run, in the name of the user. With the header `Idempotency-Key` the id of the run follows from user,
address and key, so that Airflow itself refuses a second one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

import structlog
from fastapi import APIRouter, Depends, Header, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from ownership.domain.clock import now_ms
from ownership.domain.conf import MAX_EVENTS, ConfError, Reason, TransferForm, manual_events
from ownership.domain.contracts import Contract
from ownership.domain.event import LedgerId, folded
from ownership.domain.options import Digest
from ownership.ledger.events import EventRow
from ownership.page import access, airflow_facts
from ownership.page.access import User
from ownership.page.actions import (
    ABANDON,
    APPROVE,
    DECLINE,
    EXECUTE,
    REDRIVE,
    REHEARSE_UNDO,
    TRANSFER_DAG,
    UNDO,
    Action,
    ConfirmedAction,
    applies,
)
from ownership.page.api.models import Started, StartedTransfer
from ownership.page.api.problems import OF_BODIES, FieldError, Problem, ProblemError, wrong_field
from ownership.page.api.requests import JsonRoute
from ownership.page.starting import new_run_id, refused, trigger
from ownership.page.store import Ledger

log = structlog.get_logger(__name__)

KEY = "Idempotency-Key"
Key = Annotated[
    str | None,
    Header(
        alias=KEY,
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="The same key starts one run",
    ),
]
_ANSWERS: dict[int | str, dict[str, Any]] = {
    **OF_BODIES,
    404: {"model": Problem, "description": "There is no such transfer, or Airflow has no such DAG"},
    409: {"model": Problem, "description": "This does not apply as it is now"},
    502: {"model": Problem, "description": "Airflow failed to start the run"},
}

router = APIRouter(route_class=JsonRoute, tags=["orders"], responses=_ANSWERS)


class Batch(Contract):
    """Several transfers, for one run."""

    transfers: Annotated[tuple[TransferForm, ...], Field(min_length=1, max_length=MAX_EVENTS)]


class OfTransfer(Contract):
    """A transfer."""

    mid: LedgerId


class UndoOf(OfTransfer):
    """A transfer to take back; first as a dry run."""

    dry_run: Annotated[bool, Field(strict=True)] = True
    reason: Reason | None = None


class PlanOf(OfTransfer):
    """A plan as it was seen."""

    digest: Digest


class AppliedPlan(PlanOf):
    """The plan of a dry run, to be applied."""

    reason: Reason | None = None


class EndOf(OfTransfer):
    """A transfer to end, and why."""

    reason: Reason


class Caller:
    """A request of a user for a run."""

    def __init__(
        self, request: Request, response: Response, user: User, store: Ledger, key: Key = None
    ) -> None:
        self._request, self._response, self._user, self._store = request, response, user, store
        self._key = key
        self._address: str = request.scope["route"].path
        self._run_id = run_id_of(str(user.get_id()), self._address, key)

    async def create(self, conf: dict[str, Any], transfers: Mapping[str, TransferForm]) -> Started:
        """Start new transfers, each given with its place in the body."""
        await self._check_start(TRANSFER_DAG)
        self._check_organisations(transfers)
        _check_users(transfers)
        try:
            manual_events(conf, run_id=self._run_id, at_ms=now_ms())
        except ConfError as e:
            raise ProblemError(422, str(e), errors=[FieldError(field="", detail=str(e))]) from None
        mids = [f"manual:{self._run_id}:{n}" for n in range(len(transfers))]
        return await self._start(TRANSFER_DAG, conf, mids)

    async def act(
        self, action: Action, mid: str, *, reason: str | None = None, digest: str | None = None
    ) -> Started:
        """Start an action on a transfer, if it applies to it as it is now; `digest` is of its plan as it was seen."""
        await self._check_start(action.dag_id)
        event = await run_in_threadpool(self._store.event, mid)
        confirmed = ConfirmedAction(action, mid, digest, self._run_id)
        if await self._earlier(action.dag_id) is None:
            _check_applies(action, event, digest)
        return await self._start(
            action.dag_id, confirmed.conf(reason or ""), [confirmed.outcome_mid(event.state)]
        )

    def _check_organisations(self, transfers: Mapping[str, TransferForm]) -> None:
        hidden = [
            FieldError(field=f"{place}organisation_id", detail="is not among your organisations")
            for place, t in transfers.items()
            if not self._store.visible.has(t.organisation_id)
        ]
        if hidden:
            raise ProblemError(403, "You may not start transfers of this organisation.", errors=hidden[:10])

    async def _check_start(self, dag_id: str) -> None:
        await run_in_threadpool(access.check_start, dag_id, self._request, self._user)

    async def _earlier(self, dag_id: str) -> Mapping[str, Any] | None:
        """The conf of the run that the same key started before."""
        if self._key is None:
            return None
        return await run_in_threadpool(airflow_facts.run_conf, dag_id, self._run_id)

    async def _start(self, dag_id: str, conf: dict[str, Any], mids: Sequence[str]) -> Started:
        """Start the run, or find the one that the same request started before; its outcomes are seen under `mids`.

        :raises ProblemError: 422 if the key started another one; what Airflow answers, if it refuses.
        """
        answer = await trigger(self._request, dag_id, self._run_id, conf)
        earlier = await self._earlier(dag_id) if answer.status_code == 409 else None
        if earlier is not None and earlier != conf:
            raise wrong_field(KEY, "was sent before, with another body")
        if answer.status_code != 200 and earlier is None:
            raise refused(answer)
        log.info("run started by the API", dag=dag_id, run_id=self._run_id, by=self._user.get_name())
        # Relative to the request's address: Airflow may be served below any path.
        up = "../" * (self._address.count("/") - 1)
        started = [
            StartedTransfer(mid=m, href=f"{up}transfer?{urlencode({'mid': m, 'run': self._run_id})}")
            for m in mids
        ]
        self._response.headers["location"] = started[0].href
        paused = await run_in_threadpool(airflow_facts.is_paused, dag_id)
        return Started(dag_id=dag_id, run_id=self._run_id, paused=paused, transfers=started)


def run_id_of(user_id: str, address: str, key: str | None) -> str:
    """The id of the run to start; the same for the same key of the same user at the same address."""
    if key is None:
        return new_run_id()
    digest = hashlib.sha256(json.dumps([user_id, address, key]).encode()).hexdigest()
    return f"manual__key_{digest[:32]}"


def _conf_of(form: TransferForm) -> dict[str, Any]:
    return form.model_dump(mode="json", exclude_unset=True)


def _check_users(transfers: Mapping[str, TransferForm]) -> None:
    same = [
        FieldError(field=f"{place}to_user", detail="is the old user")
        for place, t in transfers.items()
        if folded(t.from_user) == folded(t.to_user)
    ]
    if same:
        raise ProblemError(422, f"{same[0].field}: {same[0].detail}", errors=same)


def _check_applies(action: Action, event: EventRow, digest: str | None) -> None:
    if not applies(action, event):
        raise HTTPException(409, action.refused(event.state))
    if digest is not None and digest != event.digest:
        raise ProblemError(
            409,
            "The transfer has another plan now: look at it again.",
            errors=[FieldError(field="digest", detail=f"is {event.digest} now")],
        )


Asked = Annotated[Caller, Depends()]


@router.post("/transfers", status_code=202, summary="Start a transfer, or a dry run of one")
async def create(asked: Asked, body: TransferForm) -> Started:
    """The run checks both users. What becomes of the transfer is at Location."""
    return await asked.create(_conf_of(body), {"": body})


@router.post("/transfers/batch", status_code=202, summary="Start several transfers in one run")
async def create_batch(asked: Asked, body: Batch) -> Started:
    """All or none: with a wrong field in one of them nothing is started, and the answer names each."""
    transfers = {f"transfers.{n}.": t for n, t in enumerate(body.transfers)}
    return await asked.create({"events": [_conf_of(t) for t in body.transfers]}, transfers)


@router.post("/transfer/undo", status_code=202, summary="Take a transfer back")
async def undo(asked: Asked, body: UndoOf) -> Started:
    """A dry run unless `dry_run` is false. The undo is a transfer of its own."""
    return await asked.act(REHEARSE_UNDO if body.dry_run else UNDO, body.mid, reason=body.reason)


@router.post("/transfer/execute", status_code=202, summary="Apply the plan of a dry run")
async def execute(asked: Asked, body: AppliedPlan) -> Started:
    """Exactly the plan with this digest; if rows have changed since, nothing is done."""
    return await asked.act(EXECUTE, body.mid, reason=body.reason, digest=body.digest)


@router.post("/transfer/approve", status_code=202, summary="Approve a transfer's plan")
async def approve(asked: Asked, body: PlanOf) -> Started:
    """Exactly the plan with this digest; if rows have changed since, it waits again with a new one."""
    return await asked.act(APPROVE, body.mid, digest=body.digest)


@router.post("/transfer/decline", status_code=202, summary="Decline a transfer")
async def decline(asked: Asked, body: EndOf) -> Started:
    """For one that awaits its approval. It ends without a change."""
    return await asked.act(DECLINE, body.mid, reason=body.reason)


@router.post("/transfer/redrive", status_code=202, summary="Try a transfer again")
async def redrive(asked: Asked, body: OfTransfer) -> Started:
    """A failed one at once; a skipped one as a new transfer."""
    return await asked.act(REDRIVE, body.mid)


@router.post("/transfer/abandon", status_code=202, summary="Give up an open transfer")
async def abandon(asked: Asked, body: EndOf) -> Started:
    """It ends for good. What it has moved until then stays moved."""
    return await asked.act(ABANDON, body.mid, reason=body.reason)
