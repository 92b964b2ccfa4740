"""The fault suite's short form: a few rounds with a seed and a fault of their own on the session's stack."""

from __future__ import annotations

import pytest
from airflow_world import Story

from chaos.faults import BY_NAME, Scene
from chaos.rounds import play
from local.stack import Stack


@pytest.mark.parametrize(
    ("seed", "fault"),
    [
        (101, "task processes killed"),
        (102, "cassandra frozen"),
        (103, "elasticsearch killed"),
        (104, "userorg answers 503"),
    ],
)
def test_a_round_with_a_fault_ends_as_a_plain_replay_of_its_events(
    airflow_stack: Stack, story: Story, seed: int, fault: str
):
    done = play(Scene(airflow_stack), story.platform, seed, BY_NAME[fault])

    assert done.events
    assert done.violations == []
