"""From the facts of one look to what is wrong: a sentence for each problem, with what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from ownership.domain.backlog import BacklogFacts, HeldBack, QueueFacts
from ownership.domain.clock import MINUTE_MS, duration
from ownership.domain.installation import Host, HostKind, Silent, Tries, recent, unheard
from ownership.domain.installation import differences as host_differences
from ownership.domain.proven import ProvenCounts
from ownership.domain.reconciliation import Report, by_kind
from ownership.domain.reconciliation import failures as differences

TRANSACTION_MS = 10_000
"""A producer commits or aborts a transaction within moments; one that is open for this long is stuck."""
RETENTION_SHARE = 0.5
"""Above this share of the topic's retention, messages that no run has accepted are close to being deleted."""

UNWATCHED_MS = 10 * MINUTE_MS
"""A watcher that works has its triggerer reported once a minute."""
MAX_HOSTS = 5
"""Hosts that a sentence names."""


class Kind(StrEnum):
    """Kinds of problems."""

    PART = "part"
    AIRFLOW = "airflow"
    HOST = "host"
    LOST = "lost"
    TRANSACTION = "transaction"
    RETENTION = "retention"
    OVERDUE = "overdue"
    WATCHER = "watcher"
    BACKLOG = "backlog"
    DIFFERENCES = "differences"


OF_BACKLOG = frozenset({Kind.LOST, Kind.TRANSACTION, Kind.RETENTION, Kind.WATCHER, Kind.BACKLOG})
"""What the topic and the ledger tell."""


class Unreachable(NamedTuple):
    """A part that does not answer, or that is not set up."""

    part: str
    sentence: str


