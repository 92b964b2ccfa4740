"""Answers to questions: what an id is, what a batch is now, and what only a row says."""

from __future__ import annotations

from typing import Any

import pytest

from ownership.domain.options import Options
from ownership.domain.plan import BatchId, Document, Row
from ownership.domain.states import BatchOutcome, ChangeOutcome
from ownership.ledger.reads.batches import (
    BatchChange,
    BatchHop,
    BatchStep,
    BatchTimeline,
    Owners,
    PlannedBatch,
)
from ownership.ledger.reads.lists import PAGE_SIZE
from ownership.ledger.reads.questions import Known
from ownership.page.rendering import templates
from ownership.page.views.questions import (
    UserBatches,
    answers,
    batch_ids,
    batches_now,
    in_short,
    not_shown_for,
    pages_around,
    step_lines,
)
from ownership.platform.name_search import FoundNames, Named
from ownership.platform.search_index import MAX_SHOWN
from tests.unit.page.rows import AT, LISTED, NOW_MS

BATCH = BatchId("course-1", "batch-1")
ROW = Row(BATCH, "user-new", ("Mentor",), 1)
NOTHING = Known(transfer=False, user=False, batch=False, course=False, request=False, run=False)


def document(created_by: Any = "user-new", mentors: tuple[Any, ...] = ("Mentor",), **source: Any) -> Document:
    source = {"status": 1, "name": "Algebra", **source}
    return Document("batch-1", created_by, mentors, 1, 1, source.pop("course", "course-1"), None, source)


@pytest.mark.parametrize(
    ("row", "documents", "differences"),
    [
        pytest.param(ROW, [document()], (), id="they agree"),
        pytest.param(ROW, [document("user-old")], ("stale owner",), id="the document names another creator"),
        pytest.param(ROW, [document(mentors=())], ("stale mentors",), id="and other mentors"),
        pytest.param(ROW, [document(), document("x")], ("stale owner",), id="one of two documents is stale"),
        pytest.param(ROW, [], ("missing document",), id="no document"),
        pytest.param(ROW, [document(course="course-2")], ("missing document",), id="one of another course"),
        pytest.param(ROW, [document(status=2)], ("the document says completed",), id="another status"),
        pytest.param(ROW, [document(status={"a": 1})], ("the document says no status",), id="an odd status"),
        pytest.param(None, [document()], ("orphan document",), id="no row"),
        pytest.param(None, [], (), id="neither"),
    ],
)
def test_a_batch_is_shown_with_how_its_document_differs_from_its_row(
    row: Row | None, documents: list[Document], differences: tuple[str, ...]
) -> None:
    (now,) = batches_now([BATCH], {BATCH: row} if row else {}, documents)
    assert now.differences == differences
    assert bool(now.row) == bool(row)


def test_a_document_with_text_that_no_answer_can_hold_is_shown() -> None:
    odd = document("\ud83d", ("\0", ["\ud83d"]), name="\ud83dA\u202e", status="\ud83d")
    (now,) = batches_now([BATCH], None, [odd])
    assert (now.name, now.status) == ("\ufffdA\ufffd", "status \ufffd")
    assert now.document == ("created by \ufffd", "mentor \ufffd", "mentor ['\\ud83d']")


def test_a_store_that_did_not_answer_is_no_difference() -> None:
    (no_rows,) = batches_now([BATCH], None, [document("user-old")])
    assert (no_rows.differences, no_rows.document[0]) == ((), "created by user-old")
    (no_index,) = batches_now([BATCH], {BATCH: ROW}, None)
    assert (no_index.differences, no_index.row) == ((), ("created by user-new", "mentor Mentor"))


def test_rows_that_name_a_user_and_whose_documents_do_not_are_found_in_any_case() -> None:
    others = {
        BATCH: ROW,
        BatchId("course-1", "batch-2"): ROW._replace(id=BatchId("course-1", "batch-2")),
        BatchId("course-1", "batch-3"): Row(BatchId("course-1", "batch-3"), "somebody", (), 1),
    }
    documents = [document("USER-NEW"), document("user-old")._replace(batch_id="batch-2")]
    assert not_shown_for("User-New", others, documents) == [BatchId("course-1", "batch-2")]


def test_a_text_is_known_as_all_that_it_is() -> None:
    known = NOTHING._replace(user=True, request=True)
    assert [a.href for a in answers("x&y", known, [])] == [
        "user?user=x%26y", "./?user=x%26y", "./?request=x%26y",
    ]  # fmt: skip
    by_index = answers("BATCH-1", NOTHING, [document()])
    assert [a.href for a in by_index] == ["batch?batch=BATCH-1"]
    assert [a.what for a in answers("mentor", NOTHING, [document()])] == ["User: the batches of today"]
    assert answers("Algebra", NOTHING, [document()]) == []


