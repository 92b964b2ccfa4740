from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk import DAG, AssetAlias, task, task_group
from airflow.sdk.exceptions import DownstreamTasksSkipped
from airflow.sdk.execution_time.context import OutletEventAccessors

from ownership.domain import clock
from ownership.domain.contracts import Pulled, Slice
from ownership.domain.errors import Permanent, Stopped, Unavailable
from ownership.domain.queue import Choice, Wait, WaitKind
from ownership.edge import hooks, metrics, tasks
from ownership.edge.approvals import ALIAS
from ownership.edge.interruption import Interrupted
from ownership.edge.operators import MAX_MAPPED, PULLED, PullTransferEvents, Stage
from ownership.stages import pull
from ownership.stages.intake import Intake
from ownership.stages.pull import Collected, RunRequest

NOW = 1_767_225_600_000
SLICES = (Slice(label="A → B", run_id="r", events=()), Slice(label="C → D", run_id="r", events=()))


class Story:
    """What each poke finds, and what the operator did with it."""

    def __init__(self, *pokes: bool | BaseException, found: Sequence[Slice] = SLICES) -> None:
        self.pokes = list(pokes)
        self.found = tuple(found)
        self.requests: list[RunRequest] = []
        self.handed_over: list[Collected] = []
        self.released: list[str] = []
        self.young_until_ms = 0
        self.refused: dict[str, str] = {}
        self.pushed: dict[str, Any] = {}
        self.asking: set[str | None] = set()
        """The runs that ask for approvals."""
        self.emitted = OutletEventAccessors()
        self.parts = SimpleNamespace(
            queue=SimpleNamespace(release_all=self.released.append),
            events=SimpleNamespace(asking_runs=lambda: self.asking),
        )

    def start_run(self, _: Any, intake: Intake, request: RunRequest) -> Collected:
        self.requests.append(request)
        return Collected(request, intake)

    def collect(self, _: Any, so_far: Collected) -> Collected:
        # The last answer goes for all that come after it.
        answer = self.pokes.pop(0) if len(self.pokes) > 1 else self.pokes[0]
        if isinstance(answer, BaseException):
            raise answer
        choice = Choice(
            waits={"m1": Wait(WaitKind.YOUNG, until_ms=self.young_until_ms)} if self.young_until_ms else {}
        )
        return replace(so_far, own=(*so_far.own, "poke"), choice=choice, complete=answer)

    def hand_over(self, _: Any, collected: Collected) -> Pulled:
        self.handed_over.append(collected)
        return Pulled(
            slices=self.found,
            refused=self.refused,
            notes={"m1": "was abandoned"},
            waits={"m2": "is too young"},
        )


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Any:
    def play(
        story: Story, *, timeout: float = 60, poke_interval: float = 0, try_number: int = 1, **run: Any
    ) -> Any:
        @contextmanager
        def opened_parts() -> Iterator[Any]:
            yield story.parts

        @contextmanager
        def opened_intake(_: Any, *, by_hand: bool) -> Iterator[Intake]:
            yield Intake(None, cast("Any", None))

        monkeypatch.setattr(hooks, "opened_parts", opened_parts)
        monkeypatch.setattr(hooks, "opened_intake", opened_intake)
        monkeypatch.setattr(metrics, "pulled", lambda *_: None)
        for name in ("start_run", "collect", "hand_over"):
            monkeypatch.setattr(pull, name, getattr(story, name))
        pushed = story.pushed
        ti = SimpleNamespace(
            try_number=try_number,
            xcom_push=lambda key, value: pushed.update({key: value}),
            get_dr_count=lambda run_ids, **_: int(run_ids == ["alive"]),
        )
        given = {
            "run_id": "r",
            "run_type": "asset_triggered",
            "conf": {},
            "run_after": datetime(2026, 1, 1, tzinfo=UTC),
            "triggering_user_name": None,
            "data_interval_start": None,
            "data_interval_end": None,
        }
        context = {"dag_run": SimpleNamespace(**given | run), "ti": ti, "outlet_events": story.emitted}
        result = operator(timeout, poke_interval).execute(cast("Any", context))
        return result, pushed

    return play


