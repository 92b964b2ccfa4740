"""Dry runs, plans that are applied, and undo, on a real Airflow."""

from __future__ import annotations

import json

from local.platform.schema import BATCH_INDEX
from tests.e2e.airflow_world import ORGANISATION, UNDO, Airflow, Story, form, until


def test_a_dry_run_changes_neither_store_and_its_plan_is_applied_by_its_digest(
    airflow: Airflow, story: Story
):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 3)
    before = story.platform.as_written(batches)

    run_id, summary = airflow.done(form(old, new, dry_run=True))

    (plan,) = summary["plans"]
    assert story.platform.as_written(batches) == before
    assert summary["events"] == {"rehearsed": 1}
    assert (plan["batches"], plan["roles"], plan["conflicts"]) == (3, {"created": 3}, 0)
    assert len(plan["first"]) == 3
    mid = f"manual:{run_id}:0"
    assert (plan["mid"], story.state(mid)) == (mid, "rehearsed")
    log = airflow.log(run_id, "settle")
    for words in (f"digest {plan['digest']}", "first rows, before", f"created by {old}", "execute_plan"):
        assert words in log

    executed, summary = airflow.done({"execute_plan": mid, "digest": plan["digest"]})

    assert summary["notes"] == {mid: f"is applied as execute:{executed}"}
    assert summary["batches"] == {"moved": 3}
    assert story.owners(batches) == {(new, new)}


def test_an_undo_is_a_dry_run_unless_it_is_told_otherwise_and_gives_the_batches_back(
    airflow: Airflow, story: Story
):
    undo = airflow.of(UNDO)
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 3)
    event = story.platform.event(old, new, ORGANISATION)
    story.platform.emit(event)
    story.completed(event["mid"])
    until("the claim is free", lambda: airflow.ended(str(story.event(event["mid"])["run_id"])))
    before = story.platform.as_written(batches)

    rehearsed, summary = undo.done({"mids": [event["mid"]]})

    (plan,) = summary["plans"]
    assert (plan["mid"], plan["batches"]) == (f"undo:{rehearsed}:0", 3)
    assert story.platform.as_written(batches) == before

    run_id, summary = undo.done({"mids": [event["mid"]], "dry_run": False, "reason": "wrong person"})

    assert summary["batches"] == {"moved": 3}
    assert story.owners(batches) == {(old, old)}
    row = story.event(f"undo:{run_id}:0")
    assert (row["state"], row["request_reason"]) == ("completed", "wrong person")
    # And the undo is undone.
    _, summary = undo.done({"mids": [f"undo:{run_id}:0"], "dry_run": False})
    assert summary["batches"] == {"moved": 3}
    assert story.owners(batches) == {(new, new)}


def test_an_undo_that_the_index_does_not_take_is_finished_by_itself_when_it_does(
    airflow: Airflow, story: Story
):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 2)
    run_id, _ = airflow.done(form(old, new))
    indices = story.platform.search.indices
    indices.put_settings(index=BATCH_INDEX, settings={"index.blocks.write": True})
    try:
        undone = airflow.of(UNDO).trigger({"mids": [f"manual:{run_id}:0"], "dry_run": False})
        mid = f"undo:{undone}:0"
        until("it fails", lambda: story.state(mid) == "failed", seconds=120)
        assert story.owners(batches) == {(old, new)}
    finally:
        indices.put_settings(index=BATCH_INDEX, settings={"index.blocks.write": None})

    story.completed(mid, seconds=180)
    assert story.owners(batches) == {(old, old)}


def test_an_undo_that_is_ordered_while_elasticsearch_is_down_is_done_when_its_run_is_cleared(
    airflow: Airflow, story: Story
):
    undo = airflow.of(UNDO)
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 2)
    run_id, _ = airflow.done(form(old, new))
    with airflow.down("elasticsearch"):
        undone = undo.trigger({"mids": [f"manual:{run_id}:0"], "dry_run": False})
        assert undo.ended(undone, seconds=180) == "failed"
        tried = undo.tasks(undone)["pull_undo_events", -1]["try_number"]
        assert "Connection 'elasticsearch_default'" in undo.log(undone, "pull_undo_events", attempt=tried)
        assert story.state(f"undo:{undone}:0") is None

    body = {"dag_run_id": undone, "dry_run": False, "only_failed": True}
    airflow.http.post(f"/dags/{UNDO}/clearTaskInstances", json=body).raise_for_status()

    story.completed(f"undo:{undone}:0")
    assert story.owners(batches) == {(old, old)}


def test_a_failed_event_is_redriven_after_an_outage_with_the_conf_that_its_row_has(
    airflow: Airflow, story: Story
):
    old, new = story.user("old"), story.user("new")
    batches = story.batches(old, 2)
    with airflow.userorg_fails(old):
        event = story.platform.event(old, new, ORGANISATION)
        story.platform.emit(event)
        until("it fails", lambda: story.state(event["mid"]) == "failed", seconds=120)
        conf = json.loads(story.event(event["mid"])["next_conf"])

    assert conf == {"redrive": {"mids": [event["mid"]]}}
    run_id = airflow.trigger(conf)
    assert airflow.ended(run_id) == "success"
    notes = airflow.xcom(run_id, "pull_transfer_events", "pulled")["notes"]
    assert notes == {event["mid"]: "is failed, and is tried by this run if nothing blocks it"}
    story.completed(event["mid"], seconds=180)
    assert story.owners(batches) == {(new, new)}
