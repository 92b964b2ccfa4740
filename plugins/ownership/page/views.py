"""From what the ledger has to what the page shows. Pure: no clock, no network."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, urlencode

from ownership.domain.clock import duration, from_ms, to_ms
from ownership.domain.compare import LABELS
from ownership.domain.contracts import PlanSummary
from ownership.domain.options import Options
from ownership.domain.queue import QueuedEvent
from ownership.domain.reconciliation import Report
from ownership.domain.states import OPEN_STATES, BatchOutcome, ChangeOutcome, EventState
from ownership.ledger.events import EventRow, RejectedMessage
from ownership.ledger.reads import (
    MAX_COUNTED,
    MAX_NARROWED,
    OPEN,
    STATES,
    BatchChange,
    BatchHop,
    ChangesPage,
    Filters,
    ListEntry,
    ListPage,
    Owners,
    PlannedBatch,
    Progress,
    to_cursor,
)
from ownership.page import payload
from ownership.page.actions import TRANSFER_DAG, UNDO_DAG, Action, offered
from ownership.reconcile.chart import trend_svg

CONFLICTS = (BatchOutcome.CHANGED_ELSEWHERE, BatchOutcome.GONE)
_RUN_ID = re.compile(
    r"(manual|scheduled|asset_triggered|backfill|operator_triggered)__\d{4}-(\d\d-\d\d)T(\d\d:\d\d:\d\d)"
)

WORDS: Mapping[str, str] = {
    EventState.RECEIVED: "received",
    EventState.PLANNED: "planned",
    EventState.APPLIED: "applied",
    EventState.COMPLETED: "completed",
    EventState.FAILED: "failed",
    EventState.AWAITING_APPROVAL: "awaiting approval",
    EventState.SKIPPED: "skipped",
    EventState.REJECTED: "rejected",
    EventState.ABANDONED: "abandoned",
    EventState.REHEARSED: "rehearsed",
    EventState.DECLINED: "declined",
}
"""A state as people read it; it is also the name of its colour."""


class Moment(NamedTuple):
    """A point in time: for machines, and for people (UTC)."""

    iso: str
    text: str


class RunLink(NamedTuple):
    """A run as Airflow knows it."""

    run_id: str
    dag_id: str
    state: str
    href: str


class Line(NamedTuple):
    """A transfer, or a rejected message, in the list."""

    mid: str
    href: str
    when: Moment
    state: str
    kind: str
    from_user: str
    to_user: str
    organisation: str
    requested_by: str
    moved: str
    conflicts: str
    lag: str
    run_id: str
    run: RunLink | None
    note: str


class Chip(NamedTuple):
    """A state, how many there are of it, and the list of only these."""

    state: str
    label: str
    total: str
    href: str
    chosen: bool


class ListView(NamedTuple):
    """The list."""

    lines: list[Line]
    chips: list[Chip]
    span: str
    newer: str | None
    older: str | None
    empty: str


class Step(NamedTuple):
    """One state on the way of an event."""

    label: str
    at: Moment | None
    status: str
    """`done`, `now`, `ahead`, `bad` or `stopped`."""
    note: str = ""


class Hop(NamedTuple):
    """One event of a composed lane."""

    mid: str
    href: str
    from_user: str
    to_user: str
    state: str
    this: bool


class Fact(NamedTuple):
    """Something known about an event."""

    name: str
    value: str
    href: str | None = None
    top: bool = False
    """True if the link leaves the page for Airflow's own."""


class ChangeLine(NamedTuple):
    """A batch, and what became of it."""

    course_id: str
    batch_id: str
    role: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    outcome: str
    row_at: Moment | None
    document_at: Moment | None
    note: str


class Bar(NamedTuple):
    """How far a transfer is."""

    percent: int
    text: str


