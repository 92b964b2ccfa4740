"""One transfer."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from ownership.domain.clock import now_ms
from ownership.domain.organisations import VisibleOrganisations
from ownership.domain.states import EventState
from ownership.ledger.events import EventRow
from ownership.ledger.reads import Reads
from ownership.page import access
from ownership.page.access import User
from ownership.page.cursors import BATCHES
from ownership.page.names import Names, UserNames
from ownership.page.rendering import rendered
from ownership.page.routes.parameters import AFTER, MID, TEXT
from ownership.page.store import Ledger
from ownership.page.views import links
from ownership.page.views.batches import change_lines
from ownership.page.views.details import DetailView, detail_view
from ownership.page.views.messages import message_view

router = APIRouter()


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
        runs=access.runs_of([event.run_id, *(f.run_id for f in followed)]),
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


@router.get("/transfer")
def transfer(
    user: User,
    store: Ledger,
    names: UserNames,
    mid: MID,
    after: AFTER = "",
    started: TEXT = "",
    part: TEXT = "",
) -> Response:
    """One transfer; `part=live` answers with only what moves while it is carried out."""
    run = access.runs_of([started]).get(started) if started else None
    with store.reads() as reads:
        event = reads.details.event(mid)
        if event is None:
            message = reads.details.rejected_message(mid)
            if message is None:
                return _not_there(mid, started, run, part)
            return rendered("live.html" if part == "live" else "message.html", view=message_view(message))
        view = detail(reads, event, user)
        if part == "live":
            return rendered("live.html", view=view)
        changed = reads.batches.page(event, BATCHES.key(after))
    older = links.detail_href(mid, after=BATCHES.text(changed.next)) + "#changes" if changed.next else None
    return rendered(
        "transfer.html",
        view=named(view, names, store.visible),
        changes=change_lines(changed),
        older=older,
        first=links.detail_href(mid) + "#changes" if after else None,
        started=started,
        run=run,
    )


def _not_there(mid: str, started: str, run: links.RunLink | None, part: str) -> Response:
    """An event that the ledger does not have, or not yet, if a run that brings it is under way."""
    coming = run is not None and not run.ended
    if part == "live":
        return rendered("live.html", 200 if coming else 404, view=None, run=run)
    return rendered("absent.html", 200 if coming else 404, mid=mid, started=started, run=run, coming=coming)
