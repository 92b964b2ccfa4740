"""What the page shows of what the ledger has."""

from __future__ import annotations

import base64
import json
from datetime import timedelta, timezone
from typing import Any
from urllib.parse import parse_qs

import pytest

from ownership.domain.conf import manual_events, orders, undo_order
from ownership.domain.event import OrderKey, Transfer
from ownership.domain.options import Options
from ownership.domain.plan import BatchId
from ownership.domain.queue import QueuedEvent
from ownership.domain.reconciliation import Report, Sample
from ownership.domain.states import FINAL_STATES, BatchOutcome, ChangeOutcome, EventState
from ownership.ledger.events import EventRow
from ownership.ledger.reads.batches import (
    BatchChange,
    BatchHop,
    Owners,
    PlannedBatch,
    Progress,
)
from ownership.ledger.reads.lists import (
    MAX_COUNTED,
    MAX_NARROWED,
    STATES,
    Filters,
    ListedEvent,
    ListEntry,
    ListPage,
    StateCounts,
)
from ownership.page import payload
from ownership.page.actions import (
    ACTIONS,
    APPROVE,
    DECLINE,
    EXECUTE,
    REDRIVE,
    REHEARSE_UNDO,
    UNDO,
    ConfirmedAction,
    offered,
)
from ownership.page.cursors import ENTRIES
from ownership.page.views import formats, links
from ownership.page.views.batches import ChangeLine, change_line
from ownership.page.views.details import DetailView, Fact, detail_view
from ownership.page.views.links import RunLink
from ownership.page.views.lists import event_line, kind_of, list_view, message_line, unread
from ownership.page.views.messages import message_view
from ownership.page.views.reconciliations import newest_in_short, reconciliations_view
from tests.unit.page.rows import AT, AT_MS, EVENT, LISTED, LISTED_MESSAGE, MESSAGE, NOW_MS, TRANSFER, key

DIGEST = "0f" * 10
RUN = RunLink("manual__1", "user_ownership_transfer", "success", "../dags/x")
EVENT_STATES = [s for s in EventState if s != EventState.REJECTED]


