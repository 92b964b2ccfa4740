"""Runs that a person clears or ends while they run, in each stage, on a real Airflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import pytest

from local.platform.world import Batch
from tests.e2e.airflow_world import DAG, Airflow, Story, form, until

STAGES = ("lookup_users", "update_course_batches", "reindex_course_batches")


@pytest.fixture(autouse=True)
def faults_end(airflow: Airflow):
    """No fault outlives its test."""
    yield
    for url in (airflow.stack.addresses.userorg, airflow.stack.addresses.lms):
        airflow.http.delete(f"{url}/_faults")


def clear(airflow: Airflow, run_id: str) -> None:
    """Clear a run, whatever it does. Airflow 3.3.2 may answer 500 where a task starts in that moment: press again."""

    def cleared() -> bool:
        answer = airflow.http.post(f"/dags/{DAG}/dagRuns/{run_id}/clear", json={"dry_run": False})
        assert answer.status_code in (200, 500), answer.text
        return answer.status_code == 200

    until("the run is cleared", cleared)


def end(airflow: Airflow, run_id: str) -> None:
    """Mark a run as failed: nothing of it is tried again."""
    airflow.mark_failed(run_id)


@contextmanager
def slow_users(airflow: Airflow, user: str) -> Iterator[None]:
    """The first answer about a user takes longer than Airflow needs to end a task."""
    slow = {"mode": "slow", "seconds": 9, "user": user, "times": 1}
    airflow.http.put(f"{airflow.stack.addresses.userorg}/_faults", json=slow).raise_for_status()
    yield


@contextmanager
def frozen_index(airflow: Airflow) -> Iterator[None]:
    """Elasticsearch answers nothing."""
    server = airflow.stack.servers["elasticsearch"]
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


def asked(airflow: Airflow) -> bool:
    """True once User-Org's stand-in holds an answer back: its fault is used up."""
    return airflow.http.get(f"{airflow.stack.addresses.userorg}/_faults").json() == []


def creator(story: Story, batch: Batch) -> str | None:
    """Who created a batch, by its row."""
    row = story.platform.row(batch.course_id, batch.batch_id)
    return row["createdby"] if row else None


def running(airflow: Airflow, run_id: str, stage: str) -> bool:
    """True while the only instance of a stage runs."""
    return airflow.tasks(run_id).get((f"transfer.{stage}", 0), {}).get("state") == "running"


@pytest.mark.parametrize("act", [clear, end])
def test_a_run_cleared_or_ended_while_it_asks_for_users_lets_go_at_once(
    airflow: Airflow, story: Story, act: Callable[[Airflow, str], None]
):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 4)
    # Were the claim not let go of, it would live on for ten minutes.
    with airflow.settings(claim_seconds=600), slow_users(airflow, old):
        run_id = airflow.trigger(form(old, new))
        until("lookup runs", lambda: running(airflow, run_id, "lookup_users"), every=0.05)
        until("it waits for User-Org", lambda: asked(airflow))

        act(airflow, run_id)

        story.completed(f"manual:{run_id}:0", seconds=120)
    assert story.owners(batches) == {(new, new)}
    assert "stage interrupted" in airflow.log(run_id, "transfer.lookup_users", map_index=0)


@pytest.mark.parametrize("act", [clear, end])
def test_a_run_cleared_or_ended_while_it_moves_rows_is_finished(
    airflow: Airflow, story: Story, act: Callable[[Airflow, str], None]
):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 800)
    run_id = airflow.trigger(form(old, new))
    some = batches[::50]
    until("rows move", lambda: new in {creator(story, b) for b in some}, every=0.01)

    act(airflow, run_id)

    story.completed(f"manual:{run_id}:0", seconds=120)
    assert story.owners(batches[::50]) == {(new, new)}


def test_a_run_cleared_while_it_waits_for_the_index_is_finished_by_its_second_pass(
    airflow: Airflow, story: Story
):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 4)
    run_id = airflow.trigger(form(old, new))
    until("a row moved", lambda: creator(story, batches[0]) == new, every=0.01)
    with frozen_index(airflow):
        until("reindex runs", lambda: running(airflow, run_id, "reindex_course_batches"), every=0.05)

        clear(airflow, run_id)

        until(
            "its tasks of before have ended",
            lambda: not running(airflow, run_id, "reindex_course_batches"),
        )
    story.completed(f"manual:{run_id}:0", seconds=120)
    assert story.owners(batches) == {(new, new)}


def test_a_run_is_cleared_again_and_again_while_it_runs(airflow: Airflow, story: Story):
    users = [story.user(f"u{n}") for n in range(4)]
    batches = story.batches(users[0], 30)
    run_id = airflow.trigger({"events": [form(a, b) for a, b in pairwise(users)]})

    def began_or_all_is_done(stage: str) -> bool:
        return running(airflow, run_id, stage) or airflow.run(run_id)["state"] in ("success", "failed")

    for stage in STAGES:
        until(f"{stage} began or all is done", partial(began_or_all_is_done, stage), every=0.05)
        clear(airflow, run_id)

    assert airflow.ended(run_id, seconds=120) == "success"
    story.completed(*(f"manual:{run_id}:{n}" for n in range(3)))
    assert story.owners(batches) == {(users[-1], users[-1])}
