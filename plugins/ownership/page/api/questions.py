"""Questions: what happened to a batch, what a user holds now, what is proven."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from ownership.domain.clock import now_ms
from ownership.page.api import models
from ownership.page.api.problems import Problem
from ownership.page.api.requests import JsonRoute
from ownership.page.parameters import ID, TEXT
from ownership.page.platform import Stores
from ownership.page.questions import BEFORE, PAGE, batch_history, holdings
from ownership.page.settings import JobSettings
from ownership.page.store import Ledger
from ownership.page.views.proven import DAYS
from ownership.page.views.questions import UserBatches

router = APIRouter(route_class=JsonRoute, tags=["questions"])


@router.get("/batch/timeline", summary="What happened to a batch, newest first")
def timeline(
    store: Ledger, stores: Stores, batch: ID, course: TEXT = "", before: BEFORE = None
) -> models.BatchTimeline:
    """One page of 50 events, and the batch as row and document have it now."""
    return models.batch_timeline(*batch_history(store, stores, batch, course, before))


@router.get(
    "/user/batches",
    summary="The batches that a user holds now",
    responses={404: {"model": Problem, "description": "No user of an organisation that the caller may see"}},
)
def batches(
    store: Ledger, stores: Stores, who: Annotated[ID, Query(alias="user")], page: PAGE = 1
) -> UserBatches:
    """One page of 50, by batch: row and document side by side, and how they differ."""
    return holdings(store, stores, who, page)


@router.get("/request", summary="How much of an API call of the platform is proven")
def request(store: Ledger, request: ID) -> models.RequestProven:
    """Of the events and rejected messages that have arrived of it; the platform does not say how many it sent."""
    with store.reads() as reads:
        return models.request_proven(request, reads.proven.request(request))


@router.get("/proven", summary="How many transfers were proven within their deadline")
def proven(store: Ledger, settings: JobSettings) -> models.Proven:
    """Of the last 30 times 24 hours by acceptance, the newest first."""
    minutes = settings().deadline_minutes
    with store.reads() as reads:
        return models.proven(reads.proven.days(DAYS, at_ms=now_ms(), deadline_minutes=minutes), minutes)
