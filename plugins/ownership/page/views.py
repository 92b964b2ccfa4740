"""From the ledger's rows to what the page shows. Pure: no clock, no network."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from ownership.changes import APPLIED as IMAGE_APPLIED
from ownership.changes import LATE as IMAGE_LATE
from ownership.contracts import PlanTold
from ownership.events import OrderKey, Transfer
from ownership.open_list import OpenRow
from ownership.options import Options
from ownership.page import payload
from ownership.page.actions import TRANSFER_DAG, UNDO_DAG, Action, offered
from ownership.page.reads import OPEN_EVENTS, BatchChange, Changed, Listed, Progress, Wanted
from ownership.plan import ALREADY, CHANGED_ELSEWHERE, GONE, MOVED, NOT_LIVE
from ownership.reconcile.chart import trend_svg
from ownership.reconcile.compare import WORDS as KIND_WORDS
from ownership.reconcile.report import Report
from ownership.states import (
    ABANDONED,
    APPLIED,
    AWAITING_APPROVAL,
    COMPLETED,
    DECLINED,
    FAILED,
    FINAL_STATES,
    OPEN_STATES,
    PLANNED,
    RECEIVED,
    REHEARSED,
    REJECTED,
    SKIPPED,
)

CONFLICTS = (CHANGED_ELSEWHERE, GONE)
_RUN_ID = re.compile(
    r"(manual|scheduled|asset_triggered|backfill|operator_triggered)__\d{4}-(\d\d-\d\d)T(\d\d:\d\d:\d\d)"
)
_MINUTE, _HOUR, _DAY = 60_000, 3_600_000, 86_400_000

WORDS: Mapping[str, str] = {
    RECEIVED: "received",
    PLANNED: "planned",
    APPLIED: "applied",
    COMPLETED: "completed",
    FAILED: "failed",
    AWAITING_APPROVAL: "awaiting approval",
    SKIPPED: "skipped",
    REJECTED: "rejected",
    ABANDONED: "abandoned",
    REHEARSED: "rehearsed",
    DECLINED: "declined",
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
    older_label: str
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
    """One transfer."""

    mid: str
    kind: str
    state: str
    final: bool
    from_user: str
    to_user: str
    from_name: str
    to_name: str
    sentence: str
    facts: list[Fact]
    bar: Bar | None
    steps: list[Step]
    tiles: list[tuple[str, str, str]]
    """Outcome, number, and its tone."""
    lane: list[Hop]
    plan: PlanTold | None
    followed: list[Line]
    undone: str | None
    """State of the newest undo that is no dry run."""
    event_text: str | None
    event_missing: str
    conf: str | None
    conf_dag: str
    actions: list[Action]
    run: RunLink | None


# -- times and numbers ------------------------------------------------------------------------------------------


def moment(at: datetime | int | None) -> Moment | None:
    """A datetime (naive is UTC, as the driver gives it) or epoch ms."""
    if at is None:
        return None
    try:
        value = datetime.fromtimestamp(at / 1000, UTC) if isinstance(at, int) else _utc(at)
    except (OverflowError, OSError, ValueError):
        return Moment("", "?")
    return Moment(value.isoformat(timespec="milliseconds"), f"{value:%Y-%m-%d %H:%M:%S}")


def epoch_ms(at: datetime | None) -> int | None:
    """The same in epoch ms."""
    return None if at is None else int(_utc(at).timestamp() * 1000)


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def duration(milliseconds: int) -> str:
    """A time span with two digits or so of truth."""
    ms = max(0, milliseconds)
    if ms < 10_000:
        return f"{ms / 1000:.1f} s"
    if ms < 2 * _MINUTE:
        return f"{ms / 1000:.0f} s"
    if ms < 2 * _HOUR:
        return f"{ms / _MINUTE:.0f} min"
    return f"{ms / _HOUR:.0f} h" if ms < 2 * _DAY else f"{ms / _DAY:.0f} days"


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


def list_href(wanted: Wanted | None = None, **more: str) -> str:
    """Of the list, with its filters."""
    w = wanted or Wanted()
    query = {
        "user": w.user,
        "state": w.state,
        "run": w.run_id,
        "since": _for_field(w.since_ms),
        "before": _for_field(w.before_ms),
        **more,
    }
    told = urlencode({k: v for k, v in query.items() if v})
    return f"./?{told}" if told else "./"


def run_href(dag_id: str, run_id: str, task_id: str = "") -> str:
    """Of a run in Airflow's own pages."""
    end = f"/tasks/{quote(task_id, safe='')}" if task_id else ""
    return f"../dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}{end}"


