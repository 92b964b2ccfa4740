"""The list of transfers and rejected messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from ownership.domain.clock import duration, to_ms
from ownership.domain.options import Options
from ownership.domain.states import OPEN_STATES, BatchOutcome, EventState
from ownership.domain.text import one_line
from ownership.ledger.reads.lists import (
    MAX_COUNTED,
    MAX_NARROWED,
    OPEN,
    STATES,
    Filters,
    ListedEvent,
    ListedMessage,
    ListPage,
)
from ownership.page.cursors import ENTRIES
from ownership.page.payload import NO_NAMES, NamePair
from ownership.page.views.formats import STATE_NAMES, Moment, counted, moment, number
from ownership.page.views.links import RunLink, detail_href, list_href

CONFLICTS = (BatchOutcome.CHANGED_ELSEWHERE, BatchOutcome.GONE)


class ListLine(NamedTuple):
    """An event, or a rejected message, which has what has no default."""

    mid: str
    href: str
    when: Moment
    state: EventState
    kind: str
    note: str
    from_user: str = ""
    to_user: str = ""
    organisation: str = ""
    requested_by: str = ""
    moved: str = ""
    conflicts: str = ""
    lag: str = ""
    run_id: str = ""
    run: RunLink | None = None
    from_name: str = ""
    to_name: str = ""


class Chip(NamedTuple):
    """A state, how many there are of it, and the list of only these."""

    state: str
    label: str
    total: str
    href: str
    chosen: bool


class ListView(NamedTuple):
    """The list."""

    lines: list[ListLine]
    chips: list[Chip]
    span: str
    newer: str | None
    older: str | None
    empty: str


def list_view(
    filters: Filters,
    page: ListPage,
    runs: Mapping[str, RunLink],
    names: Mapping[str, NamePair] = MappingProxyType({}),
    *,
    now_ms: int,
    first: bool = True,
) -> ListView:
    """The whole list. `names`: of users, by mid. `first`: it is the first page."""
    return ListView(
        lines=[
            message_line(e)
            if isinstance(e, ListedMessage)
            else event_line(e, runs, names.get(e.mid, NO_NAMES), now_ms=now_ms)
            for e in page.entries
        ],
        chips=_chips(filters, page),
        span=_span(filters, page),
        newer=None if first else list_href(filters),
        older=list_href(filters, after=ENTRIES.text(page.next)) if page.next else None,
        empty=_empty(filters, first=first),
    )


def kind_of(origin: str, options: Options) -> str:
    """The kind of an event in a word or two; empty for a plain transfer."""
    kinds = [
        "dry run" if options.dry_run else "",
        "undo" if options.undo_of else "",
        "plan applied" if options.plan_of else "",
        "follow-up" if origin == "follow-up" else "",
        "restricted"
        if not options.whole and not (options.dry_run or options.undo_of or options.plan_of)
        else "",
    ]
    return ", ".join(k for k in kinds if k)


def event_line(
    event: ListedEvent, runs: Mapping[str, RunLink], names: NamePair = NO_NAMES, *, now_ms: int
) -> ListLine:
    """An event in the list."""
    counts = event.counts
    has_counts = event.state in (EventState.COMPLETED, EventState.REHEARSED)
    conflicts = sum(counts.get(c, 0) for c in CONFLICTS)
    return ListLine(
        mid=event.mid,
        href=detail_href(event.mid),
        when=moment(event.kafka_ms) or Moment("", ""),
        state=event.state,
        kind=kind_of(event.origin, event.options),
        from_user=event.transfer.from_user,
        to_user=event.transfer.to_user,
        organisation=event.organisation_id or "",
        requested_by=event.requested_by or "",
        moved=number(counts.get(BatchOutcome.MOVED, 0)) if has_counts else "",
        conflicts=number(conflicts) if has_counts else "",
        lag="" if event.state == EventState.SKIPPED else lag(event.kafka_ms, event.ended_at, now_ms),
        run_id=event.run_id or "",
        run=runs.get(event.run_id or ""),
        note=(event.reason or "") if event.state != EventState.COMPLETED else "",
        from_name=names.from_name,
        to_name=names.to_name,
    )


def message_line(message: ListedMessage) -> ListLine:
    """A rejected message in the list."""
    return ListLine(
        mid=message.mid,
        href=detail_href(message.mid),
        when=moment(message.key.t) or Moment("", ""),
        state=EventState.REJECTED,
        kind="message",
        note=message.reason,
    )


def lag(kafka_ms: int, ended_at: datetime | None, now_ms: int) -> str:
    """From the message to the end, or until now."""
    return duration((to_ms(ended_at) if ended_at else now_ms) - kafka_ms)


def unread(filters: Filters, *, state: str, since: str, before: str) -> list[tuple[str, str]]:
    """What an address asks for and the list is not narrowed to, each with what it is not."""
    asked = (
        ("state", state, filters.state, "state"),
        ("since", since, filters.since_ms, "date and time"),
        ("before", before, filters.before_ms, "date and time"),
    )
    return [
        (f"{name}={one_line(text, 60)}", kind)
        for name, text, used, kind in asked
        if text and used in ("", None)
    ]


def _chips(filters: Filters, page: ListPage) -> list[Chip]:
    of, total = page.counts.of, page.counts.total
    states = [s for s in STATES if of.get(s) or s == filters.state]
    chips = [Chip("", "all", number(total), list_href(filters._replace(state="")), not filters.state)]
    if filters.state == OPEN:
        open_ = sum(of.get(s, 0) for s in OPEN_STATES)
        chips.append(Chip(OPEN, "open", number(open_), list_href(filters), chosen=True))
    return chips + [
        Chip(
            s, STATE_NAMES[s], number(of.get(s, 0)), list_href(filters._replace(state=s)), s == filters.state
        )
        for s in states
    ]


def _span(filters: Filters, page: ListPage) -> str:
    """What the counts by state are about."""
    counts = page.counts
    oldest = moment(counts.oldest_ms)
    if counts.total < MAX_COUNTED:
        text = f"{counted(counts.total, 'transfer')} and messages fit, in all states."
    else:
        since = f", since {oldest.text[:-3]} UTC" if oldest else ""
        text = f"The counts are of the newest {number(MAX_COUNTED)} that fit{since}."
    if page.cut:
        narrowed = {"run": filters.run_id, "batch": filters.batch_id, "course": filters.course_id}
        what = next(name for name, given in narrowed.items() if given)
        text += f" The list has the {number(MAX_NARROWED)} events of this {what} that arrived last."
    return text


def _empty(filters: Filters, *, first: bool) -> str:
    if not first:
        return "Nothing older fits these filters."
    if filters.run_id and filters == Filters(run_id=filters.run_id):
        return "This run has planned no transfer and holds none."
    if filters == Filters(request_id=filters.request_id) != Filters():
        return "Nothing of this request has arrived."
    if filters.user:
        return "The ledger has no transfer from or to this user that fits."
    if filters != Filters():
        return "Nothing fits these filters."
    return "No transfer yet. One appears as soon as an event arrives on the topic, or an operator starts a run with one."
