"""What orders of an operator must come to: a plain model of events and owners. Pure; it knows nothing of the product.

Events take effect one after the other, in the order in which they came. One that waits for an approval holds back the
later ones of its users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from simulation.replay import Event, finals
from simulation.setup import BatchSpec

OPEN, AWAITING = "open", "awaiting_approval"
COMPLETED, SKIPPED, REHEARSED, DECLINED, ABANDONED = (
    "completed",
    "skipped",
    "rehearsed",
    "declined",
    "abandoned",
)

Owners = tuple[str | None, tuple[str, ...]]
Plan = Mapping[str, tuple[Owners, Owners]]
"""Owners before and after, by batch."""


@dataclass
class Known:
    """An event as the model has it."""

    mid: str
    from_user: str
    to_user: str
    dry_run: bool = False
    undo_of: str = ""
    planned: Plan | None = None
    """The plan that it applies, if it applies one."""
    plan: Plan = field(default_factory=dict)
    """The plan with which it was rehearsed, or awaits its approval."""
    approved: Plan | None = None
    state: str = OPEN

    @property
    def final(self) -> bool:
        """True if nothing becomes of it any more."""
        return self.state not in (OPEN, AWAITING)


class Model:
    """Events, who owns what, and what an order is answered."""

    def __init__(self, batches: Sequence[BatchSpec], users: Sequence[str], *, limit: int) -> None:
        """`limit`: a transfer of more batches waits for an approval."""
        self._batches, self._limit = batches, limit
        self.users = set(users)
        self.events: dict[str, Known] = {}
        """By mid, in their order."""
        self._applied: list[Event] = []

    @property
    def states(self) -> dict[str, str]:
        """State of each event, by mid."""
        return {mid: e.state for mid, e in self.events.items()}

    @property
    def owners(self) -> dict[str, Owners]:
        """Who owns each batch."""
        return {b.batch: finals(b, self._applied, ())[0].owners for b in self._batches}

    def effect(self, event: Known) -> Plan:
        """What the event would change now."""
        step = Event(event.mid, event.from_user, event.to_user, event.undo_of)
        rows = {b.batch: finals(b, [*self._applied, step], ())[0] for b in self._batches}
        hops = {batch: row.hops[event.mid] for batch, row in rows.items() if event.mid in row.hops}
        return {batch: (hop.before.owners, hop.after.owners) for batch, hop in hops.items()}

    def moved(self, mid: str) -> bool:
        """True if a completed event changed something."""
        event = self.events[mid]
        return event.state == COMPLETED and bool(event.plan)

    # -- orders; each may come again, as its run may be cleared ------------------------------------------------

    def add(self, event: Known) -> None:
        """An event comes, once."""
        self.events.setdefault(event.mid, event)

    def approve(self, mid: str, plan: Plan) -> str:
        """What the order is answered; the plan is the one that was looked at."""
        event = self.events[mid]
        if event.state != AWAITING:
            return self._no_wait(event)
        if event.plan != plan:
            return "approve: digest: is not that of the plan"
        event.state, event.approved = OPEN, plan
        return "was approved by operator"

    def decline(self, mid: str) -> str:
        """What the order is answered."""
        event = self.events[mid]
        if event.state != AWAITING:
            return self._no_wait(event)
        event.state = DECLINED
        return "was declined by operator"

    @staticmethod
    def _no_wait(event: Known) -> str:
        return f"is {event.state} already" if event.final else "and awaits no approval"

    def abandon(self, mid: str) -> str:
        """What the order is answered."""
        event = self.events[mid]
        if event.final:
            return f"is {event.state} already"
        event.state = ABANDONED
        return "was abandoned"

    def redrive(self, mid: str, new: str) -> str:
        """What the order is answered; `new` is the mid of the event that it makes."""
        event = self.events[mid]
        if not event.final:
            return "and is tried by this run if nothing blocks it"
        if event.state != SKIPPED:
            return f"is {event.state} already; only failed and skipped events can be redriven"
        self.add(Known(new, event.from_user, event.to_user, event.dry_run, event.undo_of, event.planned))
        return f"is tried again as {new}"

    def undo(self, mid: str, new: str, *, dry_run: bool) -> str:
        """What the order is answered; `new` is the mid of the event that it makes."""
        event = self.events[mid]
        if not event.final:
            return ": abandon it first"
        if not self.moved(mid):
            return f"is {event.state} and changed nothing"
        self.add(Known(new, event.to_user, event.from_user, dry_run, undo_of=mid))
        return f"is {'rehearsed' if dry_run else 'taken back'} as {new}"

    def apply_plan(self, mid: str, plan: Plan, new: str) -> str:
        """What the order is answered; `new` is the mid of the event that it makes."""
        event = self.events[mid]
        if event.state != REHEARSED:
            return f"{f'is {event.state}' if event.final else ''}, and no dry run with a plan"
        if event.plan != plan:
            return "digest: is not that of the plan"
        self.add(replace(event, mid=new, dry_run=False, planned=plan, state=OPEN))
        return f"is applied as {new}"

    # -- what runs do ------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Every event that nothing holds back takes effect."""
        held: set[str] = set()
        for event in [e for e in self.events.values() if not e.final]:
            users = {event.from_user, event.to_user}
            if event.state == AWAITING or users & held:
                held |= users
            else:
                self._take(event)
                if event.state == AWAITING:
                    held |= users

    def _take(self, event: Known) -> None:
        if event.from_user == event.to_user or not {event.from_user, event.to_user} <= self.users:
            event.state = SKIPPED
            return
        event.plan = self.effect(event)
        if event.dry_run:
            event.state = REHEARSED
        elif event.planned is not None and event.planned != event.plan:
            event.state = DECLINED
        elif len(event.plan) > self._limit and event.plan != event.approved:
            event.state = AWAITING
        else:
            event.state = COMPLETED
            self._applied.append(Event(event.mid, event.from_user, event.to_user, event.undo_of))


Order = Callable[[Model, str], str]
"""Carries an order out in a model, for the run of that id; what it is answered."""