def _for_field(at_ms: int | None) -> str:
    return "" if at_ms is None else f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%dT%H:%M}"


def at_ms(text: str) -> int | None:
    """Epoch ms of a form's date and time (UTC); None if it is empty or none."""
    try:
        return int(_utc(datetime.fromisoformat(text)).timestamp() * 1000) if text else None
    except (ValueError, OverflowError):
        return None


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


def line(r: Any, runs: Mapping[str, RunLink], *, now_ms: int) -> Line:
    """An event's row in the list."""
    counts = dict(r.counts or {})
    known = r.state in (COMPLETED, REHEARSED)
    conflicts = sum(counts.get(c, 0) for c in CONFLICTS)
    ended = epoch_ms(r.completed_at or r.ended_at)
    lag = (ended if ended is not None else now_ms) - (r.kafka_ms or r.t or now_ms)
    return Line(
        mid=r.mid,
        href=detail_href(r.mid),
        when=moment(r.kafka_ms or r.t) or Moment("", ""),
        state=r.state,
        kind=kind_of(r.mid, Options.of(r.options)),
        from_user=r.from_user or "",
        to_user=r.to_user or "",
        organisation=r.organisation_id or "",
        requested_by=r.requested_by or "",
        moved=number(counts.get(MOVED, 0)) if known else "",
        conflicts=number(conflicts) if known else "",
        lag="" if r.state in (REJECTED, SKIPPED) else duration(lag),
        run_id=r.run_id or "",
        run=runs.get(r.run_id or ""),
        note=(r.reason or "") if r.state != COMPLETED else "",
    )


def list_view(wanted: Wanted, listed: Listed, runs: Mapping[str, RunLink], *, now_ms: int) -> ListView:
    """The whole list."""
    older = list_href(wanted, after=listed.cursor.text()) if listed.cursor else None
    lines = [line(r, runs, now_ms=now_ms) for r in listed.rows]
    return ListView(
        lines=lines,
        chips=_chips(wanted, listed),
        span=_span(wanted, listed),
        newer=list_href(wanted) if wanted.cursor else None,
        older=older,
        older_label="Older" if lines else "Look further back",
        empty=_empty(wanted, listed),
    )


def _chips(wanted: Wanted, listed: Listed) -> list[Chip]:
    states = [s for s in (*OPEN_STATES, *FINAL_STATES) if listed.states.get(s) or s == wanted.state]
    chips = [
        Chip("", "all", number(listed.looked), list_href(wanted._replace(state="")), not wanted.state),
    ]
    if wanted.state == OPEN_EVENTS:
        chips.append(Chip(OPEN_EVENTS, "open", number(listed.looked), list_href(wanted), chosen=True))
    return chips + [
        Chip(s, WORDS[s], number(listed.states[s]), list_href(wanted._replace(state=s)), s == wanted.state)
        for s in states
    ]


def _span(wanted: Wanted, listed: Listed) -> str:
    """What was looked through, so that nobody takes a page for everything."""
    looked = counted(listed.looked, "transfer")
    if wanted.run_id:
        return f"Looked at {looked} that this run planned or holds."
    if listed.from_ms is not None and listed.to_ms is not None:
        first, last = (_for_field(at).replace("T", " ") for at in (listed.from_ms, listed.to_ms))
        return f"Looked through {looked} and messages from {first} to {last} UTC."
    if wanted.user:
        return f"Looked at the newest {looked} of this user." if listed.cursor else f"{looked} of this user."
    return f"Looked at {looked} that are open."


def _empty(wanted: Wanted, listed: Listed) -> str:
    if wanted.run_id:
        return "This run has planned no transfer, and holds none."
    if listed.cursor:
        return "Nothing of that sort here; there may be some further back."
    if wanted.user:
        return "The ledger has no transfer from or to this user that fits."
    if wanted.state or wanted.since_ms is not None or wanted.before_ms is not None:
        return "Nothing fits these filters."
    return "No transfer yet. One appears here as soon as an event arrives on the topic, or a run is started by hand."


# -- one transfer -----------------------------------------------------------------------------------------------


