"""`make operator`: an operator who does what he likes, drawn by Hypothesis, beside a model of what must come of it.

Each step is an order in a simulated world, as a person gives it to the real job. The step ends when nothing is at work
any more. Then the answer, the states of all events and the owners of all rows must be the model's.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, ClassVar
from unittest.mock import patch

from greenlet import getcurrent, greenlet
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import engine as engine_of_hypothesis
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine

from ownership.domain.clock import HOUR_MS
from ownership.domain.states import OPEN_STATES, EventState
from ownership.stages.intake import Window
from simulation import operator_model as model
from simulation.airflow import Run
from simulation.choosers import Plain
from simulation.farm import opened_farm
from simulation.operator_model import Known, Model, Order
from simulation.setup import ORGANISATION, BatchSpec, MessageSpec, Setup
from simulation.small_worlds import AttendedWorld, End, ended
from simulation.verdict import Verdict
from simulation.world import GRACE_MS, START_MS

LIMIT = 2
"""`approval.batches`."""
STEPS = 12
EXAMPLES = 8
"""Stories of one call of `play`."""
SHRINK_S = 60
"""How long Hypothesis makes a story that fails shorter; by itself it would go on for five minutes."""
BATCHES = (
    BatchSpec("k1", "b1", "a"),
    BatchSpec("k1", "b2", "a", ("b",)),
    BatchSpec("k2", "b3", "b"),
    BatchSpec("k2", "b4", "c", ("a", "x")),
)
USERS = ("a", "b", "c")
NEWCOMER = "d"
"""User-Org does not know him at first."""
SETUP = Setup(BATCHES, (), users=USERS, settings={"approval.batches": LIMIT})


class OperatorVerdict(Verdict):
    """Without the states of messages: of these the model says more."""

    def _messages(self) -> None:
        pass


class OperatorWorld(AttendedWorld):
    """A world whose watcher can be paused."""

    paused = False

    def work_in_sight(self) -> tuple[frozenset[object], bool]:
        """Nothing while the DAG is paused."""
        work, empty = super().work_in_sight()
        return (frozenset(), False) if self.paused else (work, empty)

    def quiet(self) -> None:
        """Return when nothing is at work and nothing could be."""
        self.scheduler.sleep(2 * GRACE_MS)  # until then events are too young
        self.scheduler.wait(
            lambda: all(r.ended for r in self.airflow.runs) and not self.work_in_sight()[0], ms=HOUR_MS
        )

    def send(self, message: MessageSpec) -> None:
        """A producer's message."""
        self.scheduler.call("topic", f"send {message.mid}", lambda: self._send(message), KeyError)


class Desk:
    """A world that stands still between orders: Hypothesis goes on in the meantime."""

    def __init__(self, engine: Engine) -> None:
        self._outside = getcurrent()
        self.world = OperatorWorld(SETUP, Plain(), engine, operator=self._sit)
        self._seat: Any = None
        self.end: End | None = None
        self._life: Any = greenlet(self._live)
        self._life.switch()

    def _live(self) -> None:
        self.end = ended(self.world, OperatorVerdict)

    def _sit(self, _: AttendedWorld) -> None:
        self._seat = getcurrent()
        while act := self._outside.switch():
            act()

    def do(self, act: Callable[[], Any]) -> None:
        """Do something in the world."""
        self._seat.switch(act)

    def leave(self) -> End:
        """End the open events, let the world come to its end, and judge it."""
        self.world.paused = False
        self.do(self.world.quiet)  # what was sent meanwhile is read
        while mids := [mid for mid, state in self.world.states().items() if state in OPEN_STATES]:
            conf = {"abandon": {"mids": mids, "reason": "the story ends"}}
            self.do(partial(self.order, "manual", conf))
        self._seat.switch(None)
        assert self.end is not None  # noqa: S101  # set at the end of the life
        return self.end

    def order(self, kind: str, conf: dict[str, Any]) -> Run:
        """Start a run in the world. Returns it when nothing is at work any more."""
        run = self.world.order(kind, **conf)
        self.world.quiet()
        return run


at_work = precondition(lambda self: not self.world.paused)
"""A run of a DAG that is paused would wait."""


