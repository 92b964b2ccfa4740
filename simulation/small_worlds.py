"""Small worlds, one for each thing that the job does, with an operator who looks after his runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Engine

from ownership.domain.clock import HOUR_MS
from ownership.domain.next_steps import next_conf
from ownership.domain.states import FINAL_STATES, EventState
from ownership.edge import tasks
from ownership.edge.approvals import APPROVE
from ownership.edge.retries import RETRIES
from ownership.stages.intake import Window
from simulation.airflow import Airflow, Run
from simulation.scheduler import Chooser
from simulation.setup import ORGANISATION, BatchSpec, MessageSpec, OrderSpec, Setup
from simulation.verdict import Verdict
from simulation.world import START_MS, World

Owners = tuple[str | None, tuple[str, ...]]


class WholeAirflow(Airflow):
    """The DAG of approvals, too."""

    def next_run_id(self, kind: str) -> str:
        """Counted by kind: an operator's run has the same id however many the watcher has started."""
        return f"{kind}-{1 + sum(r.kind == kind for r in self.runs)}"

    def _flow(self, run: Run) -> None:
        if run.kind == "approval":
            self._approval(run)
        else:
            super()._flow(run)

    def _approval(self, run: Run) -> None:
        """`ownership_approval`: ask for each transfer that waits, and write the answer into the ledger."""
        answer = {"chosen": APPROVE, "by": "operator", "reason": None}

        def decide(question: Mapping[str, Any], _try: int) -> str:
            return tasks.decide(question, answer)

        questions = self._task(run, "wanted", lambda _: tasks.approvals_wanted(), RETRIES)
        for n, question in enumerate(questions or ()):
            self._task(run, f"decide[{n}]", partial(decide, question), RETRIES)

    def edge(self) -> dict[str, Any]:
        """With what the tasks of an approval ask of Airflow."""
        return {
            **super().edge(),
            "asks": lambda _: lambda run_id: any(r.run_id == run_id and not r.ended for r in self.runs),
            "max_map_length": lambda: 1024,
        }


class AttendedWorld(World):
    """A world with an operator who waits for what he ordered, and clears a run of his that was lost."""

    def __init__(
        self,
        setup: Setup,
        chooser: Chooser,
        engine: Engine,
        *,
        operator: Callable[[AttendedWorld], None] | None = None,
        hourly: bool = False,
    ) -> None:
        """`hourly`: a window is proven in the end."""
        super().__init__(
            setup if operator is None else setup._replace(orders=(OrderSpec(0, "", {}),)), chooser, engine
        )
        self.airflow: WholeAirflow = WholeAirflow(self)
        self._operator, self._hourly = operator, hourly
        self._states: tuple[int, dict[str, str]] = (-1, {})

    # -- what the operator sees and does -----------------------------------------------------------------------

    def states(self) -> dict[str, str]:
        """State of each event, by mid."""
        if self._states[0] != self.commits:
            rows = self.database.plainly("SELECT mid, state FROM event")
            self._states = (self.commits, {r.mid: r.state for r in rows})
        return self._states[1]

    def await_state(self, mid: str, *states: str) -> str:
        """The event's state as soon as it is one of `states`; without any, as soon as it is final."""
        self.scheduler.wait(lambda: self.states().get(mid) in (states or FINAL_STATES), ms=HOUR_MS)
        return self.states().get(mid, "")

    def await_idle(self) -> None:
        """Return when no event is open and no run is at work."""
        self.scheduler.wait(self._is_idle, ms=HOUR_MS)

    def attend(self, run: Run) -> None:
        """Return when the run has ended or was lost."""
        self.scheduler.wait(lambda: run.ended, ms=HOUR_MS)

    def finish(self, run: Run) -> Run:
        """The run when it has ended; one that was lost is cleared."""
        self.attend(run)
        while run.flow is not None and run.flow.died:
            self.airflow.clear(run)
            self.attend(run)
        return run

    def order(self, kind: str, **conf: Any) -> Run:
        """A run that was started, when it has ended."""
        return self.finish(self.airflow.start(kind, conf))

    def paste(self, mid: str) -> Run:
        """A run with the conf that the job itself gives for an event."""
        (row,) = self.database.plainly("SELECT state, digest FROM event WHERE mid = :mid", mid=mid)
        return self.order("manual", **json.loads(next_conf(EventState(row.state), mid, row.digest) or "{}"))

    # -- from beginning to end ---------------------------------------------------------------------------------

    def _order(self) -> None:
        if self._operator:
            self._operator(self)

    def _approve(self) -> None:
        """Nobody but the operator answers."""

    def _watch(self) -> None:
        self.airflow.watch(until=lambda: self.played, runs=self.setup.runs)
        self.before_second_proof()
        if self._hourly:
            self._prove_window()
        self.ended = True

    def _prove_window(self) -> None:
        """The hourly runs: of a window whose run was lost, the next one proves the events, too."""
        while True:
            window = Window(START_MS - HOUR_MS, self.scheduler.now_ms + 1)
            run = self.airflow.start("scheduled", window=window)
            self.airflow.watch(until=lambda: True, runs=self.setup.runs)
            if run.flow is not None and not run.flow.died:
                return


