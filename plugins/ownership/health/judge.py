"""From what was seen to what is wrong: a sentence for each, with what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ownership.domain.backlog import QueueFacts
from ownership.domain.reconciliation import Report, by_kind
from ownership.domain.reconciliation import failures as differences

PART, OVERDUE, BACKLOG, LOST, DIFFERENCES = "part", "overdue", "backlog", "lost", "differences"
"""Kinds of problems."""


@dataclass(frozen=True)
class Seen:
    """What one look found. Times in epoch ms."""

    at_ms: int
    unreachable: tuple[str, ...] = ()
    """What each part said that did not answer, or is not set up."""
    backlog: int | None = None
    """Messages that the ledger has not read; None if the topic cannot be read."""
    backlog_since_ms: int | None = None
    """The broker's timestamp of the oldest of them."""
    deleted: int = 0
    """Messages that the topic deleted before they were accepted."""
    queue: QueueFacts | None = None
    """None if the ledger cannot be read."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """By mid, the state of an overdue event and why."""
    report: Report | None = None
    """Of the last reconciliation that ended."""


class Problem(NamedTuple):
    """Something that somebody must look at."""

    kind: str
    subjects: frozenset[str]
    """What it is about: mids, a run. Two problems of the same kind and subjects are the same."""
    sentence: str


def problems(seen: Seen, *, deadline_minutes: int) -> list[Problem]:
    """What is wrong, the worst first; nothing if all is well."""
    return [
        *(Problem(PART, frozenset({said.partition(" unavailable:")[0]}), said) for said in seen.unreachable),
        *_lost(seen),
        *_overdue(seen, deadline_minutes),
        *_backlog(seen, deadline_minutes),
        *_differences(seen),
    ]


def sentence(seen: Seen, found: list[Problem]) -> str:
    """All of it in one line."""
    if found:
        return " ".join(p.sentence if p.sentence.endswith(".") else f"{p.sentence}." for p in found)
    queue = seen.queue or QueueFacts()
    if not queue.open and not seen.backlog:
        return "Healthy: nothing is open."
    parts = [f"{queue.open} open"] if queue.open else []
    parts += [f"{n} {word}" for n, word in _shares(queue) if n]
    parts += [_messages(seen.backlog)] if seen.backlog else []
    since = f", the oldest for {lasted(seen.at_ms - queue.oldest_ms)}" if queue.oldest_ms is not None else ""
    return f"Healthy: {', '.join(parts)}{since}."


def _shares(queue: QueueFacts) -> tuple[tuple[int, str], ...]:
    return (queue.held, "held by runs"), (queue.blocked, "blocked"), (queue.awaiting, "awaiting approval")


def _messages(n: int | None) -> str:
    return f"{n} message{'' if n == 1 else 's'} not pulled yet"


def _lost(seen: Seen) -> Iterator[Problem]:
    if seen.deleted:
        yield Problem(
            LOST,
            frozenset({str(seen.deleted)}),
            f"{seen.deleted} messages were deleted from the topic before a run accepted them: give the topic a longer "
            "retention, and start the transfers that are missing by hand.",
        )


def _overdue(seen: Seen, deadline_minutes: int) -> Iterator[Problem]:
    late = seen.queue.overdue if seen.queue else ()
    if not late or seen.queue is None:
        return
    oldest = min(late, key=lambda r: r.accepted_ms)
    t = oldest.transfer
    said = (
        f"{len(late)} event{' is' if len(late) == 1 else 's are'} not proven {deadline_minutes} min after "
        f"{'it was' if len(late) == 1 else 'they were'} accepted; the oldest, {t.mid} ({t.from_user} to {t.to_user}), "
        f"is open for {lasted(seen.at_ms - oldest.accepted_ms)}"
    )
    if why := seen.reasons.get(t.mid):
        said += f" and {why}"
    if n := seen.queue.blocks.get(t.mid):
        said += f"; {n} other{'s wait' if n > 1 else ' waits'} for it"
    yield Problem(OVERDUE, frozenset(r.transfer.mid for r in late), said + ".")


def _backlog(seen: Seen, deadline_minutes: int) -> Iterator[Problem]:
    if seen.backlog and seen.backlog_since_ms is not None:
        age = seen.at_ms - seen.backlog_since_ms
        if age > deadline_minutes * 60_000:
            yield Problem(
                BACKLOG,
                frozenset(),
                f"{_messages(seen.backlog)}, the oldest for {lasted(age)}: is the DAG user_ownership_transfer "
                "unpaused, does the triggerer run, and what does pull_transfer_events say?",
            )


def _differences(seen: Seen) -> Iterator[Problem]:
    if seen.report and "differences" in differences(seen.report):
        yield Problem(
            DIFFERENCES,
            frozenset({seen.report.run_id}),
            f"The last reconciliation, {seen.report.run_id}, left {seen.report.left} differences "
            f"({by_kind(seen.report)}): look at its report, then run ownership_reconcile with repair.",
        )


def lasted(milliseconds: int) -> str:
    """A span of time in words."""
    seconds = max(milliseconds, 0) // 1000
    for unit, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"
