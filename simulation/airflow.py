"""Airflow: runs, their tasks and tries, retries and their delays, tries that died or only froze.

The stages are called by the product's own tasks (`ownership.edge.tasks`), with parts over the world's stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException

from ownership.domain.conf import manual_events, orders, undo_order
from ownership.domain.contracts import Pulled
from ownership.domain.errors import OwnershipError, Permanent, Stopped
from ownership.edge import tasks
from ownership.edge.interruption import Interrupted
from ownership.edge.retries import RETRIES, delay_seconds
from ownership.reconcile import run as reconcile
from ownership.stages.intake import Intake, Window
from ownership.stages.pull import RunRequest, collect, hand_over, start_run
from simulation.scheduler import Actor, Died, Scheduler

if TYPE_CHECKING:
    from simulation.world import World

HEARTBEAT_MS = 10_000
"""A try that stands still for this long is given up, and the next one begins."""
DEATH_MS = 3_000
"""Before the try after one that died."""
POKE_MS, PULL_MS = 500, 30_000
"""Interval and time-out of the sensor."""
PULL_RETRIES = 2
WATCH_MS = 1_000
RESIGNAL_MS = 5_000


@dataclass
class Run:
    """A run and how it ended."""

    run_id: str
    conf: Mapping[str, Any]
    kind: str
    """`asset`, `manual`, `scheduled`, `undo` or `reconcile`."""
    window: Window | None = None
    at_ms: int = 0
    tries: dict[str, int] = field(default_factory=dict)
    """By task, how many tries it has had."""
    flow: Actor | None = None
    pulled: Pulled | None = None
    summary: Mapping[str, Any] | None = None
    refused: str = ""
    """The error of an order that contradicts the ledger."""

    @property
    def ended(self) -> bool:
        """True if nothing more is done for it."""
        return self.flow is not None and self.flow.finished


class Airflow:
    """Starts runs, and tries their tasks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._scheduler = world.scheduler
        self._interruptible = interruptible_by(world.scheduler)
        self.runs: list[Run] = []

    # -- runs ----------------------------------------------------------------------------------------------

    def start(
        self, kind: str = "asset", conf: Mapping[str, Any] | None = None, *, window: Window | None = None
    ) -> Run:
        """Start a run; it goes on by itself."""
        run = Run(self.next_run_id(kind), conf or {}, kind, window, self._scheduler.now_ms)
        self.runs.append(run)
        self._scheduler.remark(f"{kind} run {run.run_id} starts {dict(run.conf) or ''}")
        run.flow = self._scheduler.spawn(run.run_id, lambda: self._flow(run))
        return run

    def next_run_id(self, _kind: str) -> str:
        """The id of the run that is started next."""
        return f"run-{len(self.runs) + 1}"

    def clear(self, run: Run) -> None:
        """Clear a run that has ended: all its tasks run again, by the same run id."""
        self._scheduler.remark(f"{run.run_id} is cleared")
        run.flow = self._scheduler.spawn(run.run_id, lambda: self._flow(run))

    def fail(self, run: Run) -> None:
        """Mark a run as failed: its processes end, and nothing of it runs any more."""
        self._scheduler.remark(f"{run.run_id} is marked as failed")
        for actor in self._scheduler.actors:
            if actor.name == run.run_id or actor.name.startswith(f"{run.run_id}."):
                actor.doomed, actor.wake_ms = True, 0

    def _flow(self, run: Run) -> None:
        (self._reconcile if run.kind == "reconcile" else self._transfer)(run)

    def _transfer(self, run: Run) -> None:
        slices = self._task(run, "pull", lambda n: self._pull(run, n), PULL_RETRIES)
        if slices == [] and not (run.pulled and run.pulled.refused):
            return
        mapped = [
            self._scheduler.spawn(f"{run.run_id}.[{n}]", partial(self._stages, run, n, work))
            for n, work in enumerate(slices or ())
        ]
        self._scheduler.wait(lambda: all(a.finished for a in mapped))
        pulled = run.pulled.model_dump(mode="json", exclude={"slices"}) if run.pulled else None
        run.summary = self._task(run, "settle", lambda _: tasks.settle(slices, pulled), RETRIES)

    def _reconcile(self, run: Run) -> None:
        """`ownership_reconcile`, its looks one after the other."""
        conf = reconcile.ReconcileConf.of(run.conf)
        parts = self._world.parts

        def look(share: reconcile.Share, _try: int) -> Any:
            with self._interruptible():
                return reconcile.look_at_ranges(parts(), share, patience_s=0)

        shares = self._task(run, "plan_ranges", lambda _: reconcile.plan(parts(), run.run_id, conf), RETRIES)
        for n, share in enumerate(shares or ()):
            self._task(run, f"compare_ranges[{n}]", partial(look, share), RETRIES)
        self._task(
            run, "check_ledger", lambda _: reconcile.look_at_ledger(parts(), run.run_id, conf), RETRIES
        )
        self._task(
            run, "report", lambda _: reconcile.put_together(parts(), run.run_id, conf) and None, RETRIES
        )

    def _stages(self, run: Run, n: int, work: Mapping[str, Any]) -> None:
        given: Any = work
        for name, stage in (("lookup", tasks.lookup), ("update", tasks.update), ("reindex", tasks.reindex)):
            given = self._task(run, f"{name}[{n}]", partial(_staged, stage, given), RETRIES)
            if given is None:
                return

    def _task(self, run: Run, name: str, body: Callable[[int], Any], retries: int) -> Any:
        """The result of a task, tried as Airflow tries it; None if no try succeeds."""
        scheduler = self._scheduler
        first = run.tries.get(name, 0)
        for n in range(first + 1, first + retries + 2):
            run.tries[name] = n
            ti = SimpleNamespace(
                run_id=run.run_id, task_id=name, map_index=0, try_number=n, max_tries=first + retries,
                xcom={}, xcom_push=None,
            )  # fmt: skip
            ti.xcom_push = lambda key, value, of=ti.xcom: of.__setitem__(key, value)
            actor = scheduler.spawn(f"{run.run_id}.{name}#{n}", partial(body, n), mortal=True, context=ti)
            self._await_end(actor)
            if not actor.finished:
                scheduler.remark(f"{actor.name} is given up")
            elif actor.died:
                scheduler.sleep(DEATH_MS)
            elif actor.error is None:
                return actor.result
            elif isinstance(actor.error, AirflowException):  # skipped what follows
                return ti.xcom.get("return_value")
            elif isinstance(actor.error, Permanent):
                run.refused = str(actor.error)
                self._world.permanent.append(f"{actor.name}: {actor.error}")
                return None
            elif isinstance(actor.error, OwnershipError):
                scheduler.sleep(1000 * delay_seconds(f"{run.run_id}:{name}:0", n))
            else:
                self._world.broken(f"{actor.name}: {type(actor.error).__name__}: {actor.error}", actor.error)
                return None
        return None

    def _await_end(self, actor: Actor) -> None:
        """Return when the try has ended, or has stood still for so long that it is given up."""
        scheduler = self._scheduler
        while not actor.finished:
            scheduler.wait(lambda: actor.finished or actor.frozen_at_ms is not None)
            if not actor.finished and not scheduler.wait(
                lambda: actor.finished or actor.frozen_at_ms is None, ms=HEARTBEAT_MS
            ):
                return

    def _pull(self, run: Run, _try: int) -> list[dict[str, Any]]:
        """As the sensor does it (`edge/operators.py`)."""
        world, scheduler = self._world, self._scheduler
        undoes = run.kind == "undo"
        request = RunRequest(
            run_id=run.run_id,
            window=run.window,
            requests=()
            if undoes
            else manual_events(run.conf, run_id=run.run_id, at_ms=run.at_ms, by="operator"),
            at_ms=run.at_ms,
            orders=undo_order(run.conf) if undoes else orders(run.conf),
            patient=run.kind == "asset",
            started_by="operator",
            own_only=undoes,
        )
        with self._interruptible():
            parts = world.parts()
            try:
                collected = start_run(parts, self.intake(), request)
                until = scheduler.now_ms + PULL_MS
                while True:
                    collected = collect(parts, collected)
                    if collected.complete or scheduler.now_ms > until:
                        break
                    young = collected.young_until_ms
                    scheduler.sleep(min(max(young - scheduler.now_ms, 0), POKE_MS) if young else POKE_MS)
                run.pulled = pulled = hand_over(parts, collected)
            except Interrupted:
                parts.queue.release_all(request.run_id)
                raise
        return [s.model_dump(mode="json") for s in pulled.slices]

    def intake(self) -> Intake:
        """Where a pull's events come from."""
        return self._world.intake()

    # -- what the tasks find in Airflow's place ---------------------------------------------------------------

    def edge(self) -> dict[str, Any]:
        """What takes the place of Airflow in `ownership.edge.tasks`, by name."""

        class Silent:
            def __getattr__(self, _: str) -> Callable[..., None]:
                return lambda *_, **__: None

        @contextmanager
        def opened_parts() -> Iterator[Any]:
            yield self._world.parts()

        return {
            "get_current_context": self._context,
            "opened_parts": opened_parts,
            "interruptible": self._interruptible,
            "metrics": Silent(),
            "_announce_finished": lambda *_: None,
            "_ask_for_approval": lambda *_: None,
        }

    def _context(self) -> dict[str, Any]:
        assert self._scheduler.current is not None  # noqa: S101  # tasks are actors
        ti = self._scheduler.current.context
        run = next(r for r in self.runs if r.run_id == ti.run_id)
        return {"ti": ti, "dag_run": SimpleNamespace(dag_id=run.kind, conf=run.conf)}

    # -- the watcher ---------------------------------------------------------------------------------------

    def watch(self, *, until: Callable[[], bool], runs: int) -> None:
        """Start runs, at most `runs` at once, while there is work; return when `until` holds and nothing is left."""
        world, scheduler = self._world, self._scheduler
        announced: frozenset[object] = frozenset()
        at_ms = 0
        while True:
            work, empty = world.work_in_sight()
            open_runs = sum(not r.ended for r in self.runs)
            alive = open_runs or any(a.mortal for a in scheduler.actors)
            if empty and not alive and until():
                return
            again = scheduler.now_ms - at_ms >= RESIGNAL_MS
            if work and open_runs < runs and (again or work - announced):
                announced, at_ms = work, scheduler.now_ms
                self.start()
            scheduler.sleep(WATCH_MS)


def _staged(stage: Callable[[Any], Any], given: Any, _try: int) -> Any:
    return stage(given)


def interruptible_by(scheduler: Scheduler) -> Callable[[], AbstractContextManager[None]]:
    """As the product's `interruptible`, without a signal."""

    @contextmanager
    def interruptible() -> Iterator[None]:
        actor = scheduler.current
        assert actor is not None  # noqa: S101  # tasks are actors
        actor.interrupted = Interrupted
        try:
            yield
        except Interrupted:
            raise Stopped from None
        finally:
            actor.interrupted = Died

    return interruptible
