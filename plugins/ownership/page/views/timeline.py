"""How far an event is: a sentence, a bar, and the states on its way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ownership.domain.clock import duration
from ownership.domain.queue import QueuedEvent
from ownership.domain.states import BatchOutcome, EventState
from ownership.ledger.events import EventRow
from ownership.ledger.reads.batches import Progress
from ownership.page.views.formats import STATE_NAMES, Moment, counted, moment, number, short
from ownership.page.views.lists import CONFLICTS


class Step(NamedTuple):
    """One state on the way of an event."""

    label: str
    at: Moment | None
    status: str
    """`done`, `now`, `next`, `bad` or `stopped`."""
    note: str = ""


@dataclass(frozen=True)
class ProgressBar:
    """How far a transfer is."""

    percent: int
    text: str


def sentence(event: EventRow, queued: QueuedEvent | None, blocker: str | None, now_ms: int) -> str:
    """Whether it is finished, and its outcome."""
    counts = event.counts
    moved = counted(counts.get(BatchOutcome.MOVED, 0), "batch", "batches")
    conflicts = sum(counts.get(c, 0) for c in CONFLICTS)
    but = f"; {number(conflicts)} left alone" if conflicts else ""
    again = ""
    if queued and queued.next_try_ms > now_ms:
        again = f" The next one is in {duration(queued.next_try_ms - now_ms)}, or at once by the button."
    waits = ""
    if blocker is not None:
        waits = f"Waits for {short(blocker, 40)}, an earlier transfer of one of its users."
        if not blocker:  # that transfer is hidden
            waits = "Waits for an earlier transfer of one of its users."
    sentences = {
        EventState.RECEIVED: waits or "In the queue; a run claims it within seconds.",
        EventState.PLANNED: "Planned; its rows are being moved.",
        EventState.APPLIED: "Its rows are moved; the search index follows and is proven.",
        EventState.COMPLETED: f"Finished: {moved} moved{but}, and proven in both stores."
        if counts.get(BatchOutcome.MOVED) or conflicts
        else "Finished: there was nothing to move, which is proven in both stores.",
        EventState.FAILED: f"The last try failed.{again}",
        EventState.AWAITING_APPROVAL: "Planned. It waits for an operator's approval.",
        EventState.SKIPPED: "Nothing was done: the transfer is not valid.",
        EventState.ABANDONED: "Abandoned by an operator. What it had moved until then stays moved.",
        EventState.REHEARSED: f"A dry run: {moved} would change{but}. Nothing has changed.",
        EventState.DECLINED: "Declined. Nothing has changed.",
    }
    return sentences.get(event.state, "")


def progress_bar(event: EventRow, progress: Progress | None) -> ProgressBar:
    """How far it is: received 3 %, planned 10 to 70 %, applied up to 95 %."""
    p = progress or Progress(0, 0, 0)
    if event.state == EventState.RECEIVED or not p.planned:
        done, words = {
            EventState.RECEIVED: (3, "waiting for a run"),
            EventState.PLANNED: (10, "looking for batches"),
            EventState.APPLIED: (75, "proving"),
        }.get(event.state, (3, "waiting for its next try"))
        return ProgressBar(done, words)
    percent = round(10 + 60 * p.moved / p.planned + 25 * p.proven / p.planned)
    rows = f"{number(p.moved)} of {counted(p.planned, 'row')} moved"
    return ProgressBar(percent, f"{rows}, {number(p.proven)} proven in both stores")


def timeline(event: EventRow, queued: QueuedEvent | None, now_ms: int) -> list[Step]:
    """The states on its way: past, present and next ones."""
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
        return [*steps, Step(STATE_NAMES[state], moment(event.ended_at), status, reason)]
    if state in (EventState.FAILED, EventState.AWAITING_APPROVAL):
        if queued and queued.next_try_ms > now_ms:
            word = "waits until" if state == EventState.AWAITING_APPROVAL else "next try"
            at = moment(queued.next_try_ms)
            reason = f"{reason} ({word} {at.text if at else '?'} UTC)".strip()
        steps.append(Step(STATE_NAMES[state], None, "bad" if state == EventState.FAILED else "now", reason))
        return [*steps, Step(EventState.COMPLETED, None, "next")]
    if steps[-1].label == state:
        steps[-1] = steps[-1]._replace(status="now", note=reason)
    elif state in [s.label for s in steps]:
        # Planned before, and back in the queue.
        steps.append(Step(STATE_NAMES[state], None, "now", reason))
    whole = (*(s for s, _ in way), EventState.COMPLETED)
    return steps + [Step(s, None, "next") for s in whole[whole.index(state) + 1 :]]