class Detail(NamedTuple):
    """One transfer, or a rejected message, which has what has no default."""

    mid: str
    kind: str
    state: str
    final: bool
    sentence: str
    facts: list[Fact]
    steps: list[Step]
    event_text: str | None
    event_missing: str
    conf: str | None
    conf_dag: str
    actions: list[Action]
    from_user: str = ""
    to_user: str = ""
    from_name: str = ""
    to_name: str = ""
    bar: Bar | None = None
    tiles: Sequence[tuple[str, str, str]] = ()
    """Outcome, number, and its tone."""
    lane: Sequence[Hop] = ()
    plan: PlanSummary | None = None
    followed: Sequence[Line] = ()
    undone: str | None = None
    """State of the newest undo that is no dry run."""
    run: RunLink | None = None


# -- times and numbers ------------------------------------------------------------------------------------------


def moment(at: datetime | int | None) -> Moment | None:
    """A datetime or epoch ms; a time beyond the calendar is a question mark."""
    if at is None:
        return None
    try:
        value = (from_ms(at) if isinstance(at, int) else at).astimezone(UTC)
    except (OverflowError, OSError, ValueError):
        return Moment("", "?")
    return Moment(value.isoformat(timespec="milliseconds"), f"{value:%Y-%m-%d %H:%M:%S}")


def number(n: int) -> str:
    """With a separator of thousands."""
    return f"{n:,}"


def counted(n: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{number(n)} {one if n == 1 else many or one + 's'}"


def short(text: str, most: int = 22) -> str:
    """`text`, its middle left out where it is long: both ends of an id tell it from others."""
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[-(most - head - 1) :]}"


def run_label(run_id: str) -> str:
    """A run's kind and time, where its id says them as Airflow writes them."""
    found = _RUN_ID.match(run_id)
    if not found:
        return short(run_id)
    return f"{found[1].replace('_triggered', '').replace('_', ' ')} {found[2]} {found[3]}"


# -- addresses (all relative to the page's own, so that Airflow may be served below any path) -------------------


def detail_href(mid: str, **more: str) -> str:
    """Of a transfer."""
    return f"transfer?{urlencode({'mid': mid, **more})}"


def list_href(filters: Filters | None = None, **more: str) -> str:
    """Of the list, with its filters."""
    f = filters or Filters()
    query = {
        "user": f.user,
        "state": f.state,
        "run": f.run_id,
        "course": f.course_id,
        "batch": f.batch_id,
        "since": _for_field(f.since_ms),
        "before": _for_field(f.before_ms),
        **more,
    }
    told = urlencode({k: v for k, v in query.items() if v})
    return f"./?{told}" if told else "./"


def run_href(dag_id: str, run_id: str, task_id: str = "") -> str:
    """Of a run in Airflow's own pages."""
    end = f"/tasks/{quote(task_id, safe='')}" if task_id else ""
    return f"../dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}{end}"


def _for_field(at_ms: int | None) -> str:
    return "" if at_ms is None else f"{from_ms(at_ms):%Y-%m-%dT%H:%M}"


def at_ms(text: str) -> int | None:
    """Epoch ms of a form's date and time (UTC); None if it is empty, none, or beyond the calendar."""
    try:
        at = to_ms(datetime.fromisoformat(text))
        from_ms(at)
    except (ValueError, OverflowError):
        return None
    return at


# -- the list ---------------------------------------------------------------------------------------------------


def kind_of(mid: str, options: Options) -> str:
    """What sort of event it is, in a word or two; empty for a plain transfer."""
    if mid.startswith("rejected:"):
        return "message"
    kinds = [
        "dry run" if options.dry_run else "",
        "undo" if options.undo_of else "",
        "plan applied" if options.plan_of else "",
        "follow-up" if mid.endswith("+") else "",
        "restricted"
        if not options.whole and not (options.dry_run or options.undo_of or options.plan_of)
        else "",
    ]
    return ", ".join(k for k in kinds if k)