def cursor_text(*values: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


def seen(e: EventRow, body: bytes = b"{}", **more: Any) -> DetailView:
    return detail_view(e, body, **{"now_ms": NOW_MS, "runs": {}, **more})


def fact(view: DetailView, name: str) -> str:
    return next(f.value for f in view.facts if f.name == name)


# -- times, numbers, addresses


def test_a_moment_is_utc_in_whatever_zone_it_is_given() -> None:
    elsewhere = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert formats.moment(elsewhere) == formats.moment(AT) == formats.moment(AT_MS)
    assert formats.moment(AT_MS) == ("2026-11-23T08:00:00.000+00:00", "2026-11-23 08:00:00")
    assert formats.moment(2**62) == ("", "?")
    assert formats.moment(None) is None


def test_a_long_id_keeps_both_ends() -> None:
    assert formats.short("a54a0001-0000-4000-8000-000000042314") == "a54a0001-00…0000042314"
    assert formats.short("short") == "short"


@pytest.mark.parametrize(
    ("run_id", "expected"),
    [
        ("manual__2026-11-26T08:40:09.004545+00:00", "manual 11-26 08:40:09"),
        ("asset_triggered__2026-11-26T08:40:03.352253+00:00_t9fEbjfQ", "asset 11-26 08:40:03"),
        ("scheduled__2026-11-26T08:00:00+00:00", "scheduled 11-26 08:00:00"),
        ("my own run of a long name", "my own run … long name"),
    ],
)
def test_a_run_is_named_by_its_kind_and_time(run_id: str, expected: str) -> None:
    assert links.run_label(run_id) == expected


def test_an_address_carries_any_id() -> None:
    hostile = 'a/b?c=d&e#f%"<script>'
    assert links.detail_href(hostile).startswith("transfer?mid=a%2Fb%3Fc%3Dd%26e%23f%25%22%3Cscript%3E")
    assert "/" not in links.run_href("dag", hostile).removeprefix("../dags/dag/runs/")


@pytest.mark.parametrize("text", ["", "yesterday", "9999-12-31T23:59-23:59", "0001-01-01T00:00+23:59"])
def test_a_time_that_is_none_narrows_nothing(text: str) -> None:
    assert links.at_ms(text) is None


def test_what_the_list_is_not_narrowed_to_is_named() -> None:
    used = Filters(state=EventState.FAILED, since_ms=0)
    assert unread(used, state="failed", since="1970-01-01T00:00", before="") == []
    named = unread(Filters(), state="gone", since="yesterday", before="1" * 100)
    assert named == [
        ("state=gone", "state"),
        ("since=yesterday", "date and time"),
        (f"before={'1' * 59}…", "date and time"),
    ]


def test_a_time_of_a_form_is_utc() -> None:
    assert links.at_ms("2026-11-23T08:00") == links.at_ms("2026-11-23T13:30+05:30") == AT_MS


@pytest.mark.parametrize(
    ("since_ms", "text"),
    [
        (AT_MS, "2026-11-23T08:00"),
        (AT_MS + 7_000, "2026-11-23T08:00:07"),
        (AT_MS + 7_009, "2026-11-23T08:00:07.009"),
        (-60_000_000_000_000, "0068-09-03T13:20"),
    ],
)
def test_the_address_of_a_list_gives_the_same_list_again(since_ms: int, text: str) -> None:
    query = parse_qs(links.list_href(Filters(since_ms=since_ms, before_ms=since_ms + 1)).partition("?")[2])
    (since,), (before,) = query["since"], query["before"]
    assert (since, links.at_ms(since), links.at_ms(before)) == (text, since_ms, since_ms + 1)


@pytest.mark.parametrize(
    "text",
    ["", "x", "W10", "bm90IGpzb24", "!!!!", "W251bGxd" * 400, cursor_text(1, 0, 0, "a\x00b"),
     cursor_text(2**63, 0, 0, "a"), cursor_text(1, 0, 0, "a" * 321), cursor_text(1, 0, 0)],
)  # fmt: skip
def test_what_is_no_cursor_begins_at_the_newest(text: str) -> None:
    assert ENTRIES.key(text) is None


def test_a_cursor_comes_back_as_it_was() -> None:
    key = OrderKey(AT_MS, 1, 9, 'mid "ü"')
    assert ENTRIES.key(ENTRIES.text(key)) == key


# -- the list


def listed(*entries: ListEntry, more: bool = False, cut: bool = False, total: int = 0) -> ListPage:
    states = {e.state: 1 for e in entries if isinstance(e, ListedEvent)} | (
        {EventState.COMPLETED: total} if total else {}
    )
    return ListPage(list(entries), StateCounts(states, AT_MS), key() if more else None, cut)


def test_a_line_of_the_list_has_who_what_how_many_and_how_fast() -> None:
    e = LISTED._replace(counts={"moved": 1234, "changed_elsewhere": 2, "gone": 1}, ended_at=AT + timedelta(seconds=3),
              run_id="manual__1", requested_by="admin-1")  # fmt: skip
    line = event_line(e, {"manual__1": RUN}, now_ms=NOW_MS)
    assert (line.from_user, line.to_user, line.requested_by) == ("user-old", "user-new", "admin-1")
    assert (line.moved, line.conflicts, line.lag, line.run, line.kind) == ("1,234", "3", "3.0 s", RUN, "")


def test_an_open_transfer_has_no_outcome_yet_and_its_lag_grows() -> None:
    line = event_line(LISTED._replace(state=EventState.FAILED, reason="LMS unavailable"), {}, now_ms=NOW_MS)
    assert (line.moved, line.conflicts, line.lag, line.note) == ("", "", "60 s", "LMS unavailable")


def test_a_rejected_message_is_listed_by_its_place() -> None:
    line = message_line(LISTED_MESSAGE)
    assert (line.kind, line.from_user, line.lag, line.note) == ("message", "", "", "not JSON")


@pytest.mark.parametrize(
    ("origin", "options", "kind"),
    [
        ("kafka", Options(), ""),
        ("manual", Options(dry_run=True), "dry run"),
        ("manual", Options(dry_run=True, undo_of="m"), "dry run, undo"),
        ("manual", Options(plan_of="m", digest=DIGEST), "plan applied"),
        ("follow-up", Options(), "follow-up"),
        ("manual", Options(roles=("created",)), "restricted"),
    ],
)
def test_an_event_s_kind_is_reported_in_a_word_or_two(origin: str, options: Options, kind: str) -> None:
    assert kind_of(origin, options) == kind


def test_the_list_says_what_its_counts_by_state_are_about() -> None:
    view = list_view(Filters(), listed(LISTED, LISTED._replace(state=EventState.FAILED)), {}, now_ms=NOW_MS)
    assert view.span == "2 transfers and messages fit, in all states."
    assert [(c.label, c.total, c.chosen) for c in view.chips] == [
        ("all", "2", True),
        ("failed", "1", False),
        ("completed", "1", False),
    ]
    assert (view.older, view.newer) == (None, None)
    many = list_view(Filters(), listed(LISTED, total=MAX_COUNTED), {}, now_ms=NOW_MS)
    assert many.span == "The counts are of the newest 1,000 that fit, since 2026-11-23 08:00 UTC."


def test_a_list_that_leaves_events_out_says_so() -> None:
    view = list_view(Filters(course_id="c"), listed(LISTED, cut=True), {}, now_ms=NOW_MS)
    assert view.span.endswith(f"The list has the {MAX_NARROWED:,} events of this course that arrived last.")


def test_open_is_a_chip_of_its_own_with_the_states_that_it_stands_for() -> None:
    view = list_view(
        Filters(state="open"), listed(LISTED._replace(state=EventState.FAILED), LISTED), {}, now_ms=NOW_MS
    )
    assert [(c.label, c.total, c.chosen) for c in view.chips][:2] == [
        ("all", "2", False),
        ("open", "1", True),
    ]


def test_every_state_has_a_chip_once_when_it_is_chosen() -> None:
    for state in STATES:
        chips = list_view(Filters(state=state), listed(), {}, now_ms=NOW_MS).chips
        assert [c.state for c in chips] == ["", state]


def test_filters_stay_when_the_page_is_turned() -> None:
    filters = Filters("user-old", "failed", "", "course 1", "b&2", AT_MS)
    view = list_view(
        filters, listed(LISTED._replace(state=EventState.FAILED), more=True), {}, now_ms=NOW_MS, first=False
    )
    assert view.older
    kept = "user=user-old&state=failed&course=course+1&batch=b%262&since=2026-11-23T08%3A00"
    assert f"{kept}&after=" in view.older
    assert view.newer == f"./?{kept}"


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(), "as soon as an event arrives"),
        (Filters(run_id="r"), "This run has planned no transfer and holds none."),
        (Filters(user="u", state="failed"), "no transfer from or to this user that fits"),
        (Filters(course_id="c"), "Nothing fits these filters."),
        (Filters(run_id="r", batch_id="b"), "Nothing fits these filters."),
    ],
)
def test_an_empty_list_says_why(filters: Filters, expected: str) -> None:
    assert expected in list_view(filters, listed(), {}, now_ms=NOW_MS).empty


