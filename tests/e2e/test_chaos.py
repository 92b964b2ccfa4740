"""The fault suite's short form: a round on the session's stack, and whether its faults find what they strike."""

from __future__ import annotations

from contextlib import suppress

import psutil

from chaos.faults import BY_NAME, Scene, task_processes
from chaos.rounds import play
from chaos.ui import AirflowUi
from local.stack import Stack
from tests.e2e.airflow_world import Airflow, Story, form, until


def test_a_round_with_a_fault_ends_as_a_plain_replay_of_its_events(
    airflow: Airflow, airflow_stack: Stack, story: Story
):
    with (
        # Events may name one batch, and overtake each other.
        airflow.settings(transfer_scope="asset", grace_ms=1000),
        AirflowUi.at(airflow_stack) as ui,
    ):
        # The hourly run may have read the settings of before, and would accept the round's events by them.
        until("no run is under way", lambda: ui.runs() == 0)
        done = play(Scene(airflow_stack), story.platform, 102, BY_NAME["cassandra frozen"])

    assert done.events
    assert done.violations == []


def test_the_faults_find_the_processes_of_running_tasks(airflow: Airflow, airflow_stack: Stack, story: Story):
    user = story.user("old")
    slow = {"mode": "slow", "seconds": 4, "user": user, "times": 1}
    faults = f"{airflow_stack.addresses.userorg}/_faults"
    airflow.http.put(faults, json=slow).raise_for_status()
    run_id = airflow.trigger(form(user, story.user("new")))
    until("User-Org is asked", lambda: airflow.http.get(faults).json() == [])

    found = list(task_processes(airflow_stack))

    assert found
    for process in found:  # another run's may be among them
        process.kill()
    until("they are dead", lambda: all(map(dead, found)))
    # Airflow may take a minute to see it; another run takes the event over when the claim has expired.
    story.completed(f"manual:{run_id}:0", seconds=180)


def dead(process: psutil.Process) -> bool:
    """True also while its parent has not asked for its exit code."""
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True