def line(entry: ListEntry, runs: Mapping[str, RunLink], *, now_ms: int) -> Line:
    """An event, or a rejected message, in the list."""
    counts = entry.counts
    known = entry.state in (EventState.COMPLETED, EventState.REHEARSED)
    conflicts = sum(counts.get(c, 0) for c in CONFLICTS)
    return Line(
        mid=entry.mid,
        href=detail_href(entry.mid),
        when=moment(entry.kafka_ms) or Moment("", ""),
        state=entry.state,
        kind=kind_of(entry.mid, entry.options),
        from_user=entry.from_user or "",
        to_user=entry.to_user or "",
        organisation=entry.organisation_id or "",
        requested_by=entry.requested_by or "",
        moved=number(counts.get(BatchOutcome.MOVED, 0)) if known else "",
        conflicts=number(conflicts) if known else "",
        lag=""
        if entry.state in (EventState.REJECTED, EventState.SKIPPED)
        else _lag(entry.kafka_ms, entry.ended_at, now_ms),
        run_id=entry.run_id or "",
        run=runs.get(entry.run_id or ""),
        note=(entry.reason or "") if entry.state != EventState.COMPLETED else "",
    )


def _lag(kafka_ms: int, ended_at: datetime | None, now_ms: int) -> str:
    """From the message to the end, or until now."""
    return duration((to_ms(ended_at) if ended_at else now_ms) - kafka_ms)


def list_view(
    filters: Filters, page: ListPage, runs: Mapping[str, RunLink], *, now_ms: int, first: bool = True
) -> ListView:
    """The whole list. `first`: it is the first page."""
    return ListView(
        lines=[line(e, runs, now_ms=now_ms) for e in page.entries],
        chips=_chips(filters, page),
        span=_span(filters, page),
        newer=None if first else list_href(filters),
        older=list_href(filters, after=to_cursor(page.next)) if page.next else None,
        empty=_empty(filters, first=first),
    )


def _chips(filters: Filters, page: ListPage) -> list[Chip]:
    of, total = page.counts.of, page.counts.total
    states = [s for s in STATES if of.get(s) or s == filters.state]
    chips = [Chip("", "all", number(total), list_href(filters._replace(state="")), not filters.state)]
    if filters.state == OPEN:
        open_ = sum(of.get(s, 0) for s in OPEN_STATES)
        chips.append(Chip(OPEN, "open", number(open_), list_href(filters), chosen=True))
    return chips + [
        Chip(s, WORDS[s], number(of.get(s, 0)), list_href(filters._replace(state=s)), s == filters.state)
        for s in states
    ]


def _span(filters: Filters, page: ListPage) -> str:
    """What the counts by state are about."""
    counts = page.counts
    oldest = moment(counts.oldest_ms)
    if counts.total < MAX_COUNTED:
        told = f"{counted(counts.total, 'transfer')} and messages fit, in all states."
    else:
        since = f", since {oldest.text[:-3]} UTC" if oldest else ""
        told = f"The counts are of the newest {number(MAX_COUNTED)} that fit{since}."
    if page.cut:
        what = "run" if filters.run_id else "batch" if filters.batch_id else "course"
        told += f" The list has the {number(MAX_NARROWED)} events of this {what} that arrived last."
    return told


def _empty(filters: Filters, *, first: bool) -> str:
    if not first:
        return "Nothing older fits these filters."
    if filters.run_id and filters == Filters(run_id=filters.run_id):
        return "This run has planned no transfer, and holds none."
    if filters.user:
        return "The ledger has no transfer from or to this user that fits."
    if filters != Filters():
        return "Nothing fits these filters."
    return "No transfer yet. One appears here as soon as an event arrives on the topic, or a run is started by hand."


# -- one transfer -----------------------------------------------------------------------------------------------


