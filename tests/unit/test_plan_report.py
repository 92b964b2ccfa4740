"""A plan as people read it, and the digest that names its content."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ownership.plan import CHANGED_ELSEWHERE, GONE, MOVED, BatchId, Hop, Row
from ownership.plan_report import COURSES, LINES, PlanReport, markdown, text
from tests.unit.replay import row, rows, transfer

AB = transfer(1, "a", "b")


def hop(before: Row, after: Row) -> Hop:
    return Hop("m01", before, after)


def moved(n: int, course: str = "course") -> Hop:
    before = Row(BatchId(course, f"batch-{n:03}"), "a", (), 1)
    return hop(before, before._replace(created_by="b"))


def report(*changes: Hop) -> PlanReport:
    made = PlanReport(AB)
    for change in changes:
        made.change(change, MOVED)
    return made


@given(st.lists(st.tuples(rows, rows), max_size=4), st.lists(st.tuples(rows, rows), max_size=4))
def test_two_plans_have_one_digest_only_if_they_change_the_same_rows_in_the_same_way(
    some: list[tuple[Row, Row]], others: list[tuple[Row, Row]]
) -> None:
    digests = [report(*(hop(*pair) for pair in pairs)).digest for pairs in (some, others)]
    assert (digests[0] == digests[1]) == (some == others)


def test_the_digest_names_batch_status_and_owners_and_nothing_of_the_event() -> None:
    before, after = row("a", "xa"), row("b", "xb")
    digest = report(hop(before, after)).digest
    assert len(digest) == 20
    assert PlanReport(transfer(2, "A", "B")).digest == PlanReport(AB).digest
    for other in (
        hop(before._replace(status=0), after),
        hop(before._replace(id=BatchId("course", "other")), after),
        hop(before._replace(mentors=("a",)), after),
        hop(before, after._replace(created_by="c")),
    ):
        assert report(other).digest != digest


def test_what_would_not_change_is_counted_and_is_no_part_of_the_digest() -> None:
    made = report(moved(1))
    digest = made.digest
    made.conflict(BatchId("course", "gone"), None, GONE)
    assert made.digest == digest
    told = made.told()
    assert (told.batches, told.conflicts) == (1, 1)
    assert told.first_conflicts[0].before == "there is no such row"
    assert made.outcomes == {MOVED: 1, GONE: 1}


def test_a_report_of_many_batches_shows_the_first_few_and_counts_all() -> None:
    told = report(*(moved(n, f"course-{n % 30:02}") for n in range(100))).told()
    assert (told.batches, len(told.first)) == (100, LINES)
    assert len(told.courses) == COURSES
    assert sum(told.courses.values()) + told.more_courses == 100
    assert "others 30" in text(told)


def test_a_plan_reads_well_in_a_log() -> None:
    made = report(hop(row("a", "", n=1), row("b", "", n=1)), hop(row("x", "ya", n=20), row("x", "yb", n=20)))
    made.conflict(BatchId("course", "batch-3"), row("c"), CHANGED_ELSEWHERE)
    told = made.told().model_copy(update={"state": "rehearsed", "next_conf": '{"execute_plan": "m01"}'})
    assert text(told).splitlines() == [
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


def test_on_a_page_a_plan_is_a_table_and_no_id_is_mark_up() -> None:
    nasty = Row(BatchId("do|1", "<b>*x*</b>"), "a", (), 1)
    told = report(hop(nasty, nasty._replace(created_by="[b](http://x)"))).told()
    page = markdown(told.model_copy(update={"mid": "m`01"}))
    assert f"Digest `{told.digest}` of `` m`01 ``." in page
    assert "| course | batch | before | after |" in page
    (line,) = [x for x in page.splitlines() if "do" in x and x.startswith("| ")]
    assert line.count(" | ") == 3
    assert r"\<b\>\*x\*\<\/b\>" in line
    assert r"\[b\]\(http\:\/\/x\)" in line