def transfer_of(r: Any) -> Transfer | None:
    """What ordering needs of an event; None for a rejected message."""
    if r.from_user is None or r.to_user is None:
        return None
    key = OrderKey(r.t or 0, r.kafka_partition or 0, r.kafka_offset or 0, r.mid)
    return Transfer(key, r.from_user, r.to_user)


def detail(
    r: Any,
    *,
    now_ms: int,
    runs: Mapping[str, RunLink],
    queued: OpenRow | None = None,
    blocker: str | None = None,
    progress: Progress | None = None,
    lane: Sequence[Any] = (),
    followed: Sequence[Any] = (),
    may: Collection[str] = (),
) -> Detail:
    """Everything about one event. `may` are the DAGs that the user may start."""
    options = Options.of(r.options)
    counts = dict(r.counts or {})
    final = r.state in FINAL_STATES
    names = payload.names(r.payload or b"")
    followed_lines = [line(f, runs, now_ms=now_ms) for f in followed]
    undos = [
        f for f in followed if Options.of(f.options).undo_of == r.mid and not Options.of(f.options).dry_run
    ]
    text = payload.shown(r.payload or b"")
    return Detail(
        mid=r.mid,
        kind=kind_of(r.mid, options) or "transfer",
        state=r.state,
        final=final,
        from_user=r.from_user or "",
        to_user=r.to_user or "",
        from_name=names.get("fromUserProfile", ""),
        to_name=names.get("toUserProfile", ""),
        sentence=_sentence(r, counts, queued, blocker, now_ms),
        facts=_facts(r, options, runs, names, now_ms),
        bar=None if final or r.state == AWAITING_APPROVAL else _bar(r, progress),
        steps=_steps(r, queued, now_ms),
        tiles=_tiles(r.state, counts),
        lane=_lane(r, lane),
        plan=PlanTold.model_validate_json(r.report) if r.report else None,
        followed=followed_lines,
        undone=undos[-1].state if undos else None,
        event_text=text,
        event_missing=_missing(r.payload or b""),
        conf=r.next_conf,
        conf_dag=UNDO_DAG if r.state == COMPLETED else TRANSFER_DAG,
        actions=[a for a in offered(r.state, counts, r.digest) if a.dag_id in may],
        run=runs.get(r.run_id or ""),
    )


def _sentence(
    r: Any, counts: Mapping[str, int], queued: OpenRow | None, blocker: str | None, now_ms: int
) -> str:
    """Is it finished, and what became of it?"""
    moved = counted(counts.get(MOVED, 0), "batch", "batches")
    conflicts = sum(counts.get(c, 0) for c in CONFLICTS)
    but = f"; {number(conflicts)} left alone" if conflicts else ""
    again = ""
    if queued and queued.next_try_ms > now_ms:
        again = f" Tried again in {duration(queued.next_try_ms - now_ms)}, or at once by the button."
    waits = f"Waits for {short(blocker, 40)}, an earlier transfer of one of its users." if blocker else ""
    told = {
        RECEIVED: waits or "In the queue; a run takes it within seconds.",
        PLANNED: "Planned; its rows are being moved.",
        APPLIED: "Its rows are moved; the search index follows and is proven.",
        COMPLETED: f"Finished: {moved} moved{but}, and proven in both stores."
        if counts.get(MOVED) or conflicts
        else "Finished: there was nothing to move, which is proven in both stores.",
        FAILED: f"A try failed.{again}",
        AWAITING_APPROVAL: "Planned, and waiting until somebody approves it.",
        SKIPPED: "Nothing was done: the transfer is not valid.",
        REJECTED: "This message is no transfer event; a copy is on the dead-letter topic.",
        ABANDONED: "Given up by an operator. What it had moved until then stays moved.",
        REHEARSED: f"A dry run: {moved} would change{but}. Nothing has changed.",
        DECLINED: "Refused. Nothing has changed.",
    }
    return told.get(r.state, "")