def detail(
    event: EventRow,
    body: bytes,
    *,
    now_ms: int,
    runs: Mapping[str, RunLink],
    queued: QueuedEvent | None = None,
    blocker: str | None = None,
    progress: Progress | None = None,
    lane: Sequence[ListEntry] = (),
    followed: Sequence[ListEntry] = (),
    may: Collection[str] = (),
) -> Detail:
    """Everything about one event. `may` are the DAGs that the user may start."""
    names = payload.names(body)
    undos = [f for f in followed if f.options.undo_of == event.mid and not f.options.dry_run]
    return Detail(
        mid=event.mid,
        kind=kind_of(event.mid, event.options) or "transfer",
        state=event.state,
        final=event.final,
        from_user=event.transfer.from_user,
        to_user=event.transfer.to_user,
        from_name=names.get("fromUserProfile", ""),
        to_name=names.get("toUserProfile", ""),
        sentence=_sentence(event, queued, blocker, now_ms),
        facts=_facts(event, runs, names, now_ms),
        bar=None if event.final or event.state == EventState.AWAITING_APPROVAL else _bar(event, progress),
        steps=_steps(event, queued, now_ms),
        tiles=_tiles(event.state, event.counts),
        lane=_lane(event, lane),
        plan=PlanSummary.model_validate_json(event.report) if event.report else None,
        followed=[line(f, runs, now_ms=now_ms) for f in followed],
        undone=undos[-1].state if undos else None,
        event_text=payload.shown(body),
        event_missing=_missing(body),
        conf=event.next_conf,
        conf_dag=UNDO_DAG if event.state == EventState.COMPLETED else TRANSFER_DAG,
        actions=[a for a in offered(event.state, event.counts, event.digest) if a.dag_id in may],
        run=runs.get(event.run_id or ""),
    )


def rejected(message: RejectedMessage) -> Detail:
    """Everything about a rejected message."""
    announced = moment(message.kafka_ms)
    return Detail(
        mid=message.mid,
        kind=kind_of(message.mid, Options()),
        state=EventState.REJECTED,
        final=True,
        sentence="This message is no transfer event; a copy is on the dead-letter topic.",
        facts=[
            Fact("Announced", f"{announced.text} UTC" if announced else "–"),
            Fact("Source", _source(message.origin, message.topic, message.partition, message.offset)),
            Fact("Mid in the message", message.message_mid or "–"),
        ],
        steps=[
            Step("announced", announced, "done"),
            Step(WORDS[EventState.REJECTED], moment(message.received_at), "bad", message.reason),
        ],
        event_text=payload.shown(message.body),
        event_missing=_missing(message.body),
        conf=message.next_conf,
        conf_dag=TRANSFER_DAG,
        actions=[],
    )


def _sentence(event: EventRow, queued: QueuedEvent | None, blocker: str | None, now_ms: int) -> str:
    """Is it finished, and what became of it?"""
    counts = event.counts
    moved = counted(counts.get(BatchOutcome.MOVED, 0), "batch", "batches")
    conflicts = sum(counts.get(c, 0) for c in CONFLICTS)
    but = f"; {number(conflicts)} left alone" if conflicts else ""
    again = ""
    if queued and queued.next_try_ms > now_ms:
        again = f" Tried again in {duration(queued.next_try_ms - now_ms)}, or at once by the button."
    waits = f"Waits for {short(blocker, 40)}, an earlier transfer of one of its users." if blocker else ""
    told = {
        EventState.RECEIVED: waits or "In the queue; a run takes it within seconds.",
        EventState.PLANNED: "Planned; its rows are being moved.",
        EventState.APPLIED: "Its rows are moved; the search index follows and is proven.",
        EventState.COMPLETED: f"Finished: {moved} moved{but}, and proven in both stores."
        if counts.get(BatchOutcome.MOVED) or conflicts
        else "Finished: there was nothing to move, which is proven in both stores.",
        EventState.FAILED: f"A try failed.{again}",
        EventState.AWAITING_APPROVAL: "Planned, and waiting until somebody approves it.",
        EventState.SKIPPED: "Nothing was done: the transfer is not valid.",
        EventState.ABANDONED: "Given up by an operator. What it had moved until then stays moved.",
        EventState.REHEARSED: f"A dry run: {moved} would change{but}. Nothing has changed.",
        EventState.DECLINED: "Refused. Nothing has changed.",
    }
    return told.get(event.state, "")