def test_a_document_s_odd_values_are_shown_as_text_and_its_batch_has_a_key() -> None:
    odd = document({"a": ["<b>"]}, (7, None), name=["x"], course=None)
    (now,) = batches_now(batch_ids([odd]), {}, [odd])
    assert (now.course_id, now.batch_id) == ("", "batch-1")
    assert now.document == ("created by {'a': ['<b>']}", "mentor 7", "mentor ")
    assert now.name == "['x']"


def test_the_timeline_says_who_gave_to_whom_and_what_was_taken_back() -> None:
    owners = Owners("user-old", ()), Owners("user-new", ())
    hop = BatchHop("created", *owners, 0, 1, ChangeOutcome.APPLIED, AT)
    undo = LISTED._replace(options=Options(undo_of="LP.1.a"))
    timeline = BatchTimeline(
        [
            BatchStep(undo, BatchChange(BATCH, PlannedBatch(None, *owners, BatchOutcome.GONE, AT), [])),
            BatchStep(LISTED, BatchChange(BATCH, None, [hop])),
        ],
        7,
    )
    lines = step_lines(timeline, {}, now_ms=NOW_MS)
    assert [(s.undo_of, s.change.outcome) for s in lines] == [("LP.1.a", "gone"), (None, "moved")]
    page = templates.get_template("batch.html").render(
        batch=BATCH, now=batches_now([BATCH], {BATCH: ROW}, []), steps=lines, older="x", newest=None,
        notices=["Cassandra unavailable: <frozen>"],
    )  # fmt: skip
    assert "takes back" in page
    assert "missing document" in page
    assert "&lt;frozen&gt;" in page
    for newest, says in ((None, "no transfer"), ("y", "nothing on this page")):
        assert says in templates.get_template("batch.html").render(
            batch=BatchId("", "b"), now=[], steps=[], older=None, newest=newest, notices=[]
        )


def test_what_a_user_holds_is_a_page_also_where_a_store_is_away() -> None:
    batches = batches_now([BATCH], {BATCH: ROW}, [document("user-old")])
    for held in (
        UserBatches(1, 1, batches, batches, []),
        UserBatches(None, 1, [], batches, ["Elasticsearch unavailable: x"]),
        UserBatches(0, 1, [], [], []),
    ):
        page = templates.get_template("user.html").render(
            who="<user>", held=held, sentence="", older="x", newer="y", notices=held.notices
        )
        assert "&lt;user&gt;" in page
    assert in_short(120, "u", 50, 50) == "The index shows 120 batches of u; here are 51 to 100."
    assert in_short(0, "u", 0, 0) == "The index shows no batch of u."
    assert in_short(50, "u", 50, 0) == "The index shows 50 batches of u; there is nothing on this page."


@pytest.mark.parametrize("total", [0, 30, 50, 120])
def test_a_page_beyond_the_last_leads_to_the_last(total: int) -> None:
    last = max(1, -(-total // PAGE_SIZE))
    assert [pages_around(total, n) for n in (last, last + 1, last + 5)] == [
        (last - 1 or None, None), (last, None), (last, None)
    ]  # fmt: skip
    assert pages_around(120, 2) == (1, 3)
    assert pages_around(None, 2) == (1, None)
    assert pages_around(10**6, MAX_SHOWN // PAGE_SIZE)[1] is None


def find_page(text: str = "x", **values: Any) -> str:
    found: dict[str, Any] = {
        "answers": [], "batches": [], "more": 0, "users": None, "courses": None, "sees_batches": True,
        "missing": [], "notices": [],
    }  # fmt: skip
    return templates.get_template("find.html").render(text=text, **(found | values))


def test_what_is_found_is_a_page() -> None:
    known = answers("x", NOTHING._replace(user=True), [])
    page = find_page(answers=known, batches=batches_now([BATCH], None, [document()]), more=3)
    assert "Algebra" in page
    assert "3 more fit" in page
    assert "as far as could be asked" in find_page(notices=["Elasticsearch unavailable: x"])
    assert "Nothing is known" not in find_page("")
    assert "not looked for by name. Connection" in find_page(missing=["Connection &lt; is missing"])


def test_users_and_courses_whose_names_fit_are_shown_with_their_transfers() -> None:
    fits = FoundNames([Named("a&b", "<Asha>", "O")], more=False)
    users, courses = find_page(users=fits), find_page(courses=fits)
    assert "./?user=a%26b" in users
    assert "./?course=a%26b" in courses
    assert "find?q=a%26b" in courses
    assert "find?q=a%26b" not in find_page(courses=fits, sees_batches=False)
    for shown in (users, courses):
        assert "&lt;Asha&gt;" in shown
        assert "Nothing is known" not in shown
    more, none = FoundNames([], more=True), FoundNames([], more=False)
    assert "User-Org has more" in find_page(users=more)
    assert "The content search has more" in find_page(courses=more)
    assert "Nothing is known" in find_page(users=none, courses=none)
