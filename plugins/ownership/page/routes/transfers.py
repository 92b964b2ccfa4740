"""One transfer."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from ownership.page import airflow_facts
from ownership.page.access import User
from ownership.page.cursors import BATCHES
from ownership.page.details import detail, named
from ownership.page.names import UserNames
from ownership.page.parameters import AFTER, ID, TEXT
from ownership.page.rendering import rendered
from ownership.page.store import Ledger
from ownership.page.views import links
from ownership.page.views.batches import change_line
from ownership.page.views.messages import message_view

router = APIRouter()


@router.get("/transfer")
def transfer(
    user: User,
    store: Ledger,
    names: UserNames,
    mid: ID,
    after: AFTER = "",
    started: TEXT = "",
    part: TEXT = "",
) -> Response:
    """One transfer; `part=live` answers with only what moves while it is carried out."""
    run = airflow_facts.runs_of([started]).get(started) if started else None
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
        changes=[change_line(c) for c in changed.batches],
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