def _facts(event: EventRow, runs: Mapping[str, RunLink], names: Mapping[str, str], now_ms: int) -> list[Fact]:
    announced = moment(event.kafka_ms)
    who = event.requested_by or "nobody named"
    name = names.get("actionBy")
    facts = [
        Fact("Requested by", f"{who} ({name})" if name and name != who else who),
        Fact("Reason", event.request_reason or "none given"),
        Fact("Organisation", event.organisation_id or "–"),
        Fact("Announced", f"{announced.text} UTC" if announced else "–"),
        Fact(
            "Lag", "–" if event.state == EventState.SKIPPED else _lag(event.kafka_ms, event.ended_at, now_ms)
        ),
    ]
    run = runs.get(event.run_id or "")
    if run:
        facts.append(Fact("Run", f"{run.run_id} ({run.state})", run.href, top=True))
        settle = run_href(run.dag_id, run.run_id, "settle")
        facts.append(Fact("Log", "of settle", settle, top=True))
        facts.append(Fact("In the same run", "all its transfers", list_href(Filters(run_id=run.run_id))))
    elif event.run_id:
        facts.append(Fact("Run", f"{event.run_id} (Airflow has it no more)"))
    key = event.transfer.key
    facts.append(Fact("Source", _source(event.origin, event.topic, key.partition, key.offset)))
    if event.attempts > 1:
        facts.append(Fact("Tries", number(event.attempts)))
    if event.late:
        facts.append(Fact("Late", "a later transfer of its users had completed before it"))
    if event.giver_deleted:
        words = event.verdict.reason if event.verdict else ""
        facts.append(
            Fact("Giver deleted", f"{words}; only batches of the organisation, or of none, are transferred")
        )
    facts += _option_facts(event.options)
    if event.approved_by:
        facts.append(Fact("Approved by", event.approved_by))
    if event.digest:
        facts.append(Fact("Digest of its plan", event.digest))
    return facts


def _source(origin: str, topic: str, partition: int, offset: int) -> str:
    if origin == "kafka":
        return f"{topic}, partition {partition}, offset {offset}"
    return {"manual": "by hand"}.get(origin, origin)


def _option_facts(options: Options) -> list[Fact]:
    facts = []
    if options.undo_of:
        facts.append(Fact("Takes back", options.undo_of, detail_href(options.undo_of)))
    if options.plan_of:
        facts.append(Fact("Applies the plan of", options.plan_of, detail_href(options.plan_of)))
    if options.asset:
        facts.append(
            Fact("Only the asset", " ".join(filter(None, (options.asset.kind, options.asset.batch_id))))
        )
    if len(options.roles) == 1:
        facts.append(Fact("Only batches that they", "created" if options.roles[0] == "created" else "mentor"))
    if len(options.statuses) == 1:
        facts.append(Fact("Only batches that are", "upcoming" if options.statuses[0] == 0 else "ongoing"))
    if options.course_ids:
        more = f" and {number(len(options.course_ids) - 5)} more" if len(options.course_ids) > 5 else ""
        facts.append(Fact("Only courses", ", ".join(options.course_ids[:5]) + more))
    return facts


def _bar(event: EventRow, progress: Progress | None) -> Bar:
    """A bar that moves: received 3, planned 10 up to 70, applied up to 95 of a hundred."""
    p = progress or Progress(0, 0, 0)
    if event.state == EventState.RECEIVED or not p.planned:
        done = {EventState.RECEIVED: 3, EventState.PLANNED: 10, EventState.APPLIED: 75}.get(event.state, 3)
        words = {
            EventState.RECEIVED: "waiting for a run",
            EventState.PLANNED: "looking for batches",
            EventState.APPLIED: "proving",
        }
        return Bar(done, words.get(event.state, "waiting for its next try"))
    percent = round(10 + 60 * p.moved / p.planned + 25 * p.proven / p.planned)
    rows = f"{number(p.moved)} of {counted(p.planned, 'row')} moved"
    return Bar(percent, f"{rows}, {number(p.proven)} proven in both stores")