# -- one transfer


@pytest.mark.parametrize("state", EVENT_STATES)
def test_every_state_has_its_word_a_sentence_and_a_timeline(state: EventState) -> None:
    view = seen(EVENT._replace(state=state, ended_at=AT if state in FINAL_STATES else None))
    assert state in formats.STATE_NAMES
    assert len(view.sentence) > 10
    assert len(view.steps) > 1
    assert view.final == (state in FINAL_STATES)
    assert (view.bar is None) == (state in FINAL_STATES or state == "awaiting_approval")


def test_a_rejected_message_has_its_reason_its_place_and_nothing_to_do() -> None:
    view = message_view(MESSAGE)
    assert (view.state, view.final, view.conf) == ("rejected", True, "{}")
    assert [(s.label, s.status, s.note) for s in view.steps] == [
        ("announced", "done", ""),
        ("rejected", "bad", "not UTF-8"),
    ]
    assert view.facts[1:] == [
        Fact("Source", "t, partition 0, offset 4"),
        Fact("Mid in the message", "LP.1.a"),
    ]
    assert view.event_text is None
    assert "1 byte and is no JSON object" in view.event_missing


def test_a_completed_transfer_answers_the_operator_s_questions() -> None:
    e = EVENT._replace(counts={"moved": 45, "changed_elsewhere": 1}, planned_at=AT, applied_at=AT,
        completed_at=AT + timedelta(seconds=2), ended_at=AT + timedelta(seconds=2), requested_by="admin-1",
        request_reason="moves on", run_id="manual__1",)  # fmt: skip
    body = {
        "edata": {
            "actionBy": {"userId": "admin-1", "userName": "Asha"},
            "fromUserProfile": {"userId": "user-old", "userName": "Old"},
        }
    }
    view = seen(e, json.dumps(body).encode(), runs={"manual__1": RUN}, startable={"ownership_undo"})
    assert view.sentence == "Finished: 45 batches moved; 1 left alone, and proven in both stores."
    assert (fact(view, "Requested by"), fact(view, "Reason")) == ("admin-1 (Asha)", "moves on")
    assert (fact(view, "Lag"), fact(view, "Source")) == ("2.0 s", "topic, partition 0, offset 7")
    assert [s.label for s in view.steps] == ["announced", "received", "planned", "applied", "completed"]
    assert {s.status for s in view.steps} == {"done"}
    assert view.from_name == "Old"
    assert [a.name for a in view.actions] == ["rehearse_undo", "undo"]


