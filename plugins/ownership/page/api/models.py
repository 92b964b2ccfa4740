"""What the API answers, and how it is made from what the ledger has. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from ownership.domain import proven as counts
from ownership.domain.clock import calendar_time
from ownership.domain.contracts import PlanSummary
from ownership.domain.options import Options
from ownership.domain.states import EventState
from ownership.ledger.events import EventRow, RejectedMessage
from ownership.ledger.reads import batches
from ownership.ledger.reads.batches import BatchChange, ChangesPage
from ownership.ledger.reads.lists import ListedMessage, ListEntry, ListPage
from ownership.page import cursors
from ownership.page.payload import NO_NAMES, NamePair
from ownership.page.views.batches import chosen
from ownership.page.views.details import DetailView
from ownership.page.views.links import RunLink
from ownership.page.views.lists import kind_of
from ownership.page.views.questions import BatchNow
from ownership.page.views.timeline import ProgressBar


class Answer(BaseModel):
    """What the API answers, made of values or of what has attributes of the same names."""

    model_config = ConfigDict(from_attributes=True)


class Run(Answer):
    """A run as Airflow knows it."""

    dag_id: str
    run_id: str
    state: str


class ListedTransfer(Answer):
    """A transfer, or a message that is none, as a list has it."""

    mid: str
    state: EventState
    kind: str
    """`dry run`, `undo` and so on; empty for a plain transfer, `message` for a rejected message."""
    from_user: str | None = None
    to_user: str | None = None
    from_name: str | None = None
    """The event's own, or User-Org's; null if it is not known."""
    to_name: str | None = None
    organisation_id: str | None = None
    requested_by: str | None = None
    announced_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None
    """Why it is in this state."""
    counts: dict[str, int] = {}
    """Batches by outcome; `rows` is how many rows it changed."""
    run_id: str | None = None
    """The run that planned or skipped it last."""


class TransferList(Answer):
    """One page of transfers, newest first."""

    transfers: list[ListedTransfer]
    counts: dict[EventState, int]
    """By state, of the newest 1,000 that fit the other filters."""
    next: str | None
    """Give it as `after` for the next page; null on the last."""
    cut: bool
    """True if a run, course or batch has so many transfers that older ones are left out."""


class Transfer(ListedTransfer):
    """One transfer."""

    final: bool
    """True if the state never changes again."""
    sentence: str
    """Whether it is finished, and its outcome."""
    progress: ProgressBar | None = None
    options: Options = Options()
    request_reason: str | None = None
    request_id: str | None = None
    """The platform's API call that emitted it with others."""
    digest: str | None = None
    """Of its plan: what an approval, or the application of a dry run, repeats."""
    plan: PlanSummary | None = None
    approved_by: str | None = None
    tries: int = 0
    followed_by: list[str] = []
    """Mids of its undos, of what applied its plan, and of its follow-ups."""
    actions: list[str] = []
    """What the page offers the user to ask of it now; to abandon it is the API's alone."""
    started: Run | None = None
    """The run that was asked about."""


class Coming(Answer):
    """A transfer that the ledger does not have yet: the run that brings it is under way."""

    mid: str
    started: Run


class BatchOwners(Answer):
    """Creator and mentors of a batch."""

    created_by: str | None
    mentors: list[str]


class Change(Answer):
    """A batch that a transfer concerns."""

    course_id: str
    batch_id: str
    role: str | None
    before: BatchOwners | None
    after: BatchOwners | None
    outcome: str | None
    """Null while it is not decided."""
    row_changed_at: datetime | None
    proven_at: datetime | None
    """When row and document were proven to agree."""


class ChangeList(Answer):
    """One page of a transfer's batches, by course and batch."""

    changes: list[Change]
    next: str | None
    """Give it as `after` for the next page; null on the last."""


class BatchStep(Answer):
    """An event that concerned a batch, and what it did to it."""

    transfer: ListedTransfer
    change: Change
    undo_of: str | None


class BatchTimeline(Answer):
    """One page of what happened to a batch, newest first."""

    now: list[BatchNow]
    """Several where courses have batches of this id."""
    steps: list[BatchStep]
    next: int | None
    """Give it as `before` for the next page; null on the last."""
    notices: list[str]
    """Stores that did not answer."""


class ProvenCounts(Answer):
    """Accepted events by how far their proof is."""

    accepted: int
    in_time: int
    late: int
    overdue: int
    pending: int
    """Open, and within their deadline."""
    asked: int
    """Asked for an approval: no deadline."""
    unproven: int
    """Ended with nothing to prove: skipped, declined, abandoned, dry runs."""
    share: float | None
    """Of `in_time`, `late` and `overdue`, the first; null where there is none of the three."""


class Proven(Answer):
    """How many transfers were proven within their deadline."""

    deadline_minutes: int
    days: list[ProvenCounts]
    """Each is 24 hours, the newest first."""


