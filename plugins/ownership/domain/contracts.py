"""What crosses the boundary between two tasks, as XCom: who, how many, which outcome.

Batches never cross it: they are in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from ownership.domain.errors import Permanent, VersionError
from ownership.domain.queue import ClaimedEvent

CONTRACT: Final = 1
"""Of what one task hands to the next. Raise it when a task of before cannot read it, or is not to."""


def _ours(found: int) -> int:
    # Not a ValueError, of which pydantic would make one of many complaints.
    if found > CONTRACT:
        raise VersionError(
            f"This worker is older than the run (contract {CONTRACT}, the run's is {found}): its image is to be replaced."
        )
    if found < CONTRACT:
        raise VersionError(
            f"The run is older than this worker (contract {found}, the worker's is {CONTRACT}): the next run takes its "
            "events."
        )
    return found


class Contract(BaseModel):
    """Frozen, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Versioned(Contract):
    """What another version of the job may have written."""

    contract: Annotated[int, AfterValidator(_ours)] = CONTRACT


V = TypeVar("V", bound=Versioned)
T = TypeVar("T")


def read(kind: type[V], value: Mapping[str, Any]) -> V:
    """What a task is handed.

    :raises VersionError: if another version of the job wrote it, and saying which is older where it is known.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as e:
        fields = ", ".join(sorted({".".join(map(str, error["loc"])) for error in e.errors()}))
        raise VersionError(
            f"The run and this worker are of different versions: what the task is handed cannot be read ({fields}). "
            "The next run takes its events."
        ) from None


def returned(value: T | None, task: str) -> T:
    """What `task` has returned to the task behind it.

    :raises Permanent: if there is nothing.
    """
    if value is None:
        raise Permanent(
            f"{task} has returned nothing: it was marked as a success by hand, or its XCom was deleted. Clear it with "
            "what comes after it; what is open is left to the next run."
        )
    return value


class StageInput(Versioned):
    """What a stage is given: a slice, or what the stage before it hands on."""

    label: str
    run_id: str
    waiting: tuple[ClaimedEvent, ...] = ()
    """Valid events for the next phases of the slice's lanes; none of them begins before these are committed."""

    def step(
        self,
        phases: Iterable[Phase],
        *,
        events: dict[str, int],
        batches: dict[str, int] | None = None,
        failures: dict[str, str] | None = None,
        waiting: Iterable[ClaimedEvent] | None = None,
    ) -> Work:
        """The same slice after a stage; what waits is the same unless it is given."""
        return Work(
            label=self.label,
            run_id=self.run_id,
            waiting=self.waiting if waiting is None else tuple(waiting),
            phases=tuple(phases),
            events={k: v for k, v in events.items() if v},
            batches={k: v for k, v in (batches or {}).items() if v},
            failures=dict(list((failures or {}).items())[:20]),
        )


class Slice(StageInput):
    """What one mapped instance of the stages works on: a lane, or several."""

    events: tuple[ClaimedEvent, ...]

    def under(self, claimed: Iterable[ClaimedEvent]) -> Self:
        """The same with the fencing tokens of `claimed`."""
        own = {e.mid: e for e in claimed}
        events, waiting = _replaced(self.events, own), _replaced(self.waiting, own)
        return self.model_copy(update={"events": events, "waiting": waiting})

    @property
    def claimed(self) -> tuple[ClaimedEvent, ...]:
        """What its first stage works on."""
        return self.events


class Phase(Contract):
    """The part of a lane that is applied at once."""

    events: tuple[ClaimedEvent, ...]
    """In order."""
    moves: dict[str, str]
    """Source user -> where the batches end up."""
    later: tuple[str, ...] = ()
    """Mids of transfers that come later and ended before."""

    @property
    def key(self) -> str:
        """What names the phase: the mid of its first event."""
        return self.events[0].mid


class Work(StageInput):
    """What a stage hands to the next: the phases, and counts for the operator who looks at the run."""

    phases: tuple[Phase, ...] = ()
    events: dict[str, int] = {}
    """Events by what became of them in this stage."""
    batches: dict[str, int] = {}
    """Batches by outcome."""
    failures: dict[str, str] = {}
    """Reason by mid, the first few."""

    def under(self, claimed: Iterable[ClaimedEvent]) -> Self:
        """The same with the fencing tokens of `claimed`."""
        own = {e.mid: e for e in claimed}
        phases = tuple(p.model_copy(update={"events": _replaced(p.events, own)}) for p in self.phases)
        return self.model_copy(update={"phases": phases, "waiting": _replaced(self.waiting, own)})

    @property
    def claimed(self) -> tuple[ClaimedEvent, ...]:
        """What the next stage works on."""
        return tuple(e for p in self.phases for e in p.events)


def _replaced(events: Iterable[ClaimedEvent], own: Mapping[str, ClaimedEvent]) -> tuple[ClaimedEvent, ...]:
    return tuple(own.get(e.mid, e) for e in events)


class Pulled(Versioned):
    """What `pull_transfer_events` found. The texts are for people."""

    slices: tuple[Slice, ...] = ()
    received: int = 0
    known: int = 0
    rejected: int = 0
    lost: int = 0
    """Messages that the topic deleted before a run accepted them."""
    claimed: int = 0
    follow_ups: int = 0
    notes: dict[str, str] = {}
    """What became of each order of the conf, by mid, and what is to be known of Kafka, by partition."""
    own: tuple[str, ...] = ()
    """Mids of the events that the run itself brought."""
    refused: dict[str, str] = {}
    """Why what the conf asked for was not done, by mid; it fails the run."""
    waits: dict[str, str] = {}
    """Why events stay in the queue, by mid: those of the run's conf, and a few others."""


class PlanLine(Contract):
    """One batch of a plan, as people read it: owners before and after, or why it will not change."""

    course_id: str
    batch_id: str
    role: str
    before: str
    after: str


class PlanSummary(Contract):
    """An event's plan as people read it: of a dry run, or of a transfer that awaits its approval."""

    mid: str
    from_user: str
    to_user: str
    state: str = ""
    digest: str
    """Of every change in it: the same digest means the same rows, before and after."""
    batches: int
    """Batches that would change."""
    roles: dict[str, int] = {}
    courses: dict[str, int] = {}
    """Batches that would change by course, the largest first; the rest is counted in `more_courses`."""
    more_courses: int = 0
    first: tuple[PlanLine, ...] = ()
    conflicts: int = 0
    """Batches that were found and would not change."""
    first_conflicts: tuple[PlanLine, ...] = ()
    next_conf: str = ""
    """What to trigger next, ready to paste."""


class Conflict(Contract):
    """A batch that an event left alone because another writer changed it."""

    mid: str
    course_id: str
    batch_id: str


class Summary(Contract):
    """How a run ended."""

    events: dict[str, int] = {}
    batches: dict[str, int] = {}
    failures: dict[str, str] = {}
    """Reason by mid of events that failed, or that this run was asked for and that were refused."""
    waits: dict[str, str] = {}
    """`Pulled.waits`, and why claimed events were not reached."""
    notes: dict[str, str] = {}
    """`Pulled.notes`, and why events were skipped, declined or abandoned."""
    plans: tuple[PlanSummary, ...] = ()
    """Plans of dry runs and of transfers that await approval."""
    conflicts: tuple[Conflict, ...] = ()
    """The first few."""
    users: dict[str, str] = {}
    """``from → to`` by mid of every event that is named above."""
    next_conf: dict[str, str] = {}
    """Ready-to-paste conf by mid, for events that need an operator."""

    @property
    def failed(self) -> int:
        """Events that are still open because a try failed."""
        return self.events.get("failed", 0)
