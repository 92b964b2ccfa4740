"""One transfer, as page and API show it."""

from __future__ import annotations

from ownership.domain.clock import now_ms
from ownership.domain.organisations import VisibleOrganisations
from ownership.domain.states import EventState
from ownership.ledger.events import EventRow
from ownership.ledger.reads import Reads
from ownership.page import access, airflow_facts
from ownership.page.access import User
from ownership.page.names import Names
from ownership.page.views.details import DetailView, detail_view


def detail(reads: Reads, event: EventRow, user: User) -> DetailView:
    """Everything about an event, and what the user may do about it."""
    now = now_ms()
    queued = None if event.final else reads.details.queued(event.mid)
    blocker = None
    if queued and not queued.is_held(now):
        blocker = reads.details.waits_for(queued)
    followed = reads.details.followed_by(event.mid)
    return detail_view(
        event,
        reads.details.body(event.mid),
        now_ms=now,
        runs=airflow_facts.runs_of([event.run_id, *(f.run_id for f in followed)]),
        queued=queued,
        blocker=blocker,
        progress=None if event.final or event.state == EventState.RECEIVED else reads.batches.progress(event),
        lane=reads.details.lane(event),
        followed=followed,
        startable=access.may_start(user),
    )


def named(view: DetailView, names: Names, visible: VisibleOrganisations) -> DetailView:
    """The same with names of its users, where the event has none and User-Org knows them."""
    users = ((view.from_user, view.from_name), (view.to_user, view.to_name))
    asked = names.of((u for u, n in users if not n), visible)
    return view._replace(
        from_name=view.from_name or asked.get(view.from_user, ""),
        to_name=view.to_name or asked.get(view.to_user, ""),
    )