class SmallWorld(NamedTuple):
    """A world to play with a crash at each of its calls."""

    name: str
    setup: Setup
    operator: Callable[[AttendedWorld], None] | None = None
    hourly: bool = False

    def world(self, chooser: Chooser, engine: Engine) -> AttendedWorld:
        """The world, set up."""
        return AttendedWorld(self.setup, chooser, engine, operator=self.operator, hourly=self.hourly)


class End(NamedTuple):
    """How a world ended."""

    violations: tuple[str, ...]
    states: Mapping[str, str]
    """Of the events, by mid."""
    owners: Mapping[str, Owners]
    """Of the rows, by batch."""


def ended(world: AttendedWorld, judge: type[Verdict] = Verdict) -> End:
    """Let a world happen, and judge it: as every world, and every document must have its row's owners."""
    verdict = judge(world)
    world.run()
    verdict.at_the_end()
    for (batch,) in world.database.plainly("SELECT DISTINCT batch_id FROM change WHERE outcome IS NULL"):
        world.broken(f"an image of {batch} has no outcome")
    owners: dict[str, Owners] = {}
    for key, row in sorted(world.rows.table.items()):
        owners[key.batch_id] = of_row = (row["createdby"], tuple(row["mentors"] or ()))
        stored = world.index.documents.get(key.batch_id)
        shown = stored and (stored.source.get("createdBy"), tuple(stored.source.get("mentors") or ()))
        if shown != of_row:
            world.broken(f"document {key.batch_id} has {shown}, its row {of_row}")
    return End(tuple(world.violations), world.states(), owners)


# -- the worlds ------------------------------------------------------------------------------------------------

ONE = (BatchSpec("k", "b1", "a", ("x",)),)
TWO = (BatchSpec("k", "b1", "a"), BatchSpec("k", "b2", "b", ("a",)))
A_TO_B = (MessageSpec(1, "m0", "a", "b"),)
DRY_RUN = {"from_user": "a", "to_user": "b", "organisation_id": ORGANISATION, "dry_run": True}


def _undo(world: AttendedWorld) -> None:
    world.await_state("m0")
    world.order("undo", mids=["m0"], dry_run=False)


def _apply_a_plan(world: AttendedWorld) -> None:
    run = world.order("manual", **DRY_RUN)
    world.paste(f"manual:{run.run_id}:0")


def _approve(world: AttendedWorld) -> None:
    while world.await_state("m0", EventState.AWAITING_APPROVAL, *FINAL_STATES) not in FINAL_STATES:
        world.attend(world.airflow.start("approval"))


def _redrive(world: AttendedWorld) -> None:
    world.await_state("m0")
    world.users.organisation_of["new"] = ORGANISATION
    world.paste("m0")


def _show_late(world: AttendedWorld) -> None:
    """The LMS writes two documents after the first proof: one of a batch that was not shown, one from an old row."""
    world.await_state("m0")
    world.await_idle()
    world.edited |= {b.batch for b in world.setup.batches}
    for batch in world.setup.batches:
        _show(world, batch.batch, "a")


def _show(world: AttendedWorld, batch: str, creator: str) -> None:
    """Let the LMS write a document with this creator."""
    (key,) = (k for k in world.rows.table if k.batch_id == batch)
    world.index.put(batch, world._document(key, {**world.rows.table[key], "createdby": creator}))  # noqa: SLF001  # as its LMS
    world.index.show()


def _reconcile(world: AttendedWorld) -> None:
    """One document has an old owner, one is missing."""
    _show(world, "b1", "y")
    world.order("reconcile", repair=True, ranges=1, days=0)


WORLDS = (
    SmallWorld("a transfer", Setup(ONE, A_TO_B)),
    SmallWorld("a message that is no event", Setup(ONE, (MessageSpec(1, "m0", poison="not JSON"),))),
    SmallWorld("a chain", Setup(TWO, (*A_TO_B, MessageSpec(2, "m1", "b", "c")))),
    SmallWorld(
        "a chain in two phases", Setup(TWO, (MessageSpec(1, "m0", "b", "c"), MessageSpec(2, "m1", "a", "b")))
    ),
    SmallWorld("a swap", Setup(TWO, (*A_TO_B, MessageSpec(2, "m1", "b", "a")))),
    SmallWorld("an undo", Setup(ONE, A_TO_B), _undo),
    SmallWorld("a plan that is applied", Setup(ONE, ()), _apply_a_plan),
    SmallWorld("an approval", Setup(TWO, A_TO_B, settings={"approval.batches": 1}), _approve),
    SmallWorld("a redrive", Setup(ONE, (MessageSpec(1, "m0", "a", "new"),)), _redrive),
    SmallWorld(
        "a window's second proof",
        Setup((*ONE, BatchSpec("k", "b2", "a", document=False)), A_TO_B),
        _show_late,
        hourly=True,
    ),
    SmallWorld(
        "a reconciliation that repairs",
        Setup((*ONE, BatchSpec("k", "b2", "a", document=False)), ()),
        _reconcile,
    ),
)
"""The smallest first."""
