"""One transfer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ownership.domain.contracts import PlanSummary
from ownership.domain.options import Options
from ownership.domain.queue import QueuedEvent
from ownership.domain.states import BatchOutcome, EventState
from ownership.ledger.events import EventRow
from ownership.ledger.reads.batches import Progress
from ownership.ledger.reads.lists import Filters, ListedEvent
from ownership.page import payload
from ownership.page.actions import TRANSFER_DAG, UNDO_DAG, Action, offered
from ownership.page.views.formats import counted, moment, number
from ownership.page.views.links import RunLink, detail_href, list_href, run_href
from ownership.page.views.lists import ListLine, event_line, kind_of, lag
from ownership.page.views.timeline import ProgressBar, Step, progress_bar, sentence, timeline


class Fact(NamedTuple):
    """Something known about an event."""

    name: str
    value: str
    href: str | None = None
    top: bool = False
    """True if the link leaves the page for Airflow's own."""


class DetailView(NamedTuple):
    """One transfer."""

    mid: str
    kind: str
    state: EventState
    final: bool
    from_user: str
    to_user: str
    from_name: str
    to_name: str
    sentence: str
    facts: Sequence[Fact]
    bar: ProgressBar | None
    steps: Sequence[Step]
    tiles: Sequence[tuple[str, str, str]]
    """Outcome, number, and its tone."""
    lane: Sequence[ListedEvent]
    """Empty for an event by itself."""
    plan: PlanSummary | None
    followed: Sequence[ListLine]
    undone: EventState | None
    """State of the newest undo that is no dry run."""
    rehearsed_undo: str | None
    """Mid of the newest dry run of an undo."""
    event_text: str | None
    event_missing: str
    conf: str | None
    conf_dag: str
    actions: Sequence[Action]


def detail_view(
    event: EventRow,
    body: bytes,
    *,
    now_ms: int,
    runs: Mapping[str, RunLink],
    queued: QueuedEvent | None = None,
    blocker: str | None = None,
    progress: Progress | None = None,
    lane: Sequence[ListedEvent] = (),
    followed: Sequence[ListedEvent] = (),
    startable: Collection[str] = (),
) -> DetailView:
    """Everything about one event. `startable`: the DAGs that the user may start."""
    names = payload.names(body)
    undos = [f for f in followed if f.options.undo_of == event.mid]
    undone = [f.state for f in undos if not f.options.dry_run]
    rehearsed = [f.mid for f in undos if f.state == EventState.REHEARSED]
    return DetailView(
        mid=event.mid,
        kind=kind_of(event.origin, event.options) or "transfer",
        state=event.state,
        final=event.final,
        from_user=event.transfer.from_user,
        to_user=event.transfer.to_user,
        from_name=names.get("fromUserProfile", ""),
        to_name=names.get("toUserProfile", ""),
        sentence=sentence(event, queued, blocker, now_ms),
        facts=_facts(event, runs, names, now_ms),
        bar=None
        if event.final or event.state == EventState.AWAITING_APPROVAL
        else progress_bar(event, progress),
        steps=timeline(event, queued, now_ms),
        tiles=_tiles(event.state, event.counts),
        lane=lane if len(lane) > 1 else [],
        plan=PlanSummary.model_validate_json(event.report) if event.report else None,
        followed=[event_line(f, runs, now_ms=now_ms) for f in followed],
        undone=undone[-1] if undone else None,
        rehearsed_undo=rehearsed[-1] if rehearsed else None,
        event_text=payload.shown(body),
        event_missing=missing(body),
        conf=event.next_conf,
        conf_dag=UNDO_DAG if event.state == EventState.COMPLETED else TRANSFER_DAG,
        actions=[a for a in offered(event) if a.dag_id in startable],
    )


def _facts(event: EventRow, runs: Mapping[str, RunLink], names: Mapping[str, str], now_ms: int) -> list[Fact]:
    announced = moment(event.kafka_ms)
    request = event.request_id
    requester = event.requested_by or "not given"
    name = names.get("actionBy")
    facts = [
        Fact("Requested by", f"{requester} ({name})" if name and name != requester else requester),
        Fact("Reason", event.request_reason or "not given"),
        Fact("Organisation", event.organisation_id or "–"),
        Fact("Announced", f"{announced.text} UTC" if announced else "–"),
        Fact(
            "Lag", "–" if event.state == EventState.SKIPPED else lag(event.kafka_ms, event.ended_at, now_ms)
        ),
    ]
    run = runs.get(event.run_id or "")
    if run:
        facts.append(Fact("Run", f"{run.run_id} ({run.state})", run.href, top=True))
        settle = run_href(run.dag_id, run.run_id, "settle")
        facts.append(Fact("Log", "of settle", settle, top=True))
        facts.append(Fact("In the same run", "all its transfers", list_href(Filters(run_id=run.run_id))))
    elif event.run_id:
        facts.append(Fact("Run", f"{event.run_id} (no longer in Airflow)"))
    if request:
        facts.append(Fact("In the same request", request, list_href(Filters(request_id=request))))
    key = event.transfer.key
    facts.append(Fact("Source", source(event.origin, event.topic, key.partition, key.offset)))
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


def source(origin: str, topic: str, partition: int, offset: int) -> str:
    """Where an event or a message came from."""
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


def _tiles(state: EventState, counts: Mapping[str, int]) -> list[tuple[str, str, str]]:
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


def missing(body: bytes) -> str:
    """Why the message is not shown."""
    if not body:
        return "The message was empty."
    return (
        f"The message has {counted(len(body), 'byte')} and is no JSON object. It may hold personal data, "
        "so the page does not show it. The ledger and the dead-letter topic have it."
    )
