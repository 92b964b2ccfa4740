"""Who goes on, and what becomes of calls: drawn from a seed, read from a script, or struck at the n-th call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from random import Random
from typing import NamedTuple

from simulation.scheduler import Actor, Call, Fate, Fault, Switch, plain_next

LEASE_MS = 30_000
"""Lease of a claim in simulated worlds: `claim.seconds`."""

LASTING = {Fate.FREEZES_BEFORE, Fate.FREEZES_AFTER, Fate.OUTAGE}
"""Fates that have a duration."""
LOST = (Fate.LOST_BEFORE, Fate.LOST_AFTER)
_FATES = (
    *[Fate.DIES_BEFORE, Fate.DIES_AFTER] * 3,
    *[Fate.FREEZES_BEFORE, Fate.FREEZES_AFTER] * 3,
    *LOST * 2,
    Fate.LOST_LATE,
    Fate.LOST_LATE,
    Fate.TERMINATED,
    Fate.OUTAGE,
)


_AIMS = (
    "ledger Changes.record", "ledger Changes.record", "rows b", "rows b", "rows b", "ledger Changes.settle_images",
    "ledger Queue.held", "ledger Queue.held", "ledger Queue.claim",
    "ledger Events.complete", "ledger Events.decide", "ledger Events._write", "ledger Events._write", "ledger Changes.plan",
    "ledger Arrivals.store", "ledger Arrivals.store", "ledger Queue.take_over", "kafka commit", "kafka dead letter", "kafka consume",
    "index write", "index read", "index refresh", "rows read",
)  # fmt: skip
"""Calls at which faults are aimed, and calls of another task with which a freeze ends."""
_RARE = ("kafka dead letter", "ledger Queue.take_over")
"""Calls that few worlds make: a death after one is drawn for itself."""
_AIMED_FATES = (*_FATES, *[Fate.FREEZES_BEFORE, Fate.FREEZES_AFTER] * 6)


class Script(NamedTuple):
    """What was decided in a world, as far as it is not what happens by itself."""

    switches: tuple[Switch, ...] = ()
    faults: tuple[Fault, ...] = ()


class Plain:
    """Nothing fails; an actor goes on until it waits."""

    def next(self, last: Actor | None, able: Sequence[Actor], now_ms: int) -> Actor:
        """As `plain_next`."""
        return plain_next(last, able, now_ms)

    def fate(self, call: Call) -> Fault | None:  # noqa: ARG002  # every call is answered
        """None."""
        return None


class CrashAt(Plain):
    """Strikes the n-th calls of mortal actors, counted from 1 over the whole world; nothing else fails.

    `counted` has the calls that were counted, in order: a world without crashes says by it how many points there are.
    """

    def __init__(
        self,
        points: Collection[int] = (),
        fate: Fate = Fate.DIES_BEFORE,
        *,
        stores: Collection[str] = (),
        ms: int = 0,
    ) -> None:
        """`stores`: count only their calls. `ms`: for fates that last."""
        self._points, self._fate, self._stores, self._ms = frozenset(points), fate, frozenset(stores), ms
        self.counted: list[tuple[str, str, str]] = []
        """Actor, store and what is called."""

    def fate(self, call: Call) -> Fault | None:
        """The fate of the n-th call."""
        if self._stores and call.store not in self._stores:
            return None
        self.counted.append((call.actor.name, call.store, call.what))
        struck = len(self.counted) in self._points
        return Fault(call.actor.name, call.n, self._fate, self._ms) if struck else None


class Scripted(Plain):
    """Decides as a script says; where it says nothing, nothing happens."""

    def __init__(self, script: Script) -> None:
        self._switches = {(s.actor, s.n): s.to for s in script.switches}
        self._faults = {(f.actor, f.n): f for f in script.faults}

    def next(self, last: Actor | None, able: Sequence[Actor], now_ms: int) -> Actor:
        """The actor that the script names, if it is able."""
        to = self._switches.get((last.name, last.moves) if last else ("", 0))
        return next((a for a in able if a.name == to), None) or plain_next(last, able, now_ms)

    def fate(self, call: Call) -> Fault | None:
        """The fault that the script has for the call."""
        return self._faults.get((call.actor.name, call.n))


class Strike(NamedTuple):
    """A fault of a call that is named by what it is: the `n`-th of an actor that begins with these words."""

    actor: str
    call: str
    """Store and beginning of the call, as in ``ledger Queue.held``."""
    fate: Fate
    n: int = 1
    ms: int = 0
    until: str = ""
    """See `Fault`."""
    nth: int = 1


class Struck(Plain):
    """Strikes calls that are named; nothing else fails."""

    def __init__(self, *strikes: Strike) -> None:
        self._left = {s: s.n for s in strikes}

    def fate(self, call: Call) -> Fault | None:
        """The fate of a call that is struck."""
        for s in self._left:
            if s.actor == call.actor.name and f"{call.store} {call.what}".startswith(s.call):
                self._left[s] -= 1
                if self._left[s] == 0:
                    return Fault(s.actor, call.n, s.fate, s.ms, s.until, s.nth)
        return None


class Drawn:
    """Decides by a seed, and keeps what it decided as a script."""

    def __init__(self, seed: int) -> None:
        self._rng = rng = Random(f"chooser:{seed}")
        self._switching = rng.choice((0.0, 0.03, 0.15, 0.4))
        self._sleepers = rng.choice((0.0, 0.02, 0.1))
        self._failing = rng.choice((0.0, 0.005, 0.02, 0.05))
        self._left = rng.choice((1, 2, 4, 8))
        self._aimed = {
            (rng.choice(_AIMS), rng.choice((1, 1, 2, 3, 4))): rng.choice(_AIMED_FATES)
            for _ in range(rng.choice((0, 1, 1, 2)))
        }
        rare = Random(f"rare:{seed}")
        self._aimed |= {(call, 1): Fate.DIES_AFTER for call in _RARE if rare.random() < 0.1}
        self._late = Random(f"late:{seed}")
        self._seen: Counter[str] = Counter()
        self._switches: list[Switch] = []
        self._faults: list[Fault] = []

    @property
    def script(self) -> Script:
        """What was decided so far."""
        return Script(tuple(self._switches), tuple(self._faults))

    def next(self, last: Actor | None, able: Sequence[Actor], now_ms: int) -> Actor:
        """Mostly who would go on by itself; now and then another, who may be asleep."""
        rng = self._rng
        plain = plain_next(last, able, now_ms)
        if len(able) == 1 or rng.random() >= self._switching:
            return plain
        others = able if rng.random() < self._sleepers else [a for a in able if a.wake_ms <= now_ms]
        chosen = rng.choice(others) if others else plain
        if chosen is not plain:
            name, moves = (last.name, last.moves) if last else ("", 0)
            self._switches.append(Switch(name, moves, chosen.name))
        return chosen

    def fate(self, call: Call) -> Fault | None:
        """Mostly nothing; a few faults a world, some of them aimed at calls on which much depends."""
        rng = self._rng
        name = f"{call.store} {call.what}"
        aim = next((a for a in _AIMS if name.startswith(a)), "")
        self._seen[aim] += 1
        fate = self._aimed.get((aim, self._seen[aim]))
        if fate is None:
            if not self._left or rng.random() >= self._failing:
                return None
            self._left -= 1
            fate = rng.choice(_FATES)
        if fate is Fate.DIES_BEFORE and call.can_be_late and self._late.random() < 0.5:
            fate = Fate.DIES_LATE
        ms, until = 0, ""
        if fate is Fate.OUTAGE:
            ms = rng.choice((1_000, 5_000, 15_000))
        elif fate in LASTING:
            ms = rng.choice((2_000, LEASE_MS // 2, LEASE_MS - 8_000, LEASE_MS + 5_000, 3 * LEASE_MS))
            if rng.random() < 0.6:
                ms, until = 3 * LEASE_MS, rng.choice(_AIMS)
        fault = Fault(call.actor.name, call.n, fate, ms, until, rng.choice((1, 1, 2, 3)))
        self._faults.append(fault)
        return fault