class RequestProven(Answer):
    """How much of an API call is proven, of what has arrived."""

    request_id: str
    complete: bool
    arrived: int
    proven: int
    open: int
    ended: int
    """Ended without a proof: skipped, declined or abandoned."""
    rejected: int
    """Messages that are no transfers."""


class StartedTransfer(Answer):
    """Where an outcome will be seen."""

    mid: str
    href: str
    """Relative to the request's address."""


class Started(Answer):
    """A run that was started."""

    dag_id: str
    run_id: str
    paused: bool
    """True if the run waits, because its DAG is paused."""
    transfers: list[StartedTransfer]


class Health(Answer):
    """What the DAG `ownership_health` found last, and what is open now."""

    healthy: bool | None
    """Null before its first run."""
    sentence: str
    problems: dict[str, list[str]]
    """By kind, what each is about."""
    checked_at: datetime | None
    open: int
    awaiting_approval: int
    more: bool
    """True if more than `open` are."""


def transfer_list(page: ListPage, names: Mapping[str, NamePair]) -> TransferList:
    """A page of the list. `names`: of users, by mid."""
    return TransferList(
        transfers=[listed(e, names.get(e.mid, NO_NAMES)) for e in page.entries],
        counts=dict(page.counts.of),
        next=cursors.ENTRIES.text(page.next) if page.next else None,
        cut=page.cut,
    )


def listed(entry: ListEntry | EventRow, names: NamePair = NO_NAMES) -> ListedTransfer:
    """An entry of the list, or one transfer as the list has it."""
    if isinstance(entry, ListedMessage):
        return ListedTransfer(
            mid=entry.mid,
            state=EventState.REJECTED,
            kind="message",
            announced_at=calendar_time(entry.key.t),
            reason=entry.reason,
        )
    return ListedTransfer(
        mid=entry.mid,
        state=entry.state,
        kind=kind_of(entry.origin, entry.options),
        from_user=entry.transfer.from_user,
        to_user=entry.transfer.to_user,
        from_name=names.from_name or None,
        to_name=names.to_name or None,
        organisation_id=entry.organisation_id,
        requested_by=entry.requested_by,
        announced_at=calendar_time(entry.kafka_ms),
        ended_at=entry.ended_at,
        reason=entry.reason,
        counts=dict(entry.counts),
        run_id=entry.run_id,
    )


def transfer(event: EventRow, view: DetailView, started: RunLink | None) -> Transfer:
    """An event, with what the page shows of it. `started`: the run that was asked about."""
    return Transfer(
        **dict(listed(event, NamePair(view.from_name, view.to_name))),
        final=event.final,
        sentence=view.sentence,
        progress=view.bar,
        options=event.options,
        request_reason=event.request_reason,
        request_id=event.request_id,
        digest=event.digest,
        plan=view.plan,
        approved_by=event.approved_by,
        tries=event.attempts,
        followed_by=[line.mid for line in view.followed],
        actions=[a.name for a in view.actions],
        started=started,
    )


def rejected(message: RejectedMessage) -> Transfer:
    """A message that is no transfer."""
    return Transfer(
        mid=message.mid,
        state=EventState.REJECTED,
        kind="message",
        announced_at=calendar_time(message.kafka_ms),
        ended_at=message.received_at,
        reason=message.reason,
        request_id=message.request_id,
        final=True,
        sentence="Rejected: the message is no transfer.",
    )


def change_list(page: ChangesPage) -> ChangeList:
    """A page of a transfer's batches."""
    return ChangeList(
        changes=[_change(c) for c in page.batches],
        next=cursors.BATCHES.text(page.next) if page.next else None,
    )


def batch_timeline(
    found: batches.BatchTimeline, now: Sequence[BatchNow], notices: list[str]
) -> BatchTimeline:
    """A page of a batch's events."""
    return BatchTimeline(
        now=now,
        steps=[
            BatchStep(transfer=listed(s.event), change=_change(s.change), undo_of=s.event.options.undo_of)
            for s in found.steps
        ],
        next=found.next,
        notices=notices,
    )


def proven(days: Sequence[counts.ProvenCounts], deadline_minutes: int) -> Proven:
    """The counts of some days."""
    return Proven(
        deadline_minutes=deadline_minutes,
        days=[
            ProvenCounts(**d._asdict(), accepted=d.accepted, share=d.share if d.due else None) for d in days
        ],
    )


def request_proven(request_id: str, found: counts.RequestCounts) -> RequestProven:
    """The counts of a request."""
    return RequestProven(
        request_id=request_id,
        complete=found.arrived > 0 and found.complete,
        arrived=found.arrived,
        **found._asdict(),
    )


def _change(c: BatchChange) -> Change:
    hop, shown = chosen(c)
    return Change(
        course_id=c.id.course_id,
        batch_id=c.id.batch_id,
        role=shown.role if shown else None,
        before=shown.before if shown else None,
        after=shown.after if shown else None,
        outcome=(c.plan.outcome if c.plan else None) or ("moved" if hop else None),
        row_changed_at=hop.applied_at if hop else None,
        proven_at=c.plan.proven_at if c.plan else None,
    )
