"""Every template with what the routes give it: a variable that a route does not give is an error."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ownership.domain.conf import MAX_REASON
from ownership.domain.contracts import PlanLine, PlanSummary
from ownership.domain.imports import Import, ImportedRow, ImportProgress, RowEvents, RowState
from ownership.domain.options import Options
from ownership.domain.plan import BatchId
from ownership.domain.proven import ProvenCounts
from ownership.domain.reconciliation import Report, Sample
from ownership.domain.states import BatchOutcome, ChangeOutcome, EventState
from ownership.domain.transfer_files import COLUMNS, FileRow, RowError
from ownership.ledger.events import EventRow
from ownership.ledger.reads.batches import (
    BatchChange,
    BatchHop,
    Owners,
    PlannedBatch,
    Progress,
)
from ownership.ledger.reads.lists import OPEN, STATES, Filters, ListEntry, ListPage, OpenCounts, StateCounts
from ownership.page.actions import ACTIONS, TRANSFER_DAG, Action
from ownership.page.rendering import templates
from ownership.page.views.batches import change_line
from ownership.page.views.details import DetailView, detail_view
from ownership.page.views.imports import import_view, row_line
from ownership.page.views.links import RunLink, exports
from ownership.page.views.lists import list_view
from ownership.page.views.messages import message_view
from ownership.page.views.proven import proven_view
from ownership.page.views.reconciliations import reconciliations_view
from tests.unit.page.rows import AT, AT_MS, EVENT, LISTED, LISTED_MESSAGE, MESSAGE, NOW_MS, TRANSFER, key

RUN = RunLink("manual__1", TRANSFER_DAG, "running", "../dags/x")
LINE = PlanLine(course_id="c", batch_id="b", role="created", before="created by a", after="created by b")
PLAN = PlanSummary(
    mid="m", from_user="a", to_user="b", digest="0f" * 10, batches=1, conflicts=1, first=(LINE,),
    first_conflicts=(LINE,), courses={"c": 1}, more_courses=1, roles={"created": 1},
)  # fmt: skip
OWNERS = Owners("a", ("m",)), Owners("b", ("m",))
CHANGES = [
    change_line(
        BatchChange(
            BatchId("c", "b"),
            PlannedBatch("created", *OWNERS, BatchOutcome.MOVED, AT),
            [BatchHop("created", *OWNERS, 0, 2, ChangeOutcome.APPLIED, AT)],
        )
    )
]


def rendered(name: str, **values: Any) -> str:
    return templates.get_template(name).render(**values)


def view(event: EventRow = EVENT, **more: Any) -> DetailView:
    undo = LISTED._replace(
        transfer=TRANSFER._replace(key=key("undo:r:0")),
        options=Options(undo_of=EVENT.mid),
        run_id="manual__1",
    )
    given: dict[str, Any] = {
        "now_ms": NOW_MS, "runs": {"manual__1": RUN}, "lane": [LISTED, undo], "followed": [undo],
        "progress": Progress(3, 2, 1), "startable": {a.dag_id for a in ACTIONS.values()},
    }  # fmt: skip
    return detail_view(event, b'{"edata": {}}', **{**given, **more})


def transfer(event: EventRow, **more: Any) -> str:
    given: dict[str, Any] = {
        "changes": CHANGES, "older": "x", "first": "y", "started": "manual__1", "run": RUN,
    }  # fmt: skip
    return rendered("transfer.html", view=view(event), **{**given, **more})


@pytest.mark.parametrize("state", [s for s in EventState if s != EventState.REJECTED])
def test_a_transfer_in_every_state_is_a_page_of_its_own_and_its_part_that_moves(state: EventState) -> None:
    event = EVENT._replace(
        state=state, run_id="manual__1", counts={"moved": 3}, report=PLAN.model_dump_json(), digest=PLAN.digest,
        ended_at=AT + timedelta(seconds=1), next_conf="{}",
    )  # fmt: skip
    for page in (transfer(event), transfer(event, changes=[], older=None, first=None, started="", run=None)):
        assert "user-old" in page
        assert "undo%3Ar%3A0" in page
    assert "user-old" not in rendered("live.html", view=view(event))
    beyond = transfer(event, changes=[], older=None)
    assert "There is nothing on this page." in beyond
    assert '<a class="button" href="y">First</a>' in beyond


def test_a_rejected_message_is_a_page_with_its_reason_and_place() -> None:
    page = rendered("message.html", view=message_view(MESSAGE))
    assert "not UTF-8" in page
    assert "t, partition 0, offset 4" in page
    assert "not UTF-8" in rendered("live.html", view=message_view(MESSAGE))


@pytest.mark.parametrize("action", ACTIONS.values(), ids=lambda a: a.name)
def test_every_action_is_confirmed_on_a_page_that_asks_for_its_reason(action: Action) -> None:
    event = EVENT._replace(counts={"moved": 3}, report=PLAN.model_dump_json())
    page = rendered(
        "confirm.html", action=action, view=view(event), changes=CHANGES, more=True, rehearsed=PLAN,
        token="token", max_reason=MAX_REASON, paused=True, user="u",  # noqa: S106  # of nobody
    )  # fmt: skip
    assert action.title in page
    assert (f'maxlength="{MAX_REASON}"' in page) == bool(action.reason)


def test_the_list_shows_events_and_rejected_messages() -> None:
    entries: list[ListEntry] = [
        LISTED._replace(run_id="manual__1", state=EventState.FAILED, reason="why"),
        LISTED_MESSAGE,
    ]
    page = ListPage(entries, StateCounts({EventState.FAILED: 1}, AT_MS), key(), cut=True)
    filters = Filters(user="user-old", run_id="manual__1")
    shown = rendered(
        "list.html", view=list_view(filters, page, {"manual__1": RUN}, now_ms=NOW_MS, first=False),
        filters=filters, unread=[("since=<b>", "date and time")], since="", before="", states=(OPEN, *STATES), open_counts=OpenCounts(3, 1, more=True),
        proven="All are proven.", of_request="1 of 1 proven",
        compared="Rows and index agreed.", open_href="x", waiting_href="y", exports=exports(filters),
    )  # fmt: skip
    assert "user-old" in shown
    assert "api/v1/exports/changes?format=jsonl&amp;user=user-old&amp;run=manual__1" in shown
    assert "rejected:t:0:4" in shown
    assert 'not narrowed by <span class="id">since=&lt;b&gt;</span>, which is no date and time.' in shown


def test_the_share_that_is_proven_is_a_page_with_a_chart_and_periods() -> None:
    days = [ProvenCounts(in_time=9, late=1), ProvenCounts(), ProvenCounts(in_time=10, overdue=2, unproven=5)]
    page = rendered("proven.html", view=proven_view(days, now_ms=NOW_MS, deadline_minutes=90))
    assert "90 % of the 10 transfers due in the last day were proven within 90 min." in page
    assert "9 in time, 1 late, 0 overdue" in page
    assert rendered("proven.html", view=proven_view([ProvenCounts()], now_ms=NOW_MS, deadline_minutes=1))


IMPORT = Import("0" * 20, "an-admin", AT, "<leavers>.csv", "", 2, 1, ("O",))


def test_imports_are_a_list_with_a_form_for_who_may_start_transfers() -> None:
    given = {
        "imports": [IMPORT], "older": "x", "newest": "y", "paused": True, "token": "t", "user": "u",
        "columns": COLUMNS, "max_rows": 10_000,
    }  # fmt: skip
    page = rendered("imports.html", **given, startable=True)
    assert "&lt;leavers&gt;.csv" in page
    assert '<td class="n">2</td><td class="n warn">1</td>' in page
    assert 'enctype="multipart/form-data"' in page
    for newest, says in ((None, "No file was sent yet."), ("y", "There is nothing on this page.")):
        page = rendered("imports.html", **{**given, "imports": [], "newest": newest}, startable=False)
        assert says in page
        assert "<form" not in page


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ({RowState.CHECKING: 2}, "2 rows to go. Nothing is transferred"),
        ({RowState.READY: 2}, "Carry out all 2 rows"),
        ({RowState.READY: 1, RowState.WRONG: 1}, "Carry out the 1 good row"),
        ({RowState.MOVING: 1, RowState.WRONG: 1}, "1 row to go"),
        ({RowState.DONE: 1, RowState.FAILED: 1}, "Done: 1 row moved 7 batches, proven in both stores. 1 row did not"),
    ],
)  # fmt: skip
def test_an_import_is_a_page_that_says_how_far_it_is(states: dict[RowState, int], words: str) -> None:
    seen = import_view(IMPORT, ImportProgress(states, 5, 7))
    rows = [
        ImportedRow(FileRow(2, "a", "b", "O"), RowEvents(False, EventState.REHEARSED, False, None), "m:check", 5),
        ImportedRow(FileRow(3, error=RowError("from_user", "is <empty>")), RowEvents(True, None, False, None)),
    ]  # fmt: skip
    page = rendered(
        "import.html", view=seen, rows=map(row_line, rows), more="x", first="y", startable=True, stalled=True, token="t",  # noqa: S106
        paused=True, user="u",
    )  # fmt: skip
    assert words in page
    assert "from_user: is &lt;empty&gt;" in page
    assert "transfer?mid=m%3Acheck" in page
    assert (words in rendered("import_live.html", view=seen)) != words.startswith("Carry")


def test_reconciliations_are_a_page_with_samples() -> None:
    sample = Sample(kind="stale_owner", course_id="c", batch_id="<b>", row="new", document="old")
    report = Report(
        run_id="manual__1", started_ms=AT_MS, ended_ms=AT_MS, repair=True, parts=1, done=1, left=1,
        samples=(sample,), more_samples=2, rows=1000, counts={"stale_owner": 1, "orphan_document": 2},
    )  # fmt: skip
    page = rendered("reconciliations.html", view=reconciliations_view([report], {"manual__1": RUN}))
    assert '<td class="n">1,000</td>' in page
    assert "<td>1 stale owner, 2 orphan document</td>" in page
    assert "<td>stale owner</td>" in page
    assert "&lt;b&gt;" in page
    assert '<td class="id">new</td><td class="id">old</td>' in page
    assert "2 more are in no sample" in page
    assert "compared" in rendered("reconciliations.html", view=reconciliations_view([], {}))


@pytest.mark.parametrize(
    ("run", "coming"), [(RUN, True), (RUN._replace(state="failed"), False), (None, False)]
)
def test_an_event_that_the_ledger_does_not_have_is_awaited_or_said_to_be_missing(
    run: RunLink | None, coming: bool
) -> None:
    page = rendered("absent.html", mid="LP.9.z", started="manual__1", run=run, coming=coming)
    assert "LP.9.z" in page
    assert rendered("live.html", view=None, run=run)


def test_an_error_is_a_page_that_says_what_is_wrong() -> None:
    assert "gone &amp; lost" in rendered("error.html", status=503, title="Gone", text="gone & lost")


def test_the_api_is_a_page_with_each_operation_and_a_link_to_its_openapi() -> None:
    page = rendered("api.html", operations=[("GET", "/transfer", "One <transfer>")])
    assert 'href="api/v1/openapi.json"' in page
    assert "One &lt;transfer&gt;" in page
