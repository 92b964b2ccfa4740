"""What the demo prints of a plan, of people and of runs, and what it calls changed or wrong."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from local.demo.acts import DemoError, _failures_as_demo_errors, _wrong_plan, _wrong_undo
from local.demo.display import WIDTH, Names, order_line, people_table, plan_lines, plan_table, run_line
from local.demo.outcome import Plan, PlanRow
from local.demo.runs import Run
from local.demo.sample import SampleWorld
from local.platform.stores import Owners, Stores, changes
from local.platform.world import COMPLETED, ONGOING, UPCOMING, Batch, Owned, User
from local.servers.processes import NotReadyError

OLD, NEW = User("u-old", "org", first_name="Old", last_name="owner"), User("u-new", "org")
WORLD = SampleWorld("org", "other", OLD, OLD, OLD, OLD, (OLD, OLD, OLD), OLD, OLD, "u-nobody", ())
TOLD = {
    "mid": "manual:r:0",
    "digest": "0123456789abcdef0123",
    "batches": 45,
    "roles": {"created": 44, "created+mentored": 1},
    "courses": {"c1": 40, "c2": 5},
    "conflicts": 0,
    "first": [
        {
            "course_id": "c1",
            "batch_id": f"b{n}",
            "role": "created",
            "before": "created by u-old",
            "after": "created by u-new",
        }
        for n in range(10)
    ],
}
RUN = Run("ownership_undo", "r", "manual", "success", 3.25, "http://airflow/r")


def shown(*what: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False)
    for one in what:
        console.print(one, soft_wrap=True)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def the_plan() -> Plan:
    plan = Plan.of({"plans": [{**TOLD, "mid": "of another run"}, TOLD]}, "manual:r:0")
    assert plan
    return plan


def test_a_plan_is_read_from_a_summary_by_its_mid():
    plan = the_plan()
    assert (plan.mid, plan.batches, len(plan.first)) == ("manual:r:0", 45, 10)
    assert plan.first[0] == PlanRow("c1", "b0", "created by u-old", "created by u-new")
    assert plan.conf == {"execute_plan": "manual:r:0", "digest": "0123456789abcdef0123"}
    assert Plan.of({"plans": [TOLD]}, "manual:r:1") is None
    assert Plan.of({}, "manual:r:0") is None


def test_a_plan_s_counts_are_reported_by_role_and_course_with_conflicts_and_digest():
    assert shown(*plan_lines(the_plan())).splitlines() == [
        "45 batches would change; conflicts expected: none; digest 0123456789abcdef0123",
        "  by role:   created 44, created+mentored 1",
        "  by course: c1 40, c2 5",
    ]
    empty = replace(the_plan(), batches=0, roles={}, courses={}, conflicts=3)
    assert shown(*plan_lines(empty)).splitlines() == [
        "0 batches would change; conflicts expected: 3; digest 0123456789abcdef0123",
        "  by role:   none",
        "  by course: none",
    ]


def test_a_plan_s_first_rows_are_shown_with_names_before_and_after():
    text = shown(plan_table(the_plan(), Names(WORLD)))
    assert "Plan: 6 of 45 batches" in text
    assert text.count("created by Old owner") == 6
    assert text.count("created by u-new") == 6


def test_a_plan_that_is_not_as_the_sample_has_it_is_wrong():
    batches = tuple(
        Batch(course, f"{course}-{n}", created_by=creator, status=status)
        for course, creator, status, count in (
            ("c1", "u-old", ONGOING, 40), ("c2", "u-old", UPCOMING, 5), ("c2", "u-old", COMPLETED, 1),
            ("c2", "u-new", ONGOING, 1),
        )
        for n in range(count)
    )  # fmt: skip
    world = replace(WORLD, batches=batches)
    assert _wrong_plan(replace(the_plan(), roles={"created": 45}), world) == []
    assert _wrong_plan(replace(the_plan(), batches=44, courses={"c1": 45}, conflicts=2), world) == [
        "the plan's batches are 44, not 45",
        "the plan's roles are {'created': 44, 'created+mentored': 1}, not {'created': 45}",
        "the plan's courses are {'c1': 45}, not {'c1': 40, 'c2': 5}",
        "the plan's conflicts are 2, not 0",
    ]


def test_an_undo_that_is_red_or_gives_less_back_is_wrong():
    summary = {"events": {"completed": 2}, "batches": {"moved": 53}}
    assert _wrong_undo(RUN, summary, 2, 53) == []
    less = {"events": {"completed": 2}, "batches": {"moved": 52, "changed_elsewhere": 1}}
    assert _wrong_undo(RUN, less, 2, 53) == [
        "the undo's batches are {'moved': 52, 'changed_elsewhere': 1}, not {'moved': 53}: see http://airflow/r"
    ]
    assert _wrong_undo(replace(RUN, state="failed"), {}, 2, 53) == [
        "the undo's state is failed, not success: see http://airflow/r",
        "the undo's events are None, not {'completed': 2}: see http://airflow/r",
        "the undo's batches are None, not {'moved': 53}: see http://airflow/r",
    ]


def test_a_run_that_does_not_end_is_the_demo_s_failure():
    with pytest.raises(DemoError, match="the end of the run http://airflow/r"), _failures_as_demo_errors():
        raise NotReadyError("Waited 180 s for the end of the run http://airflow/r, in vain.")


def test_what_somebody_holds_stands_beside_what_they_held_where_it_differs():
    before = {"u-old": Owned(45, 1, 45, 1), "u-new": Owned()}
    after = {"u-old": Owned(0, 1, 0, 1), "u-new": Owned(45, 0, 45, 0)}
    old, new = shown(people_table("After", [OLD, NEW], after, before)).splitlines()[-3:-1]
    assert old.split()[3:] == ["45", "→", "0", "1", "45", "→", "0", "1"]
    assert new.split()[1:] == ["0", "→", "45", "0", "0", "→", "45", "0"]


@pytest.mark.parametrize(
    ("run", "events", "line"),
    [
        pytest.param(RUN, None, "  undo: manual run, success after 3.2 s", id="by hand"),
        pytest.param(RUN, 27, "  undo: manual run, success after 3.2 s, 27 events", id="with events"),
        pytest.param(replace(RUN, state="failed"), None, "  undo: manual run, failed after 3.2 s", id="red"),
        pytest.param(
            replace(RUN, state="running", seconds=None),
            27,
            "  undo: manual run, running, 27 events",
            id="runs",
        ),
    ],
)
def test_a_run_is_reported_with_its_end_and_its_address(run: Run, events: int | None, line: str):
    assert shown(run_line("undo", run, events)).splitlines() == [line, "  http://airflow/r"]


def test_an_order_is_shown_as_it_can_be_pasted():
    line = shown(order_line("ownership_undo", {"mids": ["m1", "m[2]"], "dry_run": False}))
    assert line == 'ownership_undo with conf {"mids": ["m1", "m[2]"], "dry_run": false}\n'


def test_what_has_changed_in_either_store_is_reported_field_by_field():
    row = {"batchid": "b1", "createdby": "u-old", "mentors": None, "name": "A"}
    document = {"batchId": "b1", "createdBy": "u-old", "mentors": []}
    before = Stores({"b1": row, "b2": None}, {"b1": document, "b2": document})
    assert changes(before, before, ["b1", "b2"]) == []
    now = Stores(
        {"b1": {**row, "name": "B"}, "b2": row}, {"b1": {**document, "createdBy": "u-new"}, "b2": None}
    )
    assert changes(before, now, ["b1", "b2"]) == [
        "the row of b1 has name 'B', not 'A'",
        "the row of b2 is new",
        "the document of b1 has createdBy 'u-new', not 'u-old'",
        "the document of b2 is gone",
    ]
    assert changes(before, now, []) == []


def test_both_stores_name_owners_in_the_same_words():
    stores = Stores(
        {"b1": {"createdby": "u-old", "mentors": ["m"]}, "b2": None},
        {"b1": {"createdBy": "u-old", "mentors": ["m"]}, "b2": {"createdBy": None}},
    )
    assert stores.row_owners == {"b1": Owners("u-old", ("m",)), "b2": None}
    assert stores.document_owners == {"b1": Owners("u-old", ("m",)), "b2": Owners(None, ())}