def test_who_may_not_start_the_dag_is_offered_nothing() -> None:
    assert seen(EVENT._replace(counts={"moved": 1})).actions == []


def test_a_failed_transfer_says_when_it_is_tried_again() -> None:
    queued = QueuedEvent(Transfer(key(), "user-old", "user-new"), AT_MS, next_try_ms=NOW_MS + 30_000)
    view = seen(EVENT._replace(state=EventState.FAILED, reason="LMS unavailable"), queued=queued)
    assert view.sentence == "The last try failed. The next one is in 30 s, or at once by the button."
    failed = next(s for s in view.steps if s.label == "failed")
    assert failed.note == "LMS unavailable (next try 2026-11-23 08:01:30 UTC)"


def test_an_event_that_waits_names_what_it_waits_for() -> None:
    assert "Waits for LP.0.x" in seen(EVENT._replace(state=EventState.RECEIVED), blocker="LP.0.x").sentence


def test_the_bar_moves_with_rows_and_proofs() -> None:
    percents = [
        seen(EVENT._replace(state=state), progress=Progress(100, moved, proven)).bar
        for state, moved, proven in (
            (EventState.RECEIVED, 0, 0), (EventState.PLANNED, 0, 0), (EventState.PLANNED, 50, 0),
            (EventState.APPLIED, 100, 0), (EventState.APPLIED, 100, 100),
        )
    ]  # fmt: skip
    assert [b.percent for b in percents if b] == [3, 10, 40, 70, 95]
    assert percents[2]
    assert percents[2].text == "50 of 100 rows moved, 0 proven in both stores"


def test_a_second_proof_stands_in_the_timeline() -> None:
    assert seen(EVENT._replace(completed_at=AT, reproved_at=AT)).steps[-1].label == "proven a second time"


def test_a_lane_of_one_is_no_lane_and_a_chain_shows_every_hop() -> None:
    first, second = LISTED, LISTED._replace(transfer=Transfer(key("LP.2.b"), "user-new", "user-last"))
    assert seen(EVENT, lane=[first]).lane == []
    hops = seen(EVENT._replace(transfer=second.transfer), lane=[first, second]).lane
    assert hops == [first, second]


def test_an_undo_that_took_it_back_is_seen_and_a_dry_run_of_one_is_not() -> None:
    rehearsed = LISTED._replace(
        state=EventState.REHEARSED,
        transfer=TRANSFER._replace(key=key("undo:r:0")),
        options=Options(undo_of="LP.1.a", dry_run=True),
    )
    view = seen(EVENT, followed=[rehearsed])
    assert (view.undone, view.rehearsed_undo) == (None, rehearsed.mid)
    undone = LISTED._replace(
        transfer=TRANSFER._replace(key=key("undo:s:0")), options=Options(undo_of="LP.1.a")
    )
    assert seen(EVENT, followed=[rehearsed, undone]).undone == "completed"


