"""What carries the job: Airflow's parts, and the hosts of its schedulers, workers, triggerers and API servers. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from ownership.domain.clock import HOUR_MS, MINUTE_MS

RECENT_MS: Final = HOUR_MS
"""Of a host that has reported nothing for this long it is not known whether it is there still."""
TOGETHER_MS: Final = MINUTE_MS
"""Two hosts differ if they did for longer than this: while a Connection is changed, one has it before the other."""


class Silent(NamedTuple):
    """A part of Airflow that does not run, by Airflow's own judgement."""

    part: str
    """`metadatabase`, `scheduler`, `dag_processor` or `triggerer`."""
    heartbeat_ms: int | None = None
    """Of its last heartbeat, epoch ms; None if there has been none, and for the database."""


class HostKind(StrEnum):
    """What runs on a host."""

    SCHEDULER = "scheduler"
    WORKER = "worker"
    TRIGGERER = "triggerer"
    API_SERVER = "api_server"


class Tries(NamedTuple):
    """Tries on one worker that have ended, of tasks that report their host to the ledger."""

    succeeded: int
    failed: int


class Host(NamedTuple):
    """A host as it last reported itself to the ledger. Times in epoch ms, of the ledger's clock."""

    kind: HostKind
    name: str
    traits: Mapping[str, str]
    """What all hosts of a kind should have in common, by name: where a Connection leads, digests of secrets."""
    since_ms: int
    """Since when its traits are these."""
    seen_at_ms: int
    clock_ahead_ms: int
    """How far its clock is ahead of the ledger's; negative if behind."""
    tries: Mapping[str, Tries]
    """By worker, as Airflow's database has them; of API servers alone."""


def recent(hosts: Collection[Host]) -> list[Host]:
    """The hosts that are there, as far as it is known."""
    last = max((h.seen_at_ms for h in hosts), default=0)
    return [h for h in hosts if last - h.seen_at_ms < RECENT_MS]


def differences(hosts: Collection[Host]) -> dict[str, dict[str, list[Host]]]:
    """The traits in which hosts differ: by trait and value, the hosts that have it."""
    found: dict[str, dict[str, list[Host]]] = {}
    for trait in sorted({t for h in hosts for t in h.traits}):
        having = [h for h in hosts if trait in h.traits]
        for host in having:
            value = host.traits[trait]
            if any(h.traits[trait] != value and _at_once(h, host) for h in having):
                found.setdefault(trait, {}).setdefault(value, []).append(host)
    return found


def unheard(hosts: Collection[Host]) -> dict[str, Tries]:
    """Workers on which tries ended and that never reported, as API servers that are there see it.

    A single failed try says nothing: a worker that is new may have met an outage.
    """
    reported = {h.name for h in hosts if h.kind is HostKind.WORKER}
    seen: dict[str, Tries] = {}
    for host in sorted(recent(hosts), key=lambda h: h.seen_at_ms):
        seen |= host.tries
    return {
        name: tries
        for name, tries in seen.items()
        if name not in reported and (tries.succeeded or tries.failed > 1)
    }


def _at_once(one: Host, other: Host) -> bool:
    """True if both had their traits at the same time."""
    return min(one.seen_at_ms, other.seen_at_ms) - max(one.since_ms, other.since_ms) > TOGETHER_MS
