"""The demo's story on a real Airflow: what it claims is what happened, and what it prints can be used."""

from __future__ import annotations

import io
import time
from collections import Counter

import httpx
import pytest
from rich.console import Console

from local.demo import DemoError, Outcome, give_back, play, print_next_steps
from local.display import WIDTH
from local.outcome import differences, opened_api
from local.stack import Stack
from local.story import Owners
from local.world import Owned, Platform, create_platform

pytestmark = [pytest.mark.airflow, pytest.mark.servers]


def a_log() -> Console:
    return Console(file=io.StringIO(), width=WIDTH, highlight=False)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def an_open_platform(stack: Stack) -> Platform:
    known = stack.addresses
    return Platform(cassandra=known.cassandra, elasticsearch=known.elasticsearch, kafka=known.kafka)


@pytest.fixture(scope="module")
def told(airflow_stack: Stack) -> tuple[Outcome, str]:
    """One performance of the demo, and what it printed."""
    console = a_log()
    outcome = play(airflow_stack.addresses, console)
    print_next_steps(airflow_stack.addresses, outcome, console)
    return outcome, text_of(console)


def test_events_that_are_not_final_in_time_are_named(airflow_stack: Stack):
    known = airflow_stack.addresses
    create_platform(
        cassandra=known.cassandra, elasticsearch=known.elasticsearch, kafka=known.kafka, env="unread"
    )  # a topic that no job reads
    with pytest.raises(DemoError, match=r"(?s)31 of 31 events are not final after 1 s:.*owner of 45 batches"):
        play(known, a_log(), env="unread", timeout_s=1)


def test_every_event_ends_as_it_must_and_both_stores_agree(told: tuple[Outcome, str]):
    outcome, _ = told
    assert outcome.wrong == []
    assert Counter(event.state for event in outcome.end.events.values()) == {
        "completed": 24, "skipped": 3, "rejected": 4,
    }  # fmt: skip


def test_each_person_holds_what_the_transfers_gave(told: tuple[Outcome, str]):
    outcome, _ = told
    world, after = outcome.world, outcome.after
    gave = (world.owner, world.mentor, *world.chain[:2], world.administrator)
    assert [after[person.user_id] for person in gave] == [Owned()] * 5
    assert after[world.owner_successor.user_id] == Owned(45, 0, 45, 0)
    assert after[world.mentor_successor.user_id] == Owned(3, 8, 3, 8)
    assert after[world.chain[2].user_id] == Owned(8, 0, 8, 0)
    assert after[world.outsider.user_id] == Owned(2, 0, 2, 0)


def test_one_request_moves_once_and_a_message_sent_twice_is_one_event(told: tuple[Outcome, str]):
    outcome, _ = told
    moved = Counter[str]()
    for mid, message in outcome.sent.items():
        moved[message.what.split(" of one request")[0].split(" ")[0]] += outcome.end.events[mid].counts.get(
            "moved", 0
        )
    assert (moved["object"], moved["owner"]) == (3, 45)
    assert len(outcome.sent) == 31


def test_the_terminal_tells_it_all(told: tuple[Outcome, str]):
    outcome, printed = told
    for words in (
        "Before: live batches",
        "After: live batches",
        "45 → 0",
        "0 → 45",
        "user nobody is unknown to",
        "old and new user are the same",
        "the message is empty",
        "from the first message to the last proof",
        "As expected: 24 completed, 3 skipped, 4 rejected",
        "password ",
    ):
        assert words in printed
    assert printed.count("rejected:…:") == 4
    assert all(f"…{mid[-12:]}" in printed for mid in outcome.sent if not mid.startswith("rejected:"))


def test_the_printed_runs_are_those_that_did_it_and_can_be_opened(
    airflow_stack: Stack, told: tuple[Outcome, str]
):
    outcome, printed = told
    assert outcome.runs
    assert {run.state for run in outcome.runs} == {"success"}
    assert all(run.url in printed for run in outcome.runs)
    assert all(httpx.get(run.url, timeout=30).status_code == 200 for run in outcome.runs)
    with opened_api(airflow_stack.addresses) as api:
        known = {run["dag_run_id"] for run in api.get("/dagRuns", params={"limit": 100}).json()["dag_runs"]}
    assert {run.run_id for run in outcome.runs} <= known


def test_a_difference_is_told(told: tuple[Outcome, str]):
    outcome, _ = told
    someone_else = {**outcome.owners, "sample-owner-01": Owners("someone-else", ())}
    (row, document) = differences(outcome.end, outcome.sent, someone_else, outcome.letters)
    assert row.startswith("the row of sample-owner-01 has ")
    assert document.startswith("the document of sample-owner-01 has ")
    assert differences(outcome.end, outcome.sent, outcome.owners, []) == ["0 dead letters, not 4"]


def test_the_batches_can_be_given_back_by_hand_as_printed(airflow_stack: Stack, told: tuple[Outcome, str]):
    world = told[0].world
    conf = give_back(world)
    with an_open_platform(airflow_stack) as platform, opened_api(airflow_stack.addresses) as api:
        answer = api.post("/dagRuns", json={"logical_date": None, "conf": conf})
        assert answer.status_code == 200, answer.text
        deadline = time.monotonic() + 60
        while (run := api.get(f"/dagRuns/{answer.json()['dag_run_id'].replace('+', '%2B')}").json())[
            "state"
        ] not in {"success", "failed"}:
            assert time.monotonic() < deadline, run
            time.sleep(0.3)
        assert run["state"] == "success"
        assert platform.owned(world.owner.user_id).rows_created == 45
        assert platform.owned(world.owner_successor.user_id).nothing
