"""Actors of which one moves at a time, on one logical clock.

An actor is a greenlet: it runs until its next call to the world. There the chooser decides who goes on, and what
becomes of the call. Nothing here waits, and nothing depends on the machine's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")

CALL_MS = 2
"""How long a call to the world takes."""
MAX_CALLS = 40_000
"""Calls of one world: beyond it nothing comes to an end any more."""


class Died(BaseException):
    """The process is gone. No `Exception`: the product must not handle it."""


class EndlessError(Exception):
    """The world does not come to its end."""


class Fate(StrEnum):
    """What becomes of a call, other than its answer."""

    DIES_BEFORE = "dies before"
    """The process dies; the call was not made."""
    DIES_LATE = "dies, effect later"
    """The process dies with the call under way, which takes effect later, or never: where a store can do that."""
    DIES_AFTER = "dies after"
    """The call took effect; the process never saw the answer."""
    FREEZES_BEFORE = "freezes before"
    """The process stands still for `ms`, then makes the call."""
    FREEZES_AFTER = "freezes after"
    """The call took effect; its answer is seen `ms` later."""
    LOST_BEFORE = "no answer, no effect"
    """The call times out and never takes effect."""
    LOST_AFTER = "no answer, but effect"
    """The call times out; it took effect."""
    LOST_LATE = "no answer, effect later"
    """The call times out, and takes effect later, or never: where a store can do that."""
    TERMINATED = "terminated before"
    """The process gets SIGTERM."""
    OUTAGE = "outage"
    """The store answers nobody for `ms`."""


class Fault(NamedTuple):
    """A fate of one call: the `n`-th of `actor`, counted from 1."""

    actor: str
    n: int
    fate: Fate
    ms: int = 0
    until: str = ""
    """A freeze ends earlier: right after the `nth` call that begins with this and that another task makes meanwhile."""
    nth: int = 1


class Switch(NamedTuple):
    """After its `n`-th move `actor` is interrupted, and `to` goes on (from its sleep, if it sleeps)."""

    actor: str
    n: int
    to: str


@dataclass
class Call:
    """A call to the world that is about to be made."""

    actor: Actor
    n: int
    """The actor's how manieth call."""
    number: int
    """The world's how manieth."""
    store: str
    what: str
    can_be_late: bool = False
    """True if it can take effect after a time-out."""


@dataclass(eq=False)
class Actor:
    """One process of the world, or a part of it that moves by itself."""

    name: str
    mortal: bool = False
    """True if faults may strike it."""
    calls: int = 0
    first_call: int = 0
    """Which of the world's calls its first one was, counted from 1."""
    moves: int = 0
    """How often it went on."""
    wake_ms: int = 0
    waits_for: Callable[[], bool] | None = None
    """What it waits for, until `wake_ms`."""
    finished: bool = False
    died: bool = False
    doomed: bool = False
    """It dies at its next move."""
    frozen_at_ms: int | None = None
    """Since when it stands still."""
    result: Any = None
    error: BaseException | None = None
    interrupted: type[BaseException] = Died
    """What it gets at SIGTERM."""
    context: Any = None
    """What the actor's own code keeps with it."""
    _greenlet: greenlet | None = field(default=None, repr=False)

    @property
    def task(self) -> str:
        """Of a try of a task, the task's name: ``update`` of ``run-1.update[0]#2``."""
        return self.name.partition(".")[2].partition("#")[0].partition("[")[0]


class Chooser(Protocol):
    """Decides who goes on, and what becomes of calls."""

    def next(self, last: Actor | None, able: Sequence[Actor], now_ms: int) -> Actor:
        """The actor that moves next, one of `able`. To choose one that sleeps lets the clock jump."""

    def fate(self, call: Call) -> Fault | None:
        """What becomes of a call of a mortal actor; None for its plain answer."""


def plain_next(last: Actor | None, able: Sequence[Actor], now_ms: int) -> Actor:
    """Who goes on where nothing else is decided: who moved last; else who is awake; else who wakes first."""
    if last in able and last is not None and last.wake_ms <= now_ms:
        return last
    return min(able, key=lambda a: max(a.wake_ms, now_ms))


class Line(NamedTuple):
    """A line of the trace."""

    ms: int
    """Since the world began."""
    actor: str
    n: int
    """Number of the actor's call; 0 for a remark."""
    store: str
    what: str
    fate: str
    answer: str