class Operator(RuleBasedStateMachine):
    """The orders, and what must come of them."""

    engine: ClassVar[Engine]

    mids = Bundle("mids")
    people = st.sampled_from((*USERS, NEWCOMER))

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(self.engine)
        self.world = self.desk.world
        self.model = Model(BATCHES, USERS, limit=LIMIT)
        self.orders: dict[str, Order] = {}
        """By run, what its order does in the model."""
        self.sent = 0

    # -- what happens by itself --------------------------------------------------------------------------------

    @rule(target=mids, old=people, new=people)
    def send(self, old: str, new: str) -> Any:
        """A producer sends a transfer."""
        if self._is_composed(old, new):
            return multiple()
        mid, self.sent = f"m{self.sent}", self.sent + 1
        self.model.add(Known(mid, old, new))
        message = MessageSpec(0, mid, old, new)
        self._do(lambda: self.world.send(message))
        return mid

    @precondition(lambda self: NEWCOMER not in self.model.users)
    @rule()
    def welcome(self) -> None:
        """User-Org learns of a user."""
        self.model.users.add(NEWCOMER)
        self.world.users.organisation_of[NEWCOMER] = ORGANISATION

    @precondition(lambda self: not self.world.paused)
    @rule()
    def pause(self) -> None:
        """No run starts by itself."""
        self.world.paused = True

    @precondition(lambda self: self.world.paused)
    @rule()
    def unpause(self) -> None:
        """Runs start again."""
        self.world.paused = False
        self._do(lambda: None)

    # -- orders ------------------------------------------------------------------------------------------------

    @at_work
    @rule(target=mids, old=people, new=people, dry_run=st.booleans())
    def start(self, old: str, new: str, *, dry_run: bool) -> Any:
        """A transfer from the form."""
        if self._is_composed(old, new):
            return multiple()

        def order(m: Model, run_id: str) -> str:
            m.add(Known(f"manual:{run_id}:0", old, new, dry_run))
            return ""

        conf = {"from_user": old, "to_user": new, "organisation_id": ORGANISATION, "dry_run": dry_run}
        return f"manual:{self._order('manual', conf, order)}:0"

    @at_work
    @rule(target=mids, mid=mids)
    def apply_plan(self, mid: str) -> Any:
        """The plan of a dry run."""
        plan = self.model.events[mid].plan
        conf = {"execute_plan": mid, "digest": self._digest(mid)}
        run = self._order("manual", conf, lambda m, run: m.apply_plan(mid, plan, f"execute:{run}"), mid)
        return self._known(f"execute:{run}")

    @at_work
    @rule(target=mids, mid=mids, dry_run=st.booleans())
    def undo(self, mid: str, *, dry_run: bool) -> Any:
        """Take back what an event changed; it may be an undo itself."""
        conf = {"mids": [mid], "dry_run": dry_run}
        run = self._order("undo", conf, lambda m, run: m.undo(mid, f"undo:{run}:0", dry_run=dry_run), mid)
        return self._known(f"undo:{run}:0")

    @at_work
    @rule(target=mids, mid=mids)
    def redrive(self, mid: str) -> Any:
        """Try an event again."""
        event = self.model.events[mid]
        if event.final and self._is_composed(event.from_user, event.to_user):
            return multiple()
        conf = {"redrive": {"mids": [mid]}}
        run = self._order("manual", conf, lambda m, run: m.redrive(mid, f"redrive:{run}:0"), mid)
        return self._known(f"redrive:{run}:0")

    @at_work
    @rule(mid=mids)
    def approve(self, mid: str) -> None:
        """Let a transfer go on with its plan."""
        plan = self.model.events[mid].plan
        conf = {"approve": {"mid": mid, "digest": self._digest(mid)}}
        self._order("manual", conf, lambda m, _: m.approve(mid, plan), mid)

    @at_work
    @rule(mid=mids)
    def decline(self, mid: str) -> None:
        """Refuse a transfer."""
        conf = {"decline": {"mid": mid, "reason": "no"}}
        self._order("manual", conf, lambda m, _: m.decline(mid), mid)

    @at_work
    @rule(mid=mids)
    def abandon(self, mid: str) -> None:
        """End an event for good."""
        conf = {"abandon": {"mids": [mid], "reason": "a mistake"}}
        self._order("manual", conf, lambda m, _: m.abandon(mid), mid)

    @at_work
    @precondition(lambda self: self.orders)
    @rule(n=st.integers(0, STEPS))
    def clear(self, n: int) -> None:
        """Clear a run: it does again what it was ordered, which changes nothing, unless it was refused before.

        Not one that would bring an event only now: it comes with the time of its run, and that is too late.
        """
        run_id, order = list(self.orders.items())[n % len(self.orders)]
        would = deepcopy(self.model)
        order(would, run_id)
        if set(would.events) == set(self.model.events):
            order(self.model, run_id)
            self._do(lambda: self.world.airflow.clear(self._run(run_id)))

    @at_work
    @rule()
    def backfill(self) -> None:
        """Run the window of everything so far: nothing is left to find."""
        window = Window(START_MS - HOUR_MS, self.world.scheduler.now_ms + 1)
        self._do(lambda: self.world.airflow.start("scheduled", window=window))

    # -- what must come of them --------------------------------------------------------------------------------

    @invariant()
    def is_as_the_model_says(self) -> None:
        """States and owners."""
        states = {mid: _state(s) for mid, s in self.world.states().items()}
        expected = self.model.states
        if self.world.paused:  # what was sent is not read yet
            expected = {mid: s for mid, s in expected.items() if mid in states}
        _same("states", states, expected)
        rows = {key.batch_id: row for key, row in self.world.rows.table.items()}
        owners = {b: (row["createdby"], tuple(row["mentors"] or ())) for b, row in sorted(rows.items())}
        _same("owners", owners, self.model.owners)
        _same("violations", self.world.violations, [])

    def teardown(self) -> None:
        """The story ends; the verdict of every world holds."""
        _same("violations", self.desk.leave().violations, ())

    # -- how ---------------------------------------------------------------------------------------------------

    def _is_composed(self, *users: str) -> bool:
        """True if a transfer of these users would be claimed together with another one.

        Then the job composes the two. What each does is what the other leaves of it, and the model knows nothing of that.
        """
        waiting = [e for e in self.model.events.values() if e.state == model.OPEN]
        return any({e.from_user, e.to_user} & set(users) for e in waiting)

    def _do(self, act: Callable[[], Any]) -> None:
        def and_wait() -> None:
            act()
            self.world.quiet()

        self.desk.do(and_wait)
        if not self.world.paused:
            self.model.work()

    def _order(self, kind: str, conf: dict[str, Any], order: Order, mid: str = "") -> str:
        """Give an order to the job and to the model; the answers must be the same. Returns the run's id."""
        started: list[Run] = []
        self.desk.do(lambda: started.append(self.desk.order(kind, conf)))
        (run,) = started
        self.orders[run.run_id] = order
        expected = order(self.model, run.run_id)
        self.model.work()
        answer = run.refused or (run.pulled.notes.get(mid, "") if run.pulled and mid else "")
        if expected not in answer:
            raise AssertionError(f"the answer is {answer!r}, and should have {expected!r}")
        return run.run_id

    def _run(self, run_id: str) -> Run:
        return next(r for r in self.world.airflow.runs if r.run_id == run_id)

    def _known(self, mid: str) -> Any:
        return mid if mid in self.model.events else multiple()

    def _digest(self, mid: str) -> str:
        """Of the plan that the ledger has; where it has none, some other."""
        rows = self.world.database.plainly("SELECT digest FROM event WHERE mid = :mid", mid=mid)
        return (rows[0].digest if rows else None) or "0" * 20


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{what} are {found}, and should be {expected}")