def _steps(event: EventRow, queued: QueuedEvent | None, now_ms: int) -> list[Step]:
    """The timeline: what was, what is, what is ahead."""
    state, reason = event.state, event.reason or ""
    way = (
        (EventState.RECEIVED, moment(event.received_at)),
        (EventState.PLANNED, moment(event.planned_at)),
        (EventState.APPLIED, moment(event.applied_at)),
    )
    steps = [Step("announced", moment(event.kafka_ms), "done")]
    steps += [Step(label, at, "done") for label, at in way if at]
    if state == EventState.COMPLETED:
        steps.append(Step(EventState.COMPLETED, moment(event.completed_at), "done"))
        if event.reproved_at:
            steps.append(Step("proven a second time", moment(event.reproved_at), "done"))
        return steps
    if event.final:
        status = "done" if state == EventState.REHEARSED else "stopped"
        return [*steps, Step(WORDS[state], moment(event.ended_at), status, reason)]
    if state in (EventState.FAILED, EventState.AWAITING_APPROVAL):
        if queued and queued.next_try_ms > now_ms:
            word = "waits until" if state == EventState.AWAITING_APPROVAL else "next try"
            at = moment(queued.next_try_ms)
            reason = f"{reason} ({word} {at.text if at else '?'} UTC)".strip()
        steps.append(Step(WORDS[state], None, "bad" if state == EventState.FAILED else "now", reason))
        return [*steps, Step(EventState.COMPLETED, None, "ahead")]
    if steps[-1].label == state:
        steps[-1] = steps[-1]._replace(status="now", note=reason)
    elif state in [s.label for s in steps]:
        # Planned before, and back in the queue.
        steps.append(Step(WORDS[state], None, "now", reason))
    rest = [EventState.PLANNED, EventState.APPLIED, EventState.COMPLETED][
        {EventState.RECEIVED: 0, EventState.PLANNED: 1, EventState.APPLIED: 2}.get(state, 0) :
    ]
    return steps + [Step(s, None, "ahead") for s in rest]


def _tiles(state: str, counts: Mapping[str, int]) -> list[tuple[str, str, str]]:
    if state not in (EventState.COMPLETED, EventState.REHEARSED) or not any(counts.values()):
        return []
    first = "would move" if state == EventState.REHEARSED else "moved"
    names = {
        BatchOutcome.MOVED: (first, "good"),
        BatchOutcome.ALREADY: ("already as wanted", ""),
        BatchOutcome.CHANGED_ELSEWHERE: ("changed elsewhere", "warn"),
        BatchOutcome.GONE: ("gone", "warn"),
        BatchOutcome.NOT_LIVE: ("not live", ""),
    }
    return [
        (words, number(counts.get(outcome, 0)), tone if counts.get(outcome) else "")
        for outcome, (words, tone) in names.items()
        if counts.get(outcome) or outcome in (BatchOutcome.MOVED, BatchOutcome.CHANGED_ELSEWHERE)
    ]


def _lane(event: EventRow, lane: Sequence[ListEntry]) -> list[Hop]:
    if len(lane) < 2:
        return []
    return [
        Hop(e.mid, detail_href(e.mid), e.from_user or "", e.to_user or "", e.state, e.mid == event.mid)
        for e in lane
    ]


def _missing(body: bytes) -> str:
    """Why the event is not shown."""
    if not body:
        return "The message was empty."
    return (
        f"The message has {counted(len(body), 'byte')} and is no JSON object, so it cannot be told what it carries; "
        "it is not shown here. The ledger and the dead-letter topic have it."
    )


# -- its changes ------------------------------------------------------------------------------------------------


def change_lines(page: ChangesPage) -> list[ChangeLine]:
    """The rows of the change table."""
    return [_change_line(c) for c in page.batches]


