"""The health of the job."""

from __future__ import annotations

from fastapi import APIRouter

from ownership.page import airflow_facts
from ownership.page.access import MayReadHealth, SeesEverything
from ownership.page.api import models
from ownership.page.api.problems import HIDDEN
from ownership.page.api.requests import JsonRoute
from ownership.page.store import Ledger

router = APIRouter(route_class=JsonRoute, tags=["health"])


@router.get(
    "/health",
    summary="The health of the job",
    dependencies=[MayReadHealth, SeesEverything],
    responses=HIDDEN,
)
def health(store: Ledger) -> models.Health:
    """What the DAG ownership_health found last (it looks every ten minutes), and what is open now."""
    look = airflow_facts.last_look()
    with store.reads() as reads:
        queue = reads.lists.open_counts()
    problems = look.problems if look else None
    if look is None:
        sentence, healthy = "The DAG ownership_health has not run yet.", None
    elif problems is None:
        sentence, healthy = "The last look did not end: see the last run of the DAG ownership_health.", False
    else:
        sentence, healthy = look.verdict, not problems
    return models.Health(
        healthy=healthy,
        sentence=sentence,
        problems={kind: list(about) for kind, about in (problems or {}).items()},
        checked_at=look and look.at,
        open=queue.events,
        awaiting_approval=queue.awaiting_approval,
        more=queue.more,
    )