# -- its changes


def owners(name: str, *mentors: str) -> Owners:
    return Owners(name, mentors)


def hop(outcome: str | None, **more: Any) -> BatchHop:
    given: dict[str, Any] = {"hop": 0, "hops": 1, "outcome": outcome, "applied_at": None}
    return BatchHop("created", owners("old", "m"), owners("new", "m"), **{**given, **more})


def changed(plan: PlannedBatch | None, *hops: BatchHop) -> ChangeLine:
    return change_line(BatchChange(BatchId("c", "b"), plan, list(hops)))


def test_a_change_is_reported_by_its_image_and_proven_by_its_plan() -> None:
    plan = PlannedBatch("created", owners("stale"), owners("new"), BatchOutcome.MOVED, AT)
    line = changed(plan, hop(ChangeOutcome.REFUSED), hop(ChangeOutcome.APPLIED, applied_at=AT, hops=2))
    assert (line.before, line.after) == (("created by old", "mentor m"), ("created by new", "mentor m"))
    assert (line.outcome, line.note) == ("moved", "hop 1 of 2, 1 other try")
    assert line.row_at == line.document_at == formats.moment(AT)


def test_a_batch_that_was_left_alone_shows_its_owners_and_why() -> None:
    line = changed(PlannedBatch("", owners("somebody"), None, BatchOutcome.CHANGED_ELSEWHERE, None))
    assert (line.before, line.outcome, line.row_at) == (("created by somebody",), "changed_elsewhere", None)
    assert line.after == ()


def test_a_change_without_a_plan_of_its_own_is_moved_when_it_was_applied_and_planned_before() -> None:
    assert changed(None, hop(ChangeOutcome.APPLIED)).outcome == "moved"
    assert changed(None, hop(None)).outcome == "planned"
    assert changed(None, hop(ChangeOutcome.LATE)).note == "applied after the claim was lost"


# -- what of the event is shown


def test_of_an_event_ids_and_names_are_shown_and_nothing_that_the_contract_does_not_know() -> None:
    event = {
        "mid": "m", "secret": "s3cret",
        "edata": {
            "fromUserProfile": {"userId": "u", "userName": "Uma", "email": "uma@example.org", "roles": ["X"]},
            "toUserProfile": "a phone number", "assetInformation": {"name": "N", "owner": {"phone": "1"}},
            "more": {"email": "x@example.org"},
        },
    }  # fmt: skip
    expected = payload.shown(json.dumps(event).encode())
    assert expected
    for word in ("uma@example.org", "x@example.org", "s3cret", "a phone number", "phone"):
        assert word not in expected
    assert json.loads(expected)["edata"]["fromUserProfile"] == {
        "userId": "u", "userName": "Uma", "email": payload.HIDDEN, "roles": ["X"],
    }  # fmt: skip


def test_a_payload_with_a_number_of_any_length_is_shown_with_its_names() -> None:
    event = {"ets": 0, "edata": {"actionBy": {"userId": "u", "userName": "Uma"}}}
    body = json.dumps(event).replace("0", "9" * 5000, 1).encode()
    assert '"userName": "Uma"' in (payload.shown(body) or "")
    assert payload.names(body) == {"actionBy": "Uma"}


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"7", b"[" * 100_000, b'{"edata": 7}', b"null"])
def test_a_payload_of_any_kind_is_read_without_harm(body: bytes) -> None:
    shown = payload.shown(body)
    assert shown is None or payload.HIDDEN in shown
    assert payload.names(body) == {}


# -- what the buttons start


@pytest.mark.parametrize("action", ACTIONS.values(), ids=lambda a: a.name)
def test_a_button_s_conf_is_one_that_the_dag_takes(action: Any) -> None:
    conf = ConfirmedAction(action, "LP.1.a", DIGEST, "manual__x").conf("why" if action.reason else "")
    if action.dag_id == "ownership_undo":
        assert undo_order(conf).undo
    else:
        assert manual_events(conf, run_id="r", at_ms=1) == []
        assert any(orders(conf))


