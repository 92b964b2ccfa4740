"""Approval of large transfers, asked for and answered through Airflow's own API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.airflow_world import APPROVAL, ASK, Airflow, Story, asked_at, form, question, until

LIMIT = 2


@pytest.fixture(autouse=True)
def limited(airflow: Airflow) -> Iterator[None]:
    """Transfers of more than two batches wait for an approval."""
    with airflow.settings(approval_batches=LIMIT):
        yield


def large(airflow: Airflow, story: Story, count: int = 3) -> tuple[str, list[Any], str, str, dict[str, Any]]:
    """A transfer that waits: its mid, its batches, both users, and its plan."""
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, count)
    run_id, summary = airflow.done(form(old, new))
    (plan,) = summary["plans"]
    mid = f"manual:{run_id}:0"
    assert summary["events"] == {"awaiting_approval": 1}
    assert (plan["mid"], plan["state"], plan["batches"]) == (mid, "awaiting_approval", count)
    assert story.owners(batches) == {(old, old)}
    return mid, batches, old, new, plan


def answer(airflow: Airflow, run_id: str, index: int, option: str, reason: str = "") -> None:
    """Answer as a person does in the UI."""
    body = {"chosen_options": [option], "params_input": {"reason": reason}}
    given = airflow.http.patch(asked_at(airflow, run_id, index), json=body)
    assert given.status_code == 200, given.text


def slots(airflow: Airflow) -> tuple[int, int]:
    """How many slots tasks take that run, and that are deferred."""
    pool = airflow.http.get("/pools/default_pool").json()
    return pool["running_slots"], pool["deferred_slots"]


def test_a_large_transfer_waits_without_a_slot_and_is_approved_in_the_ui(airflow: Airflow, story: Story):
    mid, batches, old, new, plan = large(airflow, story)
    run_id, index, asked = question(airflow, mid)

    assert asked["subject"] == f"Approve: 3 course batches, {old} → {new}"
    assert plan["digest"] in asked["body"]
    assert asked["options"] == ["Approve", "Decline"]
    tasks = airflow.of(APPROVAL).tasks
    until("it waits", lambda: tasks(run_id)[ASK, index]["state"] == "awaiting_input")
    until("no slot is taken", lambda: slots(airflow) == (0, 0))  # other DAGs may have a task just now
    # Smaller transfers pass by meanwhile.
    small, next_to_it = story.user("small"), story.user("next")
    few = story.batches(small, LIMIT, "few")
    _, summary = airflow.done(form(small, next_to_it))
    assert summary["events"] == {"completed": 1}
    assert story.owners(few) == {(next_to_it, next_to_it)}
    assert story.state(mid) == "awaiting_approval"

    answer(airflow, run_id, index, "Approve")

    assert airflow.of(APPROVAL).ended(run_id) == "success"
    story.completed(mid)
    assert story.owners(batches) == {(new, new)}
    assert story.event(mid)["approved_by"] == airflow.stack.addresses.airflow_user


def test_a_refusal_in_the_ui_ends_the_transfer_with_who_and_why(airflow: Airflow, story: Story):
    mid, batches, old, _, _ = large(airflow, story)
    run_id, index, _ = question(airflow, mid)

    answer(airflow, run_id, index, "Decline", "they stay")

    assert airflow.of(APPROVAL).ended(run_id) == "success"
    row = story.event(mid)
    assert (row["state"], row["reason"]) == (
        "declined",
        f"declined by {airflow.stack.addresses.airflow_user}: they stay",
    )
    assert story.owners(batches) == {(old, old)}


def test_a_transfer_that_nobody_answers_for_is_declined_when_its_time_is_over(airflow: Airflow, story: Story):
    asking = airflow.of(APPROVAL)
    url = f"/dags/{APPROVAL}"
    airflow.http.patch(url, json={"is_paused": True}).raise_for_status()
    try:
        mid, batches, old, _, _ = large(airflow, story)
        soon = datetime.now(UTC) + timedelta(seconds=15)
        shorten(story, mid, int(soon.timestamp() * 1000))
    finally:
        airflow.http.patch(url, json={"is_paused": False}).raise_for_status()
    asking.trigger()  # what began to wait while the DAG was paused is asked about by a run by hand
    run_id, index, _ = question(airflow, mid)

    assert asking.ended(run_id, seconds=120) == "success"
    assert asking.xcom(run_id, "approval.decide", map_index=index).startswith("was not answered in time")
    airflow.trigger()
    until("it is declined", lambda: story.state(mid) == "declined")
    assert "nobody approved it" in story.event(mid)["reason"]
    assert story.owners(batches) == {(old, old)}


def test_an_answer_to_what_was_approved_by_conf_changes_nothing_more(airflow: Airflow, story: Story):
    mid, batches, _, new, plan = large(airflow, story)
    run_id, index, _ = question(airflow, mid)

    approved = airflow.trigger({"approve": {"mid": mid, "digest": plan["digest"], "by": "the board"}})

    assert airflow.ended(approved) == "success"
    notes = airflow.xcom(approved, "pull_transfer_events", "pulled")["notes"]
    assert notes == {mid: "was approved by the board"}
    story.completed(mid)
    assert story.owners(batches) == {(new, new)}
    # The question is still open.
    answer(airflow, run_id, index, "Decline", "too late")
    assert airflow.of(APPROVAL).ended(run_id) == "success"
    assert airflow.of(APPROVAL).xcom(run_id, "approval.decide", map_index=index) == "is completed already"
    assert story.state(mid) == "completed"


def shorten(story: Story, mid: str, until_ms: int) -> None:
    """The transfer waits until then only."""
    for statement in (
        "UPDATE queue SET next_try_at = to_timestamp(%(s)s) FROM event WHERE event_id = id AND mid = %(mid)s "
        "AND awaits = 'approval' RETURNING id",
        "UPDATE event SET awaits_until = to_timestamp(%(s)s) WHERE mid = %(mid)s RETURNING id",
    ):
        assert len(story.rows(statement, s=until_ms / 1000, mid=mid)) == 1


def test_a_transfer_whose_question_was_deleted_is_asked_about_again_once(airflow: Airflow, story: Story):
    mid, batches, _, new, _ = large(airflow, story)
    deleted, _, _ = question(airflow, mid)
    asking = airflow.of(APPROVAL)
    # Airflow deletes no run that has not ended.
    airflow.http.patch(asking._url(deleted), json={"state": "failed"}).raise_for_status()
    airflow.http.delete(asking._url(deleted)).raise_for_status()

    for _ in range(2):  # the second run must not ask again
        airflow.ended(airflow.trigger())
        run_id, index, _ = question(airflow, mid)

    answer(airflow, run_id, index, "Approve")
    assert asking.ended(run_id) == "success"
    story.completed(mid)
    assert story.owners(batches) == {(new, new)}
    asked = [
        run["dag_run_id"] for run in asking.runs(limit=10) if (ASK, 0) in asking.tasks(run["dag_run_id"])
    ]
    assert [run for run in asked if mid in airflow.http.get(asked_at(airflow, run, 0)).text] == [run_id]