class Scheduler:
    """The world's clock, its actors, and the trace of what they did."""

    def __init__(self, chooser: Chooser, *, start_ms: int) -> None:
        self.chooser = chooser
        self.start_ms = self.now_ms = start_ms
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.trace: list[Line] = []
        self.calls = 0
        self.down: dict[str, int] = {}
        """By store, until when it answers nobody."""
        self.before_move: list[Callable[[], None]] = []
        """Called before each move: what the world does by itself."""
        self.after_call: list[Callable[[Call], None]] = []
        """Called after each call that took effect, before its caller sees the answer."""
        self.frozen: set[str] = set()
        """Names of actors that stood still for a while."""
        self.faults = 0
        self._asleep: dict[Actor, tuple[str, int]] = {}
        """Frozen actors that wait for another's call: its beginning, and how many of them are left."""
        self._woken: Actor | None = None
        """Who goes on next, because a call has woken it."""
        self._hub: Any = None

    def spawn(
        self, name: str, body: Callable[[], Any], *, mortal: bool = False, context: Any = None
    ) -> Actor:
        """A new actor, which begins at one of the next moves."""
        actor = Actor(name, mortal=mortal, context=context)

        def live() -> None:
            try:
                if not actor.doomed:
                    actor.result = body()
            except Died:
                actor.died = True
            except BaseException as e:  # noqa: BLE001  # whoever joins the actor judges it
                actor.error = e
            actor.finished = True

        actor._greenlet = greenlet(live, self._hub)  # noqa: SLF001  # else it would end in who spawned it
        self.actors.append(actor)
        return actor

    def run(self) -> None:
        """Move actors until all have ended.

        :raises EndlessError: if they do not.
        """
        self._hub = getcurrent()
        last: Actor | None = None
        try:
            while True:
                self.actors = [a for a in self.actors if not a.finished]
                if not self.actors:
                    return
                able = [a for a in self.actors if self._is_able(a)]
                if not able:
                    waiting = ", ".join(a.name for a in self.actors)
                    raise EndlessError(f"all wait for ever: {waiting}")
                actor = self._woken if self._woken in able else None
                actor = actor or self.chooser.next(last, able, self.now_ms)
                self._woken = None
                self.now_ms = max(self.now_ms, actor.wake_ms)
                for act in self.before_move:
                    act()
                last = self.current = actor
                actor.moves += 1
                self._switch(actor)
                self.current = None
        finally:
            self.current = None
            for actor in self.actors:
                actor.doomed = True
                while not actor.finished and actor._greenlet is not None:  # noqa: SLF001
                    self._switch(actor)

    @staticmethod
    def _is_able(actor: Actor) -> bool:
        """True if the actor can go on, now or after its sleep."""
        if actor.waits_for is None or actor.doomed:
            return True
        if actor.waits_for():
            actor.waits_for, actor.wake_ms = None, 0
            return True
        return actor.wake_ms > 0

    @staticmethod
    def _switch(actor: Actor) -> None:
        assert actor._greenlet is not None  # noqa: S101, SLF001  # set by `spawn`
        actor._greenlet.switch()  # noqa: SLF001

    # -- for actors ----------------------------------------------------------------------------------------

    def call(
        self,
        store: str,
        what: str,
        effect: Callable[[], T],
        lost: Callable[[], BaseException],
        *,
        late: Callable[[], None] | None = None,
        told: Callable[[T], str] | None = None,
    ) -> T:
        """The answer of one call to the world; `effect` is what it does there, at once and undivided.

        `lost` makes the error of a call without an answer, `late` lets it take effect later, `told` says the answer
        in a few words.
        """
        actor = self.current
        if actor is None:
            return effect()
        call = self._begun(actor, store, what, can_be_late=late is not None)
        fault = self.chooser.fate(call) if actor.mortal else None
        self.faults += fault is not None
        fate = self._before(call, fault, late)
        self.now_ms += CALL_MS
        if actor.mortal and self.down.get(store, 0) > self.now_ms:
            self._note(call, Fate.OUTAGE, "")
            raise lost()
        if fate in (Fate.LOST_BEFORE, Fate.LOST_LATE):
            self._note(call, fate, "")
            if fate is Fate.LOST_LATE and late is not None:
                late()
            raise lost()
        try:
            answer = effect()
        except Exception as e:
            self._note(call, fate, f"{type(e).__name__}: {e}"[:120])
            raise
        self._note(call, fate, told(answer) if told else "")
        for act in self.after_call:
            act(call)
        self._wake(call)
        if fate is Fate.LOST_AFTER:
            raise lost()
        self._after(actor, fault)
        return answer

    def _begun(self, actor: Actor, store: str, what: str, *, can_be_late: bool) -> Call:
        """A call that is counted, when its actor is the one to go on.

        :raises Died: if the actor is dead by then.
        """
        if actor.doomed or actor.died:
            raise Died
        actor.calls += 1
        self.calls += 1
        actor.first_call = actor.first_call or self.calls
        if self.calls > MAX_CALLS:
            raise EndlessError(f"more than {MAX_CALLS} calls")
        call = Call(actor, actor.calls, self.calls, store, what, can_be_late)
        self._yield(actor)
        return call

    def _before(self, call: Call, fault: Fault | None, late: Callable[[], None] | None) -> Fate | None:
        """What a fault does before the call; the fate that is left."""
        actor, fate = call.actor, fault and fault.fate
        if fault and fate is Fate.OUTAGE:
            self.down[call.store] = self.now_ms + fault.ms
        elif fault and fate is Fate.FREEZES_BEFORE:
            self._note(call, fate, "")
            self._freeze(actor, fault)
            return None
        elif fate in (Fate.DIES_BEFORE, Fate.DIES_LATE):
            self._note(call, fate, "")
            if fate is Fate.DIES_LATE and late is not None:
                late()
            actor.died = True
            raise Died
        elif fate is Fate.TERMINATED:
            self._note(call, fate, "")
            actor.died = actor.interrupted is Died
            raise actor.interrupted
        return fate

    def _after(self, actor: Actor, fault: Fault | None) -> None:
        """What a fault does after the call."""
        if fault and fault.fate is Fate.DIES_AFTER:
            actor.died = True
            raise Died
        if fault and fault.fate is Fate.FREEZES_AFTER:
            self._freeze(actor, fault)

    def sleep(self, ms: float) -> None:
        """Let at least `ms` pass for the actor."""
        if actor := self.current:
            actor.wake_ms = self.now_ms + max(int(ms), 1)
            self._yield(actor)

    def wait(self, condition: Callable[[], bool], *, ms: int = 0) -> bool:
        """Let the actor wait until `condition` holds, at most `ms` (0: without a bound). Whether it holds."""
        actor = self.current
        assert actor is not None  # noqa: S101  # only actors wait
        if not condition():
            actor.waits_for = condition
            actor.wake_ms = self.now_ms + ms if ms else 0
            self._yield(actor)
        return condition()

    def remark(self, words: str) -> None:
        """Add a line to the story."""
        name = self.current.name if self.current else ""
        self.trace.append(Line(self.now_ms - self.start_ms, name, 0, "", words, "", ""))

    def _yield(self, actor: Actor) -> None:
        self._hub.switch()
        actor.waits_for, actor.wake_ms = None, 0
        if actor.doomed:
            actor.died = True
            raise Died

    def _freeze(self, actor: Actor, fault: Fault) -> None:
        actor.frozen_at_ms = self.now_ms
        self.frozen.add(actor.name)
        if fault.until:
            self._asleep[actor] = (fault.until, fault.nth)
        try:
            self.wait(lambda: bool(fault.until) and actor not in self._asleep, ms=max(fault.ms, 1))
        finally:
            self._asleep.pop(actor, None)
        actor.frozen_at_ms = None
        self.remark("wakes")

    def _wake(self, call: Call) -> None:
        """Let actors go on that are frozen until this call of another."""
        for actor, (begins, left) in list(self._asleep.items()):
            named = f"{call.store} {call.what}".startswith(begins)
            if not named or not call.actor.mortal or call.actor is actor:
                continue
            if left > 1:
                self._asleep[actor] = (begins, left - 1)
            else:
                del self._asleep[actor]
                self._woken = actor

    def _note(self, call: Call, fate: Fate | None, answer: str) -> None:
        ms = self.now_ms - self.start_ms
        self.trace.append(Line(ms, call.actor.name, call.n, call.store, call.what, fate or "", answer))