def operator(timeout: float, poke_interval: float) -> PullTransferEvents:
    with DAG("d", schedule=None):
        pulls = PullTransferEvents(task_id="pull", poke_interval=poke_interval, timeout=timeout)

        @task
        def stage(work: Any) -> Any:
            return work

        @task_group
        def transfer(work: Any) -> Any:
            return stage(work)

        @task
        def settle() -> None: ...

        transfer.expand(work=pulls.output) >> settle()
    return pulls


def test_a_poke_that_finds_all_ends_at_once_and_returns_the_slices(play: Any) -> None:
    story = Story(True)
    slices, pushed = play(story)
    assert [s["label"] for s in slices] == ["A → B", "C → D"]
    assert len(story.handed_over[0].own) == 1
    assert pushed[PULLED]["notes"] == {"m1": "was abandoned"}
    assert "slices" not in pushed[PULLED]


def test_it_pokes_until_nothing_is_worth_waiting_for_and_keeps_what_each_poke_found(play: Any) -> None:
    story = Story(False, False, True)
    play(story)
    (collected,) = story.handed_over
    assert collected.complete
    assert len(collected.own) == 3
    assert len(story.requests) == 1


@pytest.mark.parametrize(
    ("young_in_ms", "pause"),
    [
        pytest.param(None, 0.5, id="waits for another run"),
        pytest.param(200, 0.2, id="an event is old enough soon"),
        pytest.param(60_000, 0.5, id="not for longer than the interval"),
        pytest.param(-7, 0, id="it is old enough by now"),
    ],
)
def test_it_pokes_again_as_soon_as_events_are_old_enough(
    play: Any, monkeypatch: pytest.MonkeyPatch, young_in_ms: int | None, pause: float
) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: NOW)
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    story = Story(False, True)
    if young_in_ms is not None:
        story.young_until_ms = NOW + young_in_ms
    play(story, poke_interval=0.5)
    assert pauses == [pause]


def test_after_the_time_out_the_run_goes_on_with_what_it_has(play: Any) -> None:
    story = Story(False)
    slices, _ = play(story, timeout=0)
    assert len(slices) == 2
    assert not story.handed_over[0].complete


def test_after_the_time_out_a_run_that_has_nothing_skips_what_comes_after_it(play: Any) -> None:
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        play(Story(False, found=()), timeout=0)
    assert skipped.value.tasks == ["settle", "transfer.stage"]


@pytest.mark.parametrize(("try_number", "instances"), [(1, 0), (2, MAX_MAPPED)])
def test_a_run_whose_conf_was_refused_goes_on_to_the_tasks_that_fail_it(
    play: Any, try_number: int, instances: int
) -> None:
    story = Story(True, found=())
    story.refused = {"m1": "is not in the ledger"}
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        play(story, try_number=try_number)
    assert skipped.value.tasks == ["transfer.stage", *(("transfer.stage", n) for n in range(instances))]
    assert story.pushed["return_value"] == []
    assert story.pushed[PULLED]["refused"] == story.refused


def test_a_run_that_was_cleared_skips_the_mapped_instances_of_before_too(play: Any) -> None:
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        play(Story(True, found=()), try_number=2)
    instances = [("transfer.stage", n) for n in range(MAX_MAPPED)]
    assert skipped.value.tasks == ["settle", "transfer.stage", *instances]


def test_a_task_that_gets_sigterm_between_pokes_releases_what_it_claimed(play: Any) -> None:
    story = Story(False, Interrupted())
    with pytest.raises(Stopped):
        play(story)
    assert story.released == ["r"]


def test_a_poke_that_fails_fails_the_task_which_keeps_what_it_claimed_for_its_retry(play: Any) -> None:
    story = Story(False, Unavailable("Kafka", "no broker answers"))
    with pytest.raises(Unavailable):
        play(story)
    assert story.released == story.handed_over == []