def _change_line(c: BatchChange) -> ChangeLine:
    """A batch by the hop that was applied, else by its plan, else by the last try."""
    applied = [h for h in c.hops if h.outcome in (ChangeOutcome.APPLIED, ChangeOutcome.LATE)]
    hop = applied[-1] if applied else None
    shown: BatchHop | PlannedBatch | None = hop or c.plan or (c.hops[-1] if c.hops else None)
    before, after = _owners(shown and shown.before), _owners(shown and shown.after)
    notes = []
    if hop and hop.hops > 1:
        notes.append(f"hop {hop.hop + 1} of {hop.hops}")
    if tries := len(c.hops) - len(applied):
        notes.append(f"{counted(tries, 'other try', 'other tries')}")
    if hop and hop.outcome == ChangeOutcome.LATE:
        notes.append("applied after the claim was lost")
    return ChangeLine(
        c.id.course_id,
        c.id.batch_id,
        (shown.role or "") if shown else "",
        before,
        after if after != before else (),
        (c.plan and c.plan.outcome) or (BatchOutcome.MOVED if hop else "planned"),
        moment(hop.applied_at) if hop else None,
        moment(c.plan.proven_at) if c.plan else None,
        ", ".join(notes),
    )


def _owners(owners: Owners | None) -> tuple[str, ...]:
    """Creator and mentors, a line each."""
    if owners is None:
        return ()
    created = (f"created by {owners.created_by}",) if owners.created_by is not None else ()
    return (*created, *(f"mentor {m}" for m in owners.mentors))


# -- reconciliations --------------------------------------------------------------------------------------------


class Compared(NamedTuple):
    """One reconciliation."""

    when: Moment | None
    run_id: str
    run: RunLink | None
    repair: bool
    verdict: str
    """`agree`, `differ` (more are left than may be) or `unfinished`."""
    rows: str
    documents: str
    left: str
    repaired: str
    in_flight: str
    kinds: str


class Difference(NamedTuple):
    """A batch of the newest report, as an example."""

    kind: str
    course_id: str
    batch_id: str
    row: str
    document: str
    note: str


class Reconciled(NamedTuple):
    """The last reconciliations."""

    sentence: str
    chart: str
    """An SVG, in which every text is escaped."""
    lines: list[Compared]
    samples: list[Difference]
    more: str
    """How many of the newest report's batches have no sample; empty if all have."""


def reconciled(reports: Sequence[Report], runs: Mapping[str, RunLink]) -> Reconciled:
    """The reports of the last runs, the newest first."""
    newest = reports[0] if reports else None
    return Reconciled(
        sentence=reconciled_in_short(newest),
        chart=trend_svg([r.point for r in reversed(reports)]),
        lines=[_compared(r, runs) for r in reports],
        samples=[
            Difference(LABELS.get(s.kind, s.kind), s.course_id, s.batch_id, s.row, s.document, s.note)
            for s in (newest.samples if newest else ())
        ],
        more=number(newest.more_samples) if newest and newest.more_samples else "",
    )


def reconciled_in_short(report: Report | None) -> str:
    """The newest report as a sentence."""
    if report is None:
        return "Rows and index were never compared."
    at = moment(report.ended_ms)
    when = f" on {at.text[:10]}" if at else ""
    if not report.complete:
        return f"The comparison of rows and index{when} did not end."
    if report.left:
        return f"{counted(report.left, 'difference')} between rows and index{when}."
    return f"Rows and index agreed{when}."


def _compared(r: Report, runs: Mapping[str, RunLink]) -> Compared:
    verdict = "unfinished" if not r.complete else "differ" if r.left > r.threshold else "agree"
    return Compared(
        moment(r.started_ms), r.run_id, runs.get(r.run_id), r.repair, verdict, number(r.rows), number(r.documents),
        number(r.left), number(r.repaired), number(r.in_flight),
        ", ".join(f"{number(n)} {LABELS.get(k, k)}" for k, n in r.counts.items()),
    )  # fmt: skip