def _facts(
    r: Any, options: Options, runs: Mapping[str, RunLink], names: Mapping[str, str], now_ms: int
) -> list[Fact]:
    said = moment(r.kafka_ms or r.t)
    ended = epoch_ms(r.completed_at or r.ended_at)
    lag = duration((ended if ended is not None else now_ms) - (r.kafka_ms or r.t or now_ms))
    who = r.requested_by or "nobody named"
    name = names.get("actionBy")
    facts = [
        Fact("Requested by", f"{who} ({name})" if name and name != who else who),
        Fact("Reason", r.request_reason or "none given"),
        Fact("Organisation", r.organisation_id or "–"),
        Fact("Announced", f"{said.text} UTC" if said else "–"),
        Fact("Lag", lag if r.state not in (REJECTED, SKIPPED) else "–"),
    ]
    run = runs.get(r.run_id or "")
    if run:
        facts.append(Fact("Run", f"{run.run_id} ({run.state})", run.href, top=True))
        settle = run_href(run.dag_id, run.run_id, "settle")
        facts.append(Fact("Log", "of settle", settle, top=True))
        facts.append(Fact("In the same run", "all its transfers", list_href(Wanted(run_id=run.run_id))))
    elif r.run_id:
        facts.append(Fact("Run", f"{r.run_id} (Airflow has it no more)"))
    if r.source == "kafka":
        facts.append(Fact("Source", f"{r.topic}, partition {r.kafka_partition}, offset {r.kafka_offset}"))
    else:
        facts.append(Fact("Source", {"manual": "by hand"}.get(r.source, r.source or "–")))
    if (r.attempts or 0) > 1:
        facts.append(Fact("Tries", number(r.attempts)))
    if r.late:
        facts.append(Fact("Late", "a later transfer of its users had completed before it"))
    facts += _option_facts(options)
    if r.approved_by:
        facts.append(Fact("Approved by", r.approved_by))
    if r.digest:
        facts.append(Fact("Digest of its plan", r.digest))
    return facts


def _option_facts(options: Options) -> list[Fact]:
    facts = []
    if options.undo_of:
        facts.append(Fact("Takes back", options.undo_of, detail_href(options.undo_of)))
    if options.plan_of:
        facts.append(Fact("Applies the plan of", options.plan_of, detail_href(options.plan_of)))
    if len(options.roles) == 1:
        facts.append(Fact("Only batches that they", "created" if options.roles[0] == "created" else "mentor"))
    if len(options.statuses) == 1:
        facts.append(Fact("Only batches that are", "upcoming" if options.statuses[0] == 0 else "ongoing"))
    if options.course_ids:
        more = f" and {number(len(options.course_ids) - 5)} more" if len(options.course_ids) > 5 else ""
        facts.append(Fact("Only courses", ", ".join(options.course_ids[:5]) + more))
    return facts


def _bar(r: Any, progress: Progress | None) -> Bar:
    """A bar that moves: received 5, planned up to 70, applied up to 95 of a hundred."""
    p = progress or Progress(0, 0, 0, sampled=False)
    about = "about " if p.sampled else ""
    if r.state == RECEIVED or not p.planned:
        done = {RECEIVED: 3, PLANNED: 10, APPLIED: 75}.get(r.state, 3)
        words = {RECEIVED: "waiting for a run", PLANNED: "looking for batches", APPLIED: "proving"}
        return Bar(done, words.get(r.state, "waiting for its next try"))
    moved, proven = p.moved / p.planned, p.proven / p.planned
    percent = round(10 + 60 * moved + 25 * proven)
    if p.sampled:
        return Bar(percent, f"{about}{moved:.0%} of its rows moved, {proven:.0%} proven in the search index")
    rows = f"{number(p.moved)} of {counted(p.planned, 'row')} moved"
    return Bar(percent, f"{rows}, {number(p.proven)} proven in both stores")


_WAY = (
    (RECEIVED, "received_at"),
    (PLANNED, "planned_at"),
    (APPLIED, "applied_at"),
    (COMPLETED, "completed_at"),
)