@dataclass(frozen=True)
class HealthFacts:
    """What one look found. Times in epoch ms."""

    at_ms: int
    unreachable: tuple[Unreachable, ...] = ()
    silent: tuple[Silent, ...] = ()
    parts_ahead_ms: Mapping[str, int] = field(default_factory=dict)
    """By part of Airflow, how far its last heartbeat is ahead of the ledger's clock; below zero if it is past."""
    hosts: tuple[Host, ...] = ()
    clock_limit_ms: int = 30_000
    """By how much the clock of a host may differ from the ledger's."""
    backlog: BacklogFacts | None = None
    """None if the topic cannot be read."""
    queue: QueueFacts | None = None
    """None if the ledger cannot be read."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """By mid, the state of an overdue event and why."""
    report: Report | None = None
    """Of the last reconciliation that ended."""
    proven: ProvenCounts | None = None
    """Of the events that were accepted within the last day; None if the ledger cannot be read."""


class Problem(NamedTuple):
    """Something that an operator must look at."""

    kind: Kind
    subjects: frozenset[str]
    """What it is about: mids, a run, partitions. Two problems of the same kind and subjects are the same."""
    sentence: str


def problems(facts: HealthFacts, *, deadline_minutes: int) -> list[Problem]:
    """What is wrong, the worst first; empty if all is well."""
    backlog = facts.backlog or BacklogFacts()
    return [
        *(Problem(Kind.PART, frozenset({u.part}), u.sentence) for u in facts.unreachable),
        *(Problem(Kind.AIRFLOW, frozenset({s.part}), _silent(s, facts.at_ms)) for s in _not_running(facts)),
        *_hosts(facts),
        *_lost(backlog),
        *_transactions(backlog, facts.at_ms),
        *_retention(backlog, facts.at_ms),
        *_overdue(facts, deadline_minutes),
        *_watcher(facts, deadline_minutes),
        *_backlog(backlog, facts.at_ms, deadline_minutes),
        *_differences(facts.report),
    ]


def sentence(facts: HealthFacts, found: list[Problem]) -> str:
    """All of it in one line."""
    if found:
        return " ".join(p.sentence if p.sentence.endswith(".") else f"{p.sentence}." for p in found)
    queue, backlog = facts.queue or QueueFacts(), facts.backlog or BacklogFacts()
    if not queue.open and not backlog.messages:
        return "Healthy: nothing is open."
    shares = (queue.held, "held by runs"), (queue.blocked, "blocked"), (queue.awaiting, "awaiting approval")
    parts = [f"{queue.open} open"] if queue.open else []
    parts += [f"{n} {word}" for n, word in shares if n]
    parts += [_messages(backlog.messages)] if backlog.messages else []
    parts += [_behind(h, facts.at_ms) for h in backlog.held_back]
    since = (
        f", the oldest for {duration(facts.at_ms - queue.oldest_ms)}" if queue.oldest_ms is not None else ""
    )
    return f"Healthy: {', '.join(parts)}{since}."


def _messages(n: int) -> str:
    return f"{n} message{'' if n == 1 else 's'} not pulled yet"


def _behind(held: HeldBack, at_ms: int) -> str:
    since = f" for {duration(at_ms - held.since_ms)}" if held.since_ms is not None else ""
    return f"{held.messages} of partition {held.partition} behind an open transaction{since}"


_AIRFLOW = {
    "metadatabase": ("metadata database", "no task starts", "its server, or [database] sql_alchemy_conn"),
    "scheduler": ("scheduler", "no task starts", "`airflow scheduler`"),
    "dag_processor": ("DAG processor", "changes of DAG files are not read", "`airflow dag-processor`"),
    "triggerer": ("triggerer", "no message starts a run before the hour is over", "`airflow triggerer`"),
}
"""Of a part of Airflow: what it is called, what does not happen without it, and what to start."""


def _not_running(facts: HealthFacts) -> Iterator[Silent]:
    """Without the parts that only seem dead to an API server whose own clock is ahead."""
    ahead = any(h.kind is HostKind.API_SERVER and h.clock_ahead_ms > 0 for h in _off_clocks(facts))
    for part in facts.silent:
        beats = part.heartbeat_ms is not None and facts.at_ms - part.heartbeat_ms < facts.clock_limit_ms
        if not (ahead and beats):
            yield part


def _silent(silent: Silent, at_ms: int) -> str:
    name, without, start = _AIRFLOW[silent.part]
    if silent.part == "metadatabase":
        return f"Airflow's {name} does not answer its API server, so {without}: look at {start}."
    heard = (
        f"had no heartbeat for {duration(at_ms - silent.heartbeat_ms)}"
        if silent.heartbeat_ms is not None
        else "never run"
    )
    return f"Airflow's {name} has {heard}, so {without}: start {start}."


def _hosts(facts: HealthFacts) -> Iterator[Problem]:
    hosts = _off_clocks(facts)
    off = {_name(h): h.clock_ahead_ms for h in hosts}
    kinds = {h.kind for h in hosts}  # what has told of its clock itself is not named by its heartbeat, too
    parts = {p: ms for p, ms in facts.parts_ahead_ms.items() if ms > facts.clock_limit_ms and p not in kinds}
    off |= {f"Airflow's {_AIRFLOW[p][0]}": ms for p, ms in parts.items()}
    if off:
        signs = "scheduler" in parts or kinds & {HostKind.SCHEDULER, HostKind.API_SERVER}
        tokens = " API servers refuse tokens that another clock has signed, so tasks fail." if signs else ""
        yield Problem(
            Kind.HOST,
            frozenset(f"clock of {name}" for name in off),
            f"Clocks differ from PostgreSQL's: {_listed([_off(name, ms) for name, ms in off.items()])}. Claims end too early or too late there, "
            f"which costs time and makes nothing wrong.{tokens} Let NTP set the clocks of all hosts.",
        )
    for trait, values in host_differences(recent(facts.hosts)).items():
        yield Problem(Kind.HOST, frozenset({trait}), _difference(trait, values))
    for name, tries in unheard(facts.hosts).items():
        yield Problem(Kind.HOST, frozenset({f"worker {name}"}), _unheard(name, tries))


def _off_clocks(facts: HealthFacts) -> list[Host]:
    return [h for h in recent(facts.hosts) if abs(h.clock_ahead_ms) > facts.clock_limit_ms]


_SECRETS = {
    "[api] secret_key": "the forms of the page and the requests for logs",
    "[api_auth] jwt_secret": "the logins and the tokens of tasks",
}
"""What is signed with a secret."""


def _difference(trait: str, values: Mapping[str, list[Host]]) -> str:
    if trait in _SECRETS:
        names = _listed([_name(h) for hosts in values.values() for h in hosts])
        return (
            f"{trait} is not the same on {names}: an API server refuses {_SECRETS[trait]} that were signed with another. "
            "Set the same on all of them."
        )
    having = "; ".join(f"{v} on {_listed([_name(h) for h in hosts])}" for v, hosts in values.items())
    if trait == "plugin":
        return f"The plugin is not the same on all hosts, {having}: deploy one image to all of them."
    return f"Connection '{trait}' does not lead to the same place everywhere, {having}: give all hosts the same one."


def _unheard(name: str, tries: Tries) -> str:
    if tries.succeeded:
        return (
            f"Tasks succeed on worker {name}, but it has never reported to the ledger: its Connection 'ownership_ledger' "
            "leads to another one. Give all workers the same, and see what its runs have done by that ledger."
        )
    return (
        f"The last {tries.failed} tries on worker {name} failed, and it has never reported to the ledger: it lacks the "
        "plugin, does not reach PostgreSQL, or reaches another ledger. The log of a task there says which."
    )


def _off(name: str, ahead_ms: int) -> str:
    return f"{name} is {duration(abs(ahead_ms))} {'ahead' if ahead_ms > 0 else 'behind'}"


def _name(host: Host) -> str:
    return f"{host.kind.replace('_', ' ').replace('api', 'API')} {host.name}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_HOSTS} more" if len(names) > MAX_HOSTS else ""
    return ", ".join(names[:MAX_HOSTS]) + more


def _lost(backlog: BacklogFacts) -> Iterator[Problem]:
    if backlog.deleted:
        yield Problem(
            Kind.LOST,
            frozenset({str(backlog.deleted)}),
            f"{backlog.deleted} messages were deleted from the topic before a run accepted them: give the topic a "
            "longer retention, and start the transfers that are missing by hand.",
        )


def _transactions(backlog: BacklogFacts, at_ms: int) -> Iterator[Problem]:
    # A time that is ahead is of a producer whose clock is: it says nothing about how long the transaction is open.
    stuck = [h for h in backlog.held_back if h.since_ms is None or abs(at_ms - h.since_ms) >= TRANSACTION_MS]
    if stuck:
        yield Problem(
            Kind.TRANSACTION,
            frozenset(str(h.partition) for h in stuck),
            f"Messages wait in the topic, {', '.join(_behind(h, at_ms) for h in stuck)}: no reader of committed "
            "messages gets past it. Let its producer commit or abort it; for a producer that is gone, find it with "
            "kafka-transactions.sh find-hanging and end it with kafka-transactions.sh abort.",
        )


def _retention(backlog: BacklogFacts, at_ms: int) -> Iterator[Problem]:
    if backlog.messages and backlog.retention_share >= RETENTION_SHARE:
        limits = backlog.retention
        names = [f"retention.ms, {duration(limits.ms)}"] if limits.ms is not None else []
        names += [f"retention.bytes, {limits.bytes}"] if limits.bytes is not None else []
        age = f", the oldest for {duration(at_ms - backlog.since_ms)}" if backlog.since_ms is not None else ""
        yield Problem(
            Kind.RETENTION,
            frozenset(),
            f"{_messages(backlog.messages)}{age}: that is {backlog.retention_share:.0%} of what the topic keeps "
            f"({'; '.join(names)}), after which Kafka deletes them unread. Give the topic a longer retention now, then "
            "see why no run pulls them.",
        )


def _overdue(facts: HealthFacts, deadline_minutes: int) -> Iterator[Problem]:
    queue = facts.queue or QueueFacts()
    late = queue.overdue
    if not late:
        return
    oldest = min(late, key=lambda r: r.accepted_ms)
    t = oldest.transfer
    said = (
        f"{len(late)} event{' is' if len(late) == 1 else 's are'} not proven {deadline_minutes} min after "
        f"{'it was' if len(late) == 1 else 'they were'} accepted; the oldest, {t.mid} ({t.from_user} to {t.to_user}), "
        f"is open for {duration(facts.at_ms - oldest.accepted_ms)}"
    )
    if why := facts.reasons.get(t.mid):
        said += f" and {why}"
    if n := queue.blocks.get(t.mid):
        said += f"; {n} other{'s wait' if n > 1 else ' waits'} for it"
    yield Problem(Kind.OVERDUE, frozenset(r.transfer.mid for r in late), said + ".")


def _watcher(facts: HealthFacts, deadline_minutes: int) -> Iterator[Problem]:
    """A triggerer may run and trigger nothing. While a store is down messages wait as well, but the watcher looks."""
    backlog = facts.backlog or BacklogFacts()
    seen_ms = max((h.seen_at_ms for h in facts.hosts if h.kind is HostKind.TRIGGERER), default=0)
    unwatched = bool(facts.hosts) and facts.at_ms - seen_ms > UNWATCHED_MS
    if unwatched and _is_old(backlog, facts.at_ms, deadline_minutes):
        since = f"for {duration(facts.at_ms - seen_ms)}" if seen_ms else "within a day"
        yield Problem(
            Kind.WATCHER,
            frozenset(),
            f"No triggerer has looked at the topic {since}, and messages wait: unpause the DAG user_ownership_transfer, "
            "or restart the triggerers.",
        )


def _backlog(backlog: BacklogFacts, at_ms: int, deadline_minutes: int) -> Iterator[Problem]:
    if backlog.since_ms is not None and _is_old(backlog, at_ms, deadline_minutes):
        yield Problem(
            Kind.BACKLOG,
            frozenset(),
            f"{_messages(backlog.messages)}, the oldest for {duration(at_ms - backlog.since_ms)}: is the DAG "
            "user_ownership_transfer unpaused, does the triggerer run, and what does pull_transfer_events say?",
        )


def _is_old(backlog: BacklogFacts, at_ms: int, deadline_minutes: int) -> bool:
    """True if a message has waited for longer than an event may take."""
    since_ms = backlog.since_ms
    return bool(backlog.messages) and since_ms is not None and at_ms - since_ms > deadline_minutes * MINUTE_MS


def _differences(report: Report | None) -> Iterator[Problem]:
    if report and "differences" in differences(report):
        yield Problem(
            Kind.DIFFERENCES,
            frozenset({report.run_id}),
            f"The last reconciliation, {report.run_id}, left {report.left} differences "
            f"({by_kind(report)}): look at its report, then run ownership_reconcile with repair.",
        )