def _state(state: str) -> str:
    """As the model names it: how far an open event is it does not say."""
    return state if state not in OPEN_STATES or state == EventState.AWAITING_APPROVAL else model.OPEN


def play(engine: Engine, number: int, *, examples: int = EXAMPLES, steps: int = STEPS) -> str:
    """Let Hypothesis play stories, others for each number. What is wrong, with the shortest story; empty if nothing."""
    machine = seed(number)(type("Operator", (Operator,), {"engine": engine}))
    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    try:
        with patch.object(engine_of_hypothesis, "MAX_SHRINKING_SECONDS", SHRINK_S):
            run_state_machine_as_test(machine, settings=how)
    except Exception as e:  # noqa: BLE001  # what is wrong is for the caller to say
        return "".join(traceback.format_exception(e))
    return ""


def main() -> int:
    """The exit code: 1 if a story does not end as the model says."""
    parser = argparse.ArgumentParser(prog="simulation.operator", description=__doc__)
    parser.add_argument("--stories", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=None)
    given = parser.parse_args()
    began = time.monotonic()
    count = -(-given.stories // EXAMPLES)
    with opened_farm(given.processes) as farm:
        seeds = range(given.seed, given.seed + count)
        for n, wrong in enumerate(farm.map(play, seeds, at_once=1), 1):
            if wrong:
                print(f"seed {given.seed + n - 1}:\n{wrong}")
                return 1
            print(f"{n * EXAMPLES} stories; {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