@pytest.mark.parametrize(
    ("run_type", "patient", "window"),
    [
        pytest.param("asset_triggered", True, False, id="asset"),
        pytest.param("manual", False, False, id="manual"),
        pytest.param("scheduled", False, True, id="hourly"),
        pytest.param("backfill", False, True, id="backfill"),
    ],
)
def test_what_a_run_pulls_follows_from_its_type(
    play: Any, run_type: str, patient: bool, window: bool
) -> None:
    story = Story(True)
    hours = [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in (1, 2)]
    play(story, run_type=run_type, data_interval_start=hours[0], data_interval_end=hours[1])
    (request,) = story.requests
    assert request.patient is patient
    assert (request.window is not None) is window
    if request.window:
        assert request.window.end_ms - request.window.start_ms == 3_600_000


@pytest.mark.parametrize(
    ("asking", "wanted"),
    [
        pytest.param(set(), False, id="no transfer awaits an approval"),
        pytest.param({"alive"}, False, id="its run is there"),
        pytest.param({"deleted"}, True, id="its run was deleted"),
        pytest.param({None}, True, id="no run has asked yet"),
        pytest.param({"alive", "deleted"}, True, id="one of two"),
    ],
)
def test_a_run_starts_the_approval_dag_for_what_no_run_asks_about(
    play: Any, asking: set[str | None], wanted: bool
) -> None:
    story = Story(True, found=())
    story.asking = asking
    with pytest.raises(DownstreamTasksSkipped):  # it has nothing to do itself
        play(story)
    assert bool(story.emitted[AssetAlias(ALIAS)].asset_alias_events) is wanted


class Given:
    """A task instance, and what the tasks before it have returned; keeps which XComs were asked for."""

    def __init__(self, map_index: int, **returned: Any) -> None:
        self.map_index = map_index
        self.returned = returned
        self.asked: list[tuple[str, int | None]] = []

    def xcom_pull(self, *, task_ids: str, map_indexes: int | None) -> Any:
        self.asked.append((task_ids, map_indexes))
        return self.returned[task_ids.rpartition(".")[2]]


@pytest.fixture
def stages() -> tuple[Stage, Stage]:
    """The first stage of a group, and the one behind it."""
    with DAG("d", schedule=None):
        pulls = PullTransferEvents(task_id="pull")

        @task_group
        def transfer(work: Any) -> None:
            first = Stage(task_id="first", run="lookup", given_by="pull")
            first >> Stage(task_id="second", run="update", given_by="transfer.first")

        transfer.expand(work=pulls.output)
        dag = pulls.dag
    return cast("Stage", dag.get_task("transfer.first")), cast("Stage", dag.get_task("transfer.second"))


def test_a_stage_works_on_its_own_slice_and_fetches_it_once(
    stages: tuple[Stage, Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "lookup", lambda work: {"looked up": work["label"]})
    monkeypatch.setattr(tasks, "update", lambda work: {"updated": work["label"]})
    first, second = stages
    ti = Given(1, pull=[{"label": "A → B"}, {"label": "C → D"}], first={"label": "E → F"})
    assert first.slice_label(ti) == "C → D"
    assert first.execute(cast("Any", {"ti": ti})) == {"looked up": "C → D"}
    assert ti.asked == [("pull", None)]
    assert second.execute(cast("Any", {"ti": ti})) == {"updated": "E → F"}
    assert ti.asked[1:] == [("transfer.first", 1)]


def test_a_stage_behind_one_that_was_marked_as_a_success_says_so(stages: tuple[Stage, Stage]) -> None:
    first, second = stages
    ti = Given(0, pull=None, first=None)
    for stage, before in ((first, "pull"), (second, "transfer.first")):
        with pytest.raises(Permanent, match=f"{before} has returned nothing: it was marked"):
            stage.execute(cast("Any", {"ti": ti}))


def test_an_instance_of_which_nothing_is_known_is_named_by_its_number(stages: tuple[Stage, Stage]) -> None:
    first, second = stages
    ti = Given(3, pull=None, first=None)
    assert (first.slice_label(ti), second.slice_label(ti)) == ("3", "3")
