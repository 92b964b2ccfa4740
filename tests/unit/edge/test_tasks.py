"""What a task of the last stage does about a failure, in its own phases and in later ones. The stages are pretended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from ownership.domain.clock import now_ms
from ownership.domain.contracts import Phase, Slice, Work
from ownership.domain.errors import Permanent, SettingsError, Stopped, TakenOver, Unavailable
from ownership.domain.queue import ClaimedEvent, QueuedEvent
from ownership.edge import tasks
from ownership.reconcile import tasks as reconcile_tasks
from ownership.stages import later_phases, orders
from tests.unit.replay import transfers

EVENTS = [ClaimedEvent(t, 7) for t in transfers("cb", "ac", "xa")]
FIRST, *WAITING = EVENTS
GIVEN = Work(
    label="c → b", run_id="r", phases=(Phase(events=(FIRST,), moves={}),), waiting=tuple(WAITING)
).model_dump(mode="json")


class Job:
    """A ledger in memory, and stages that go well until told otherwise."""

    def __init__(self) -> None:
        self.queued = {e.mid: QueuedEvent(e.transfer, 0, 7, "r", now_ms() + 60_000) for e in EVENTS}
        self.failed: list[tuple[str, str]] = []
        self.renewed: list[str] = []
        self.released: list[str] = []
        self.happens: dict[tuple[str, str], Callable[[], object]] = {}
        """By stage and mid, what happens in it."""
        self.parts = SimpleNamespace(
            settings=SimpleNamespace(claim_seconds=120),
            queue=SimpleNamespace(
                read=lambda: list(self.queued.values()),
                release=lambda claimed, **_: self.released.extend(e.mid for e in claimed),
                claim_again=lambda claimed, **_: self._claimed_again(claimed),
                renew=lambda claimed, **_: self.renewed.extend(e.mid for e in claimed),
            ),
            events=SimpleNamespace(
                read=lambda mids: {m: SimpleNamespace(final=m not in self.queued, attempts=1) for m in mids},
                fail=lambda failed: self.failed.extend((e.mid, why) for e, why, _ in failed),
            ),
        )

    def lookup_users(self, _: Any, given: Slice) -> Work:
        first, rest = given.events[:1], given.events[1:]
        self._play("lookup", first[0])
        return given.step([Phase(events=first, moves={})], events={"planned": 1}, waiting=rest)

    def update_course_batches(self, _: Any, given: Work) -> Work:
        self._play("update", given.claimed[0])
        return given.step(given.phases, events={"applied": 1})

    def reindex_course_batches(self, _: Any, given: Work) -> Work:
        self._play("reindex", given.claimed[0])
        for e in given.claimed:
            del self.queued[e.mid]
        return given.step((), events={"completed": len(given.claimed)})

    def _claimed_again(self, claimed: list[ClaimedEvent]) -> list[ClaimedEvent]:
        for e in claimed:
            self.queued[e.mid] = self.queued[e.mid]._replace(fencing_token=8)
        return [e._replace(fencing_token=8) for e in claimed]

    def _play(self, stage: str, event: ClaimedEvent) -> None:
        self.happens.get((stage, event.mid), lambda: None)()


def raising(error: Exception) -> Callable[[], object]:
    def happen() -> object:
        raise error

    return happen


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Job:
    job = Job()

    @contextmanager
    def opened_parts() -> Iterator[Any]:
        yield job.parts

    monkeypatch.setattr(tasks, "opened_parts", opened_parts)
    monkeypatch.setattr(tasks, "reindex_course_batches", job.reindex_course_batches)
    monkeypatch.setattr(later_phases, "lookup_users", job.lookup_users)
    monkeypatch.setattr(later_phases, "LATER_STAGES", (job.update_course_batches, job.reindex_course_batches))
    return job


@pytest.fixture(params=[1])
def try_number(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    ti = SimpleNamespace(
        try_number=request.param,
        max_tries=2,
        run_id="r",
        task_id="transfer.reindex_course_batches",
        map_index=0,
    )
    monkeypatch.setattr(tasks, "get_current_context", lambda: {"ti": ti})
    return int(request.param)


def test_the_last_stage_carries_out_what_waits_in_its_slice(job: Job, try_number: int) -> None:
    done = tasks.reindex(GIVEN)
    assert (done["events"], done["waiting"], job.queued) == ({"completed": 3}, [], {})


def test_a_slice_without_phases_goes_on_with_what_waited_for_an_event_that_ended(
    job: Job, try_number: int
) -> None:
    del job.queued[FIRST.mid]
    assert tasks.reindex({**GIVEN, "phases": []})["events"] == {"completed": 2}


@pytest.mark.parametrize("stage", ["lookup", "update", "reindex"])
def test_a_later_phase_that_fails_is_tried_again_and_holds_its_claim(
    job: Job, try_number: int, stage: str
) -> None:
    second = WAITING[0].mid
    job.happens[stage, second] = raising(Unavailable("test", "down"))

    with pytest.raises(Unavailable):
        tasks.reindex(GIVEN)

    # A lookup that fails decides nothing about any of the events that it was given.
    concerned = [e.mid for e in (WAITING if stage == "lookup" else WAITING[:1])]
    assert [mid for mid, _ in job.failed] == concerned
    assert job.renewed == concerned
    assert job.released == []


@pytest.mark.parametrize("try_number", [3], indirect=True)
def test_a_later_phase_that_fails_in_the_last_try_leaves_what_is_behind_it_to_a_later_run(
    job: Job, try_number: int
) -> None:
    second, third = (e.mid for e in WAITING)
    job.happens["update", second] = raising(Unavailable("test", "down"))

    done = tasks.reindex(GIVEN)

    assert done["events"] == {"completed": 1, "failed": 1}
    assert done["failures"] == {second: "test unavailable: down"}
    assert list(job.queued) == [second, third]
    assert job.failed == [(second, "test unavailable: down")]


def test_first_phases_that_fail_are_tried_again_before_anything_goes_on(job: Job, try_number: int) -> None:
    job.happens["reindex", FIRST.mid] = raising(Unavailable("test", "down"))
    with pytest.raises(Unavailable):
        tasks.reindex(GIVEN)
    assert (len(job.queued), job.renewed) == (3, [FIRST.mid])


@pytest.mark.parametrize("try_number", [3], indirect=True)
def test_an_error_that_no_retry_can_help_fails_the_task_in_a_later_phase_too(
    job: Job, try_number: int
) -> None:
    job.happens["update", WAITING[0].mid] = raising(SettingsError("the table is missing"))
    with pytest.raises(SettingsError):
        tasks.reindex(GIVEN)


def test_a_phase_that_is_taken_over_is_no_failure_and_holds_back_what_is_behind_it(
    job: Job, try_number: int
) -> None:
    job.happens["update", WAITING[0].mid] = raising(TakenOver("by another run"))
    done = tasks.reindex(GIVEN)
    assert (done["events"], job.failed) == ({"completed": 1, "taken_over": 1}, [])
    assert list(job.queued) == [e.mid for e in WAITING]


def test_a_task_that_is_told_to_end_in_a_later_phase_releases_all_that_it_holds(
    job: Job, try_number: int
) -> None:
    job.happens["update", WAITING[0].mid] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped):
        tasks.reindex(GIVEN)
    assert job.released == [e.mid for e in EVENTS]


def test_an_approval_that_was_marked_as_a_success_by_hand_is_no_answer(job: Job, try_number: int) -> None:
    with pytest.raises(Permanent, match="ask has returned nothing: it was marked"):
        tasks.decide({"mid": FIRST.mid, "digest": "0f" * 10}, None)


def test_a_verdict_without_a_summary_says_why_there_is_none() -> None:
    with pytest.raises(Permanent, match="settle has returned nothing: it was marked"):
        tasks.verdict(None)
    with pytest.raises(Permanent, match="report has returned nothing: it was marked"):
        reconcile_tasks.verdict(None)


def test_a_run_whose_pull_did_not_end_names_that_task(job: Job, try_number: int) -> None:
    summary = tasks.settle(None, None, "pull_undo_events")
    assert summary == {"failures": {"pull_undo_events": "did not end: its log says why"}}


@pytest.mark.parametrize("reason", [None, "", " \n", "\u00a0"])
@pytest.mark.parametrize("chosen", ["Approve", "Decline"])
def test_an_answer_is_written_whatever_its_reason_and_the_name_of_who_gave_it(
    job: Job, try_number: int, monkeypatch: pytest.MonkeyPatch, chosen: str, reason: str | None
) -> None:
    """Airflow's UI takes a blank reason, and names as its accounts have them."""
    written: list[tuple[Any, str]] = []

    def write(_: Any, order: Any, *, run_id: str, by: str) -> str:
        written.append((order, by))
        return "written"

    monkeypatch.setattr(orders, "approve", write)
    monkeypatch.setattr(orders, "decline", write)
    question = {"mid": FIRST.mid, "digest": "0f" * 10}
    by = "A.\u00a0Name" * 30
    assert tasks.decide(question, {"chosen": chosen, "by": by, "reason": reason}) == "written"
    ((order, told),) = written
    assert (order.mid, told) == (FIRST.mid, by)
    assert getattr(order, "reason", "no reason given") == "no reason given"
