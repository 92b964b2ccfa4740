"""The demo's story on a real Airflow: what it claims is what happened, and what it prints can be used."""

from __future__ import annotations

import io
import json
from collections import Counter

import httpx
import pytest
from rich.console import Console

from local.demo.acts import DemoError, Outcome, play
from local.demo.command import print_next_steps
from local.demo.display import WIDTH
from local.demo.outcome import differences
from local.demo.runs import carried_out, opened_api
from local.platform.stores import Owners, both_stores
from local.platform.world import Owned, Platform, create_platform
from local.servers import airflow
from local.stack import Stack
from tests.e2e.airflow_world import Airflow

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
def ended(airflow: Airflow, airflow_stack: Stack) -> tuple[Outcome, str]:
    """One performance of the demo, and what it printed."""
    console = a_log()
    with airflow.settings(grace_ms=1000):  # its messages overtake each other
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


def test_the_dry_run_plans_the_owner_s_batches_and_changes_nothing(ended: tuple[Outcome, str]):
    outcome, printed = ended
    plan = outcome.rehearsal.plan
    assert outcome.rehearsal.wrong == []
    assert (outcome.rehearsal.run.state, plan.mid) == (
        "success",
        f"manual:{outcome.rehearsal.run.run_id}:0",
    )
    assert (plan.batches, plan.roles, plan.conflicts) == (45, {"created": 45}, 0)
    assert plan.courses == {f"do_sample_algebra_{n}": 9 for n in range(1, 6)}
    for words in (
        '"dry_run": true',
        f"45 batches would change; conflicts expected: none; digest {plan.digest}",
        "by role:   created 45",
        "do_sample_algebra_1 9, do_sample_algebra_2 9",
        "created by Old owner",
        "Nothing has changed: 63 rows and 63 documents",
    ):
        assert words in printed


def test_every_event_ends_as_it_must_and_both_stores_agree(ended: tuple[Outcome, str]):
    outcome, _ = ended
    assert outcome.wrong == []
    assert Counter(event.state for event in outcome.messages.end.events.values()) == {
        "completed": 24, "skipped": 3, "rejected": 4,
    }  # fmt: skip


def test_each_person_holds_what_the_transfers_gave(ended: tuple[Outcome, str]):
    outcome, _ = ended
    world, after = outcome.world, outcome.messages.after
    gave = (world.owner, world.mentor, *world.chain[:2], world.administrator)
    assert [after[person.user_id] for person in gave] == [Owned()] * 5
    assert after[world.owner_successor.user_id] == Owned(45, 0, 45, 0)
    assert after[world.mentor_successor.user_id] == Owned(3, 8, 3, 8)
    assert after[world.chain[2].user_id] == Owned(8, 0, 8, 0)
    assert after[world.outsider.user_id] == Owned(2, 0, 2, 0)


def test_one_request_moves_once_and_a_message_sent_twice_is_one_event(ended: tuple[Outcome, str]):
    messages = ended[0].messages
    moved = Counter[str]()
    for mid, message in messages.sent.items():
        moved[message.what.split(" of one request")[0].split(" ")[0]] += messages.end.events[mid].counts.get(
            "moved", 0
        )
    assert (moved["object"], moved["owner"]) == (3, 45)
    assert len(messages.sent) == 31


def test_the_undo_gives_back_what_two_of_the_transfers_took_and_nothing_else(ended: tuple[Outcome, str]):
    outcome, printed = ended
    undone, world, before = outcome.undone, outcome.world, outcome.before
    assert (undone.wrong, undone.run.state, undone.run.dag_id) == ([], "success", "ownership_undo")
    assert len(undone.mids) == 2
    for person in (world.owner, world.owner_successor, world.mentor):
        assert undone.after[person.user_id] == before[person.user_id]
    # The three batches of Org admin stay with New mentor, and the chain's with its end.
    assert undone.after[world.mentor_successor.user_id] == Owned(3, 1, 3, 1)
    assert undone.after[world.chain[2].user_id] == Owned(8, 0, 8, 0)
    for words in ("Given back: 45 + 8 batches, no conflicts. 52 rows", "the other 11 are where"):
        assert words in printed


def test_the_terminal_tells_it_all(ended: tuple[Outcome, str]):
    outcome, printed = ended
    for words in (
        "Before: live batches",
        "1. Dry run",
        "2. The messages",
        "3. Undo",
        "After: live batches",
        "45 → 0",
        "0 → 45",
        "user nobody is unknown to",
        "old and new user are the same",
        "the message is empty",
        "from the first message to the last proof",
        "As expected: 24 completed, 3 skipped, 4 rejected",
        "After the undo: live batches",
        "password ",
    ):
        assert words in printed
    assert printed.count("rejected:…:") == 4
    sent = outcome.messages.sent
    assert all(f"…{mid[-12:]}" in printed for mid in sent if not mid.startswith("rejected:"))


def test_the_printed_runs_are_those_that_did_it_and_can_be_opened(
    airflow_stack: Stack, ended: tuple[Outcome, str]
):
    outcome, printed = ended
    assert outcome.messages.runs
    runs = [outcome.rehearsal.run, *outcome.messages.runs, outcome.undone.run]
    assert {run.state for run in runs} == {"success"}
    assert all(run.url in printed for run in runs)
    assert all(httpx.get(run.url, timeout=30).status_code == 200 for run in runs)
    known = set()
    for dag_id in (airflow.DAG_ID, airflow.UNDO_DAG_ID):
        with opened_api(airflow_stack.addresses, dag_id) as api:
            latest = api.get("/dagRuns", params={"order_by": "-run_after", "limit": 100}).json()["dag_runs"]
        known |= {(dag_id, run["dag_run_id"]) for run in latest}
    assert {(run.dag_id, run.run_id) for run in runs} <= known


def test_a_difference_is_reported(ended: tuple[Outcome, str]):
    messages = ended[0].messages
    someone_else = {**messages.owners, "sample-owner-01": Owners("someone-else", ())}
    (row, document) = differences(messages.end, messages.sent, someone_else, messages.letters)
    assert row.startswith("the row of sample-owner-01 has ")
    assert document.startswith("the document of sample-owner-01 has ")
    assert differences(messages.end, messages.sent, messages.owners, []) == ["0 dead letters, not 4"]


def test_the_dry_run_s_plan_is_applied_by_what_is_printed_to_be_tried_next(
    airflow_stack: Stack, ended: tuple[Outcome, str]
):
    outcome, printed = ended
    world = outcome.world
    (line,) = (line for line in printed.splitlines() if line.startswith('  {"execute_plan"'))
    with an_open_platform(airflow_stack) as platform:
        then = both_stores(platform, world.batches).row_owners

        run, summary = carried_out(airflow_stack.addresses, json.loads(line))

        assert run.state == "success", summary
        assert summary["notes"] == {outcome.rehearsal.plan.mid: f"is applied as execute:{run.run_id}"}
        assert platform.owned(world.owner.user_id).nothing
        assert platform.owned(world.owner_successor.user_id) == Owned(45, 0, 45, 0)
        now = both_stores(platform, world.batches)
        moved = [batch for batch, owners in then.items() if now.row_owners[batch] != owners]
        assert len(moved) == 45
        for batch in moved:  # as planned: the mentors are those of before
            before = then[batch]
            assert before
            assert now.row_owners[batch] == Owners(world.owner_successor.user_id, before.mentors)
        assert now.document_owners == now.row_owners
