"""The health of the job."""

from __future__ import annotations

from fastapi import APIRouter

from ownership.page import access
from ownership.page.access import MayReadHealth
from ownership.page.api import models
from ownership.page.api.problems import HIDDEN
from ownership.page.api.requests import JsonRoute
from ownership.page.store import Ledger
from ownership.page.visible import SeesEverything

router = APIRouter(route_class=JsonRoute, tags=["health"])


@router.get(
    "/health",
    summary="The health of the job",
    dependencies=[MayReadHealth, SeesEverything],
    responses=HIDDEN,
)
def health(store: Ledger) -> models.Health:
    """What the DAG ownership_health found last (it looks every ten minutes), and what is open now."""
    look = access.last_look()
    with store.reads() as reads:
        queue = reads.lists.open_counts()
    return models.health(
        look and look.problems,
        look.verdict if look else "",
        look and look.at,
        open=queue.events,
        awaiting_approval=queue.awaiting_approval,
        more=queue.more,
    )
