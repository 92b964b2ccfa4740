"""The workloads: the people, batches and events of each, and who must own the batches at the end. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from local.demo.story import COMPLETED, Message, expected_owners
from local.platform.stores import Owners
from local.platform.world import Batch, User, transfer_event

ORGANISATION = "org-bench"
BATCHES_A_COURSE = 10
SEED = 16
"""Of the random transfers: every measurement has the same ones."""


@dataclass(frozen=True)
class Load:
    """What one measurement puts into the stores and sends."""

    tag: str
    """Part of every id: no two loads share a user or a batch."""
    users: list[User]
    batches: list[Batch]
    events: list[dict[str, Any]]
    owners: Mapping[str, Owners]
    """At the end, by batch id."""


@dataclass(frozen=True)
class Workload:
    """One line of the table."""

    name: str
    title: str
    owners: int
    batches: int
    """Batches of each owner."""
    events: int = 1
    """Events of each owner: one for each asset of a request."""
    tangled: int = 0
    """Random transfers among the owners, in place of one from each owner to somebody new."""
    flink: tuple[float, float] | None = None
    """Seconds of the Flink job: stores on the same machine, stores 1 ms away; `docs/performance.md` has the conditions."""
    large: bool = False
    timeout_s: float = 120

    @property
    def group(self) -> str:
        """Name under which it is chosen, with others that differ in a number behind a dash."""
        return self.name.partition("-")[0]

    @property
    def rows(self) -> int:
        """Batches of all owners."""
        return self.owners * self.batches

    def load(self, tag: str) -> Load:
        """Its users, batches and events under ids with `tag`; the events are of now."""
        return _tangle(self, tag) if self.tangled else _pairs(self, tag)


def _pairs(workload: Workload, tag: str) -> Load:
    pairs = {f"old-{tag}-{n}": f"new-{tag}-{n}" for n in range(workload.owners)}
    batches = [
        Batch(f"do_{tag}_{o}_{n // BATCHES_A_COURSE}", f"{tag}-{o}-{n}", created_by=old)
        for o, old in enumerate(pairs)
        for n in range(workload.batches)
    ]
    events = [
        transfer_event(old, new, ORGANISATION, request_id=tag, asset={"identifier": f"do_{n}"})
        for old, new in pairs.items()
        for n in range(workload.events)
    ]
    owners = {b.batch_id: Owners(pairs[str(b.created_by)], ()) for b in batches}
    return Load(tag, [User(u, ORGANISATION) for pair in pairs.items() for u in pair], batches, events, owners)


def _tangle(workload: Workload, tag: str) -> Load:
    """Each batch has another of the people as its mentor. The expected owners come from a plain replay."""
    rng = Random(SEED)
    people = [f"person-{tag}-{n}" for n in range(workload.owners)]
    batches = [
        Batch(f"do_{tag}_{n // BATCHES_A_COURSE}", f"{tag}-{n}", creator, [mentor])
        for n in range(workload.rows)
        for creator, mentor in [rng.sample(people, 2)]
    ]
    transfers = [rng.sample(people, 2) for _ in range(workload.tangled)]
    events = [transfer_event(old, new, ORGANISATION, request_id=tag) for old, new in transfers]
    messages = [
        Message("a transfer", COMPLETED, event, old, new)
        for event, (old, new) in zip(events, transfers, strict=True)
    ]
    return Load(
        tag, [User(p, ORGANISATION) for p in people], batches, events, expected_owners(batches, messages)
    )


WORKLOADS = (
    Workload("event", "one event, 6 batches", 1, 6, flink=(0.15, 0.27)),
    Workload("owner", "one owner, 5,000 batches", 1, 5_000, flink=(8.9, 24)),
    Workload("burst", "200 owners × 12 batches at once", 200, 12, flink=(9.8, 16)),
    Workload("request", "one request, 500 assets, 12 batches", 1, 12, events=500),
    Workload("tangle", "60 random transfers among 25 people", 25, 4, tangled=60, timeout_s=300),
    Workload("flood", "2,000 owners × 12 batches", 2_000, 12, timeout_s=200),
    Workload("whale", "one owner, 100,000 batches", 1, 100_000, large=True, timeout_s=1_200),
)
LANES = tuple(
    Workload(f"lanes-{n}", f"{n} unrelated events, 12 batches each", n, 12) for n in (1, 2, 4, 8, 16, 50)
)
"""What an instance of each stage per lane costs: measure with `max_mapped` 1, with 1024, and without."""
