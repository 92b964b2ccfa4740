"""A plan as people read it, and the digest that names its content."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownership.domain.contracts import PlanSummary
from ownership.domain.plan import BatchId, Hop, Row
from ownership.domain.plan_report import (
    MAX_COURSES,
    MAX_LINES,
    PlanReport,
    escaped,
    markdown,
    owners_text,
    text,
)
from ownership.domain.states import BatchOutcome
from ownership.domain.text import MAX_LINE
from tests.unit.replay import row, rows, transfer

AB = transfer(1, "a", "b")
HEAD = "| course | batch | before | after |\n| --- | --- | --- | --- |\n"

ids = st.builds(BatchId, st.sampled_from(["c", "d", "e"]), st.sampled_from(["1", "2", "11"]))
placed_rows = st.builds(
    lambda found, at, status: found._replace(id=at, status=status), rows, ids, st.sampled_from([0, 1])
)
pairs = st.lists(st.tuples(placed_rows, rows), max_size=4)
"""Rows before and, in their owners, after."""


def hop(before: Row, after: Row) -> Hop:
    return Hop("m01", before, after)


def moved(n: int, course: str = "course") -> Hop:
    before = Row(BatchId(course, f"batch-{n:03}"), "a", (), 1)
    return hop(before, before._replace(created_by="b"))


def report(*changes: Hop) -> PlanReport:
    made = PlanReport(AB)
    for change in changes:
        made.add_change(change)
    return made


@given(pairs, pairs)
def test_two_plans_have_one_digest_only_if_they_change_the_same_rows_in_the_same_way(
    some: list[tuple[Row, Row]], others: list[tuple[Row, Row]]
) -> None:
    digests = [report(*(hop(*pair) for pair in pairs)).digest for pairs in (some, others)]
    assert (digests[0] == digests[1]) == (some == others)


def test_the_digest_names_batch_status_and_owners_and_nothing_of_the_event() -> None:
    before, after = row("a", "xa"), row("b", "xb")
    digest = report(hop(before, after)).digest
    others = [PlanReport(transfer(2, "A", "B")), PlanReport(AB)]
    for other, mid in zip(others, ("m02", "m01"), strict=True):
        other.add_change(Hop(mid, before, after))
    assert {other.digest for other in others} == {digest}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({"id": BatchId("course", "other")}, {}, id="batch"),
        pytest.param({"id": BatchId("other", "batch-0")}, {}, id="course"),
        pytest.param({"id": BatchId("cours", "ebatch-0")}, {}, id="where the course's id ends"),
        pytest.param({"status": 0}, {}, id="status"),
        pytest.param({"created_by": "x"}, {}, id="creator before"),
        pytest.param({"created_by": "A"}, {}, id="creator before, in another case"),
        pytest.param({"mentors": ("x",)}, {}, id="mentors before"),
        pytest.param({"mentors": ("a", "x")}, {}, id="their order"),
        pytest.param({"mentors": ("x", "a", "a")}, {}, id="a repeat"),
        pytest.param({"mentors": ("xa",)}, {}, id="where a mentor's id ends"),
        pytest.param({}, {"created_by": "c"}, id="creator after"),
        pytest.param({}, {"created_by": None}, id="no creator after"),
        pytest.param({}, {"mentors": ("x", "c")}, id="mentors after"),
    ],
)
def test_the_digest_differs_for_any_other_change_of_the_row(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    change = hop(row("a", "xa"), row("b", "xb"))
    other = hop(change.before._replace(**before), change.after._replace(**after))
    assert report(other).digest != report(change).digest
    assert report(change, other).digest != report(change).digest


@pytest.mark.parametrize(
    ("changes", "digest"),
    [
        pytest.param([], "e3b0c44298fc1c149afb", id="nothing"),
        pytest.param([hop(row("a", "xa"), row("b", "xb"))], "11d0934fe03a366251bf", id="a row"),
    ],
)
def test_the_digest_of_a_plan_is_the_same_in_the_next_version(changes: list[Hop], digest: str) -> None:
    # Somebody may have a plan before them while the job is updated.
    assert report(*changes).digest == digest


def test_what_would_not_change_is_counted_and_is_no_part_of_the_digest() -> None:
    made = report(moved(1))
    digest = made.digest
    made.add_conflict(BatchId("course", "gone"), None, BatchOutcome.GONE)
    assert made.digest == digest
    summary = made.summary()
    assert (summary.batches, summary.conflicts) == (1, 1)
    assert summary.first_conflicts[0].before == "there is no such row"
    assert made.outcomes == {BatchOutcome.MOVED: 1, BatchOutcome.GONE: 1}


@given(
    pairs,
    st.lists(
        st.tuples(ids, st.none() | placed_rows, st.sampled_from([BatchOutcome.GONE, BatchOutcome.NOT_LIVE])),
        max_size=25,
    ),
)
def test_every_batch_is_counted_by_role_course_and_outcome(
    changes: list[tuple[Row, Row]], conflicts: list[tuple[BatchId, Row | None, str]]
) -> None:
    made = report(*(hop(*pair) for pair in changes))
    for conflict in conflicts:
        made.add_conflict(*conflict)
    summary = made.summary()
    assert (summary.batches, summary.conflicts) == (len(changes), len(conflicts))
    assert summary.courses == Counter(before.id.course_id for before, _ in changes)
    assert list(summary.courses.values()) == sorted(summary.courses.values(), reverse=True)
    creators = sum(before.created_by != after.created_by for before, after in changes)
    mentors = sum(before.mentors != after.mentors for before, after in changes)
    assert sum(summary.roles.values()) == len(changes)
    assert sum(n for name, n in summary.roles.items() if "created" in name) == creators
    assert sum(n for name, n in summary.roles.items() if "mentored" in name) == mentors
    assert made.outcomes[BatchOutcome.MOVED] == len(changes)
    assert made.outcomes.total() == len(changes) + len(conflicts)
    shown = [(x.course_id, x.batch_id) for x in summary.first_conflicts]
    assert shown == [tuple(at) for at, *_ in conflicts[:MAX_LINES]]
    assert PlanSummary.model_validate_json(summary.model_dump_json()) == summary


def test_a_report_of_many_batches_shows_the_first_few_and_counts_all() -> None:
    summary = report(*(moved(n, f"course-{n % 30:02}") for n in range(100))).summary()
    assert (MAX_LINES, MAX_COURSES) == (10, 20)
    assert summary.batches == 100
    assert [x.batch_id for x in summary.first] == [f"batch-{n:03}" for n in range(MAX_LINES)]
    assert list(summary.courses) == [f"course-{n:02}" for n in range(MAX_COURSES)]
    assert sum(summary.courses.values()) + summary.more_courses == 100
    assert "others 30" in text(summary)


def test_a_plan_reads_well_in_a_log() -> None:
    made = report(hop(row("a", "", n=1), row("b", "", n=1)), hop(row("x", "ya", n=20), row("x", "yb", n=20)))
    made.add_conflict(BatchId("course", "batch-3"), row("c"), BatchOutcome.CHANGED_ELSEWHERE)
    summary = made.summary().model_copy(update={"state": "rehearsed", "next_conf": '{"execute_plan": "m01"}'})
    assert text(summary).splitlines() == [
        f"rehearsed: m01, a → b: 2 batches would change, 1 would not; digest {made.digest}",
        "  by role:   created 1, mentored 1",
        "  by course: course 2",
        "  first rows, before → after:",
        "    course / batch-1   created by a  →  created by b",
        "    course / batch-20  created by x, mentors y, a  →  created by x, mentors y, b",
        "  would not change:",
        "    course / batch-3  created by c  →  changed_elsewhere",
        '  next: trigger with conf {"execute_plan": "m01"}',
    ]


def test_a_plan_that_changes_nothing_is_one_line() -> None:
    summary = PlanReport(AB).summary().model_copy(update={"state": "rehearsed"})
    assert text(summary) == (
        f"rehearsed: m01, a → b: 0 batches would change, 0 would not; digest {summary.digest}"
    )
    assert (
        markdown(summary) == f"**0 batches would change, 0 would not.** Digest `{summary.digest}` of `m01`."
    )


def test_a_batch_without_creator_or_without_a_row_is_reported_in_words() -> None:
    made = report(hop(row(None, "a"), row(None, "b")), hop(row("a", "a", n=1), row("b", "b", n=1)))
    made.add_conflict(BatchId("course", "batch-2"), None, BatchOutcome.GONE)
    assert text(made.summary()).splitlines()[1:] == [
        "  by role:   mentored 1, created+mentored 1",
        "  by course: course 2",
        "  first rows, before → after:",
        "    course / batch-0  created by nobody, mentors a  →  created by nobody, mentors b",
        "    course / batch-1  created by a, mentors a  →  created by b, mentors b",
        "  would not change:",
        "    course / batch-2  there is no such row  →  gone",
    ]


def test_a_plan_reads_well_on_a_page() -> None:
    made = report(moved(1, "c1"), moved(2, "c2"))
    made.add_conflict(BatchId("c3", "b3"), row("b"), BatchOutcome.ALREADY)
    summary = made.summary().model_copy(update={"next_conf": '{"approve": {}}'})
    assert markdown(summary).split("\n\n") == [
        f"**2 batches would change, 1 would not.** Digest `{made.digest}` of `m01`.",
        "By role: created 2",
        "By course: c1 1, c2 1",
        "First rows:",
        HEAD + r"| c1 | batch\-001 | created by a | created by b |" + "\n"
        r"| c2 | batch\-002 | created by a | created by b |",
        "Would not change:",
        HEAD + r"| c3 | b3 | created by b | already |",
        'The same by conf: `{"approve": {}}`',
    ]


def test_on_a_page_a_plan_is_a_table_and_no_id_is_mark_up() -> None:
    nasty = Row(BatchId("do|1", "<b>*x*</b>"), "a", (), 1)
    summary = report(hop(nasty, nasty._replace(created_by="[b](http://x)"))).summary()
    page = markdown(summary.model_copy(update={"mid": "m`01"}))
    assert f"Digest `{summary.digest}` of `` m`01 ``." in page
    assert "| course | batch | before | after |" in page
    (line,) = [x for x in page.splitlines() if "do" in x and x.startswith("| ")]
    assert line.count(" | ") == 3
    assert r"\<b\>\*x\*\<\/b\>" in line
    assert r"\[b\]\(http\:\/\/x\)" in line


def test_text_on_a_page_is_one_line_and_an_underscore_is_no_emphasis() -> None:
    assert escaped("_a_\nb *c*") == r"\_a\_ b \*c\*"


def test_owners_of_any_text_are_one_line_that_logs_and_xcom_take() -> None:
    odd = Row(BatchId("c", "b"), "a\0\n", ("\u202em", "x" * 70_000), 1)
    said = owners_text(odd)
    assert said.startswith("created by a\ufffd , mentors \ufffdm, xxx")
    assert said.isprintable()
    assert len(said) <= MAX_LINE
