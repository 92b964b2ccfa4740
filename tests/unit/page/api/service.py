"""The API in this process, with a ledger of a few rows and an Airflow that only remembers its runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import HTTPException

from ownership.domain.errors import Unavailable
from ownership.domain.organisations import EVERYTHING, VisibleOrganisations
from ownership.domain.plan import BatchId
from ownership.domain.states import BatchOutcome, ChangeOutcome, EventState
from ownership.ledger.events import EventRow
from ownership.ledger.reads.batches import BatchChange, BatchHop, ChangesPage, Owners, PlannedBatch
from ownership.ledger.reads.lists import Filters, ListPage, OpenCounts, StateCounts
from ownership.page import access, airflow_facts
from ownership.page.access import visible_organisations
from ownership.page.actions import TRANSFER_DAG, UNDO_DAG
from ownership.page.api import orders
from ownership.page.api.app import api
from ownership.page.names import Names, process_names
from ownership.page.platform import Asked
from ownership.page.store import process_store
from ownership.page.views.links import RunLink
from ownership.platform.user_org import Users
from tests.unit.page.rows import AT, AT_MS, EVENT, LISTED, LISTED_MESSAGE, MESSAGE, key

BODY = b'{"edata": {"toUserProfile": {"firstName": "Ada", "phone": "555"}}}'
OWNERS = Owners("a", ("m",)), Owners("b", ("m",))
CHANGE = BatchChange(
    BatchId("c", "b"),
    PlannedBatch("created", *OWNERS, BatchOutcome.MOVED, AT),
    [BatchHop("created", *OWNERS, 0, 2, ChangeOutcome.APPLIED, AT)],
)


class NoUserOrg:
    """User-Org, which does not answer."""

    def ask(self, _question: Any) -> Any:
        raise Unavailable("User-Org", "down")


@dataclass
class Service:
    """The API, its ledger and its Airflow."""

    events: dict[str, EventRow] = field(default_factory=lambda: {EVENT.mid: EVENT})
    runs: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """Confs by DAG and run."""
    allowed: set[str] = field(default_factory=lambda: {TRANSFER_DAG, UNDO_DAG})
    user: str = "operator-1"
    visible: VisibleOrganisations = EVERYTHING
    names: Names = field(default_factory=lambda: Names(cast("Asked[Users]", NoUserOrg())))
    look: airflow_facts.LastLook | None = None
    airflow_says: int = 200
    asked_for: list[tuple[Filters, Any]] = field(default_factory=list)

    def ask(self, method: str, address: str, **how: Any) -> httpx.Response:
        """An answer of the API."""

        async def answered() -> httpx.Response:
            transport = httpx.ASGITransport(api)
            base = "http://airflow/ownership-transfers/api/v1"
            async with httpx.AsyncClient(transport=transport, base_url=base) as client:
                return await client.request(method, f"http://airflow{address}", **how)

        return asyncio.run(answered())

    def send(self, address: str, body: Any, key: str | None = None) -> httpx.Response:
        """A request for a run."""
        return self.ask("POST", address, json=body, headers={"Idempotency-Key": key} if key else {})

    # -- the ledger

    @contextmanager
    def reads(self, visible: VisibleOrganisations) -> Iterator[Any]:
        """What the page reads."""
        assert visible == self.visible
        yield SimpleNamespace(
            lists=SimpleNamespace(page=self._page, open_counts=lambda: OpenCounts(3, 1, more=False)),
            details=SimpleNamespace(
                event=self.events.get,
                rejected_message=lambda mid: MESSAGE if mid == MESSAGE.mid else None,
                queued=lambda _: None,
                followed_by=lambda _: [LISTED],
                lane=lambda _: [],
                short_bodies=lambda mids: dict.fromkeys(mids, BODY),
                body=lambda _: BODY,
            ),
            batches=SimpleNamespace(page=self._batches, progress=lambda _: None),
        )

    def _page(self, filters: Filters, after: Any) -> ListPage:
        self.asked_for.append((filters, after))
        return ListPage([LISTED, LISTED_MESSAGE], StateCounts({EventState.COMPLETED: 1}, AT_MS), key())

    def _batches(self, _: EventRow, after: BatchId | None) -> ChangesPage:
        self.asked_for.append((Filters(), after))
        return ChangesPage([CHANGE], None if after else CHANGE.id)

    # -- Airflow

    async def trigger(self, _: Any, dag_id: str, run_id: str, conf: dict[str, Any]) -> httpx.Response:
        """A run, unless there is one with its id."""
        if self.airflow_says != 200:
            return httpx.Response(self.airflow_says, json={"detail": "not today"})
        if (dag_id, run_id) in self.runs:
            return httpx.Response(409, json={"detail": "exists"})
        self.runs[dag_id, run_id] = conf
        return httpx.Response(200, json={})

    def check_start(self, dag_id: str, *_: Any) -> None:
        """Refuse what the user may not start."""
        if dag_id not in self.allowed:
            raise HTTPException(403, "Forbidden")


def looked(problems: dict[str, list[str]] | None, at: datetime = AT) -> airflow_facts.LastLook:
    """What the watch found."""
    return airflow_facts.LastLook(at, problems, "The verdict.")


def opened_service(monkeypatch: pytest.MonkeyPatch) -> Service:
    """The API for a user who may do everything, while the test runs."""
    made = Service()
    monkeypatch.setattr(orders, "trigger", made.trigger)
    monkeypatch.setattr(access, "check_start", made.check_start)
    monkeypatch.setattr(access, "may_start", lambda _: made.allowed)
    monkeypatch.setattr(airflow_facts, "run_conf", lambda dag, run: made.runs.get((dag, run)))
    monkeypatch.setattr(airflow_facts, "is_paused", lambda _: False)
    monkeypatch.setattr(airflow_facts, "last_look", lambda: made.look)
    monkeypatch.setattr(
        airflow_facts,
        "runs_of",
        lambda ids, *_: {r: RunLink(r, d, "running", "") for d, r in made.runs if r in list(ids)},
    )
    signed_in = access.User.__metadata__[0].dependency  # type: ignore[attr-defined]  # an Annotated

    def user() -> Any:
        return SimpleNamespace(get_id=lambda: made.user, get_name=lambda: made.user)

    given = {
        signed_in: user,
        access.MayRead.dependency: lambda: None,
        access.MayReadHealth.dependency: lambda: None,
        process_store: lambda: made,
        process_names: lambda: made.names,
        visible_organisations: lambda: made.visible,
    }
    monkeypatch.setattr(api, "dependency_overrides", given)
    return made