def _steps(r: Any, queued: OpenRow | None, now_ms: int) -> list[Step]:
    """The timeline: what was, what is, what is ahead."""
    steps: list[Step] = []
    announced = moment(r.kafka_ms or r.t)
    steps.append(Step("announced", announced, "done"))
    times = {state: moment(getattr(r, column)) for state, column in _WAY}
    ended = moment(r.ended_at)
    if r.state == COMPLETED:
        steps += [
            Step(state, times[state], "done") for state, _ in _WAY if times[state] or state == COMPLETED
        ]
        if r.reproved_at:
            steps.append(Step("proven a second time", moment(r.reproved_at), "done"))
        return steps
    steps += [Step(s, times[s], "done") for s in (RECEIVED, PLANNED, APPLIED) if times[s]]
    if r.state in FINAL_STATES:
        status = "bad" if r.state == REJECTED else "done" if r.state == REHEARSED else "stopped"
        if r.state == REJECTED:
            steps = steps[:1]
        return [*steps, Step(WORDS[r.state], ended, status, r.reason or "")]
    if r.state in (FAILED, AWAITING_APPROVAL):
        note = r.reason or ""
        if queued and queued.next_try_ms > now_ms:
            word = "waits until" if r.state == AWAITING_APPROVAL else "next try"
            at = moment(queued.next_try_ms)
            note = f"{note} ({word} {at.text if at else '?'} UTC)".strip()
        steps.append(Step(WORDS[r.state], None, "bad" if r.state == FAILED else "now", note))
        return [*steps, Step(COMPLETED, None, "ahead")]
    reached = [s.label for s in steps]
    if steps[-1].label == r.state:
        steps[-1] = steps[-1]._replace(status="now", note=r.reason or "")
    elif r.state in reached:
        # Planned before, and back in the queue.
        steps.append(Step(WORDS[r.state], None, "now", r.reason or ""))
    rest = [PLANNED, APPLIED, COMPLETED][{RECEIVED: 0, PLANNED: 1, APPLIED: 2}.get(r.state, 0) :]
    return steps + [Step(s, None, "ahead") for s in rest]


def _tiles(state: str, counts: Mapping[str, int]) -> list[tuple[str, str, str]]:
    if state not in (COMPLETED, REHEARSED) or not any(counts.values()):
        return []
    first = "would move" if state == REHEARSED else "moved"
    names = {
        MOVED: (first, "good"),
        ALREADY: ("already as wanted", ""),
        CHANGED_ELSEWHERE: ("changed elsewhere", "warn"),
        GONE: ("gone", "warn"),
        NOT_LIVE: ("not live", ""),
    }
    return [
        (words, number(counts.get(outcome, 0)), tone if counts.get(outcome) else "")
        for outcome, (words, tone) in names.items()
        if counts.get(outcome) or outcome in (MOVED, CHANGED_ELSEWHERE)
    ]


def _lane(r: Any, lane: Sequence[Any]) -> list[Hop]:
    if len(lane) < 2:
        return []
    return [
        Hop(e.mid, detail_href(e.mid), e.from_user or "", e.to_user or "", e.state, e.mid == r.mid)
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


def change_lines(changed: Changed) -> list[ChangeLine]:
    """The rows of the change table."""
    return [_change_line(c) for c in changed.batches]


def _change_line(c: BatchChange) -> ChangeLine:
    applied = [i for i in c.images if i.outcome in (IMAGE_APPLIED, IMAGE_LATE)]
    image = applied[-1] if applied else None
    shown = image or c.plan or (c.images[-1] if c.images else None)
    before, after = _owners(shown, "before"), _owners(shown, "after")
    outcome = c.plan.outcome if c.plan is not None else None
    document_at = c.plan.document_at if c.plan is not None else None
    notes = []
    if image is not None and (image.hops or 1) > 1:
        notes.append(f"hop {(image.hop or 0) + 1} of {image.hops}")
    tries = [i for i in c.images if i.outcome not in (IMAGE_APPLIED, IMAGE_LATE)]
    if tries:
        notes.append(f"{counted(len(tries), 'other try', 'other tries')}")
    if image is not None and image.outcome == IMAGE_LATE:
        notes.append("applied after the claim was lost")
    return ChangeLine(
        c.id.course_id,
        c.id.batch_id,
        (shown.role or "") if shown is not None else "",
        before,
        after if after != before else (),
        outcome or (MOVED if image is not None else "planned"),
        moment(image.row_at) if image is not None else None,
        moment(document_at),
        ", ".join(notes),
    )


def _owners(r: Any, name: str) -> tuple[str, ...]:
    """Creator and mentors, a line each."""
    if r is None:
        return ()
    creator, mentors = getattr(r, f"{name}_createdby"), getattr(r, f"{name}_mentors") or ()
    told = (f"created by {creator}",) if creator is not None else ()
    return (*told, *(f"mentor {m}" for m in mentors))


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
            Difference(KIND_WORDS.get(s.kind, s.kind), s.course_id, s.batch_id, s.row, s.document, s.note)
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
        ", ".join(f"{number(n)} {KIND_WORDS.get(k, k)}" for k, n in r.counts.items()),
    )  # fmt: skip