def test_only_the_undo_button_undoes_for_real() -> None:
    assert ConfirmedAction(REHEARSE_UNDO, "m", None, "r").conf()["dry_run"] is True
    assert ConfirmedAction(UNDO, "m", None, "r").conf()["dry_run"] is False


def test_the_outcome_of_an_action_is_seen_at_the_event_that_it_makes() -> None:
    shows = {
        a.name: ConfirmedAction(a, "m", DIGEST, "r").outcome_mid(EventState.SKIPPED) for a in ACTIONS.values()
    }
    assert shows == {
        "rehearse_undo": "undo:r:0", "undo": "undo:r:0", "execute": "execute:r", "redrive": "redrive:r:0",
        "approve": "m", "decline": "m",
    }  # fmt: skip
    assert ConfirmedAction(REDRIVE, "m", None, "r").outcome_mid(EventState.FAILED) == "m"


@pytest.mark.parametrize(
    ("state", "counts", "digest", "names"),
    [
        (EventState.COMPLETED, {"moved": 1}, None, [REHEARSE_UNDO, UNDO]),
        (EventState.COMPLETED, {"already": 1}, None, []),
        (EventState.ABANDONED, {}, None, [REHEARSE_UNDO, UNDO]),
        (EventState.FAILED, {}, None, [REDRIVE]),
        (EventState.SKIPPED, {}, None, [REDRIVE]),
        (EventState.AWAITING_APPROVAL, {}, DIGEST, [APPROVE, DECLINE]),
        (EventState.REHEARSED, {"moved": 1}, DIGEST, [EXECUTE]),
        (EventState.RECEIVED, {}, None, []),
        (EventState.REJECTED, {}, None, []),
    ],
)
def test_what_is_offered_follows_from_the_state(
    state: EventState, counts: Any, digest: Any, names: Any
) -> None:
    assert offered(EVENT._replace(state=state, counts=counts, digest=digest)) == names


# -- reconciliations


def report(n: int, **more: Any) -> Report:
    return Report(
        run_id=f"scheduled__{n}",
        started_ms=AT_MS + n,
        ended_ms=AT_MS + n,
        repair=False,
        parts=4,
        done=4,
        **more,
    )


def test_without_a_reconciliation_the_page_says_so_and_draws_nothing_but_that() -> None:
    view = reconciliations_view([], {})
    assert (view.sentence, view.lines, view.newest) == (
        "Rows and index have not been compared yet.",
        [],
        None,
    )
    assert "no run yet" in view.chart


def test_the_newest_reconciliation_is_said_in_a_sentence() -> None:
    said = [
        newest_in_short(r)
        for r in (
            report(1),
            report(1, left=1),
            report(1, left=2000),
            report(1).model_copy(update={"done": 3}),
        )
    ]
    assert said == [
        "Rows and index agreed on 2026-11-23.",
        "1 difference between rows and index on 2026-11-23.",
        "2,000 differences between rows and index on 2026-11-23.",
        "The comparison of rows and index on 2026-11-23 did not end.",
    ]


def test_reconciliations_are_lines_newest_first_with_the_trend_oldest_first_and_samples_of_the_newest() -> (
    None
):
    sample = Sample(kind="stale_owner", course_id="c", batch_id="<b>", row="new", document="old")
    run = RunLink("scheduled__2", "ownership_reconcile", "failed", "../dags/x")
    newest = report(2, left=3, counts={"stale_owner": 3}, samples=(sample,), more_samples=2, rows=1000)
    accepted = report(1, left=1, threshold=1, counts={"orphan_document": 1})

    view = reconciliations_view([newest, accepted], {run.run_id: run})

    assert [(c.report, c.run, c.verdict) for c in view.lines] == [
        (newest, run, "differ"), (accepted, None, "agree"),
    ]  # fmt: skip
    assert view.newest == newest
    assert view.chart.index("scheduled__1") < view.chart.index("scheduled__2")
