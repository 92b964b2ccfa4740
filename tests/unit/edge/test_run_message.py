"""What a run tells operators."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from ownership.domain.contracts import Summary
from ownership.domain.states import EventState
from ownership.edge.run_message import MAX_ID, MAX_LISTED, MAX_SUBJECT, run_message
from tests.unit.edge.run_summaries import (
    CONFLICTS,
    DAG_ID,
    EVERYTHING,
    HOSTILE,
    LINK,
    RUN_ID,
    conflict,
    failed,
    message_of,
    plan,
)


@pytest.mark.parametrize(
    "summary",
    [
        pytest.param(Summary(), id="nothing happened"),
        pytest.param(
            Summary(events={"completed": 9, "skipped": 1}, batches={"moved": 40}), id="all went well"
        ),
        pytest.param(
            Summary(waits={"m": "waits for n"}, notes={"n": "was abandoned"}), id="orders and waits"
        ),
        pytest.param(Summary(plans=(plan(state=EventState.REHEARSED),)), id="a dry run"),
        pytest.param(Summary(next_conf={"m": "{}"}, users={"m": "a → b"}), id="a conf that needs no pasting"),
    ],
)
def test_a_run_that_needs_no_operator_has_no_message(summary: Summary) -> None:
    assert run_message(summary, dag_id=DAG_ID, run_id=RUN_ID, link=LINK) is None


def test_failures_are_named_with_users_reason_and_how_to_try_again() -> None:
    it = message_of(failed("m1"))
    assert it.subject == f"{DAG_ID}: 1 failed ({RUN_ID})"
    assert it.body["kinds"] == ["failed"]
    assert it.body["failures"] == {"m1": "User-Org unavailable: HTTP 503"}
    assert it.body["users"] == {"m1": "old-1 → new-1"}
    assert it.body["next_step"][-1]["conf"] == '{"redrive": {"mids": ["m1"]}}'
    for form in (it.text, it.html):
        assert "m1 (old-1 → new-1): User-Org unavailable: HTTP 503" in form
        assert "tried again by themselves" in form


def test_an_approval_is_wanted_with_the_size_of_the_plan_and_the_conf_that_gives_it() -> None:
    it = message_of(Summary(plans=(plan(),)))
    assert it.subject == f"{DAG_ID}: 1 approval wanted ({RUN_ID})"
    assert it.body["kinds"] == ["approval_wanted"]
    assert it.body["approvals"] == [
        {
            "mid": "m2",
            "digest": "0123456789abcdef0123",
            "batches": 42,
            "courses": {"c1": 39, "c2": 2},
            "more_courses": 1,
            "conflicts": 3,
        }
    ]
    size = "42 batches in more than 2 courses; 3 that were found would not change"
    assert f"- m2 (old-2 → new-2): {size}\n" in it.text
    assert it.body["next_step"] == [
        {
            "text": "To approve m2, answer under Required actions, or trigger user_ownership_transfer with:",
            "conf": '{"approve": {"mid": "m2", "digest": "0123456789abcdef0123"}}',
        }
    ]


def test_conflicts_are_named_with_their_batches() -> None:
    it = message_of(CONFLICTS)
    assert it.subject == f"{DAG_ID}: 1 conflict ({RUN_ID})"
    assert it.body["kinds"] == ["conflicts"]
    assert it.body["conflicts"] == [{"mid": "m4", "course_id": "c1", "batch_id": "b1"}]
    assert it.body["users"] == {"m4": "old-4 → new-4"}
    assert "- m4 (old-4 → new-4): batch b1 of course c1\n" in it.text
    assert "Another writer changed the batches" in it.text


def test_several_kinds_are_one_message_without_the_dry_run() -> None:
    it = message_of(EVERYTHING)
    assert it.subject == f"{DAG_ID}: 1 failed, 1 approval wanted, 1 conflict ({RUN_ID})"
    assert it.body["kinds"] == ["failed", "approval_wanted", "conflicts"]
    assert [a["mid"] for a in it.body["approvals"]] == ["m2"]
    assert "m3" not in it.text


def test_every_form_says_which_run_and_links_to_it() -> None:
    it = message_of(EVERYTHING)
    for form in (it.text, it.html):
        assert f"Run {RUN_ID} of {DAG_ID}" in form
        assert LINK in form
    assert (it.body["dag_id"], it.body["run_id"], it.body["link"]) == (DAG_ID, RUN_ID, LINK)
    assert (it.body["subject"], it.body["text"]) == (it.subject, it.text)
    assert "href" not in message_of(EVERYTHING, link="").html


def test_a_conf_can_be_pasted_from_the_text_and_from_the_html() -> None:
    it = message_of(EVERYTHING)
    confs = [s["conf"] for s in it.body["next_step"] if s["conf"]]
    assert len(confs) == 2
    for conf in confs:
        assert f"\n    {conf}\n" in it.text
        assert f"<pre>{escape(conf)}</pre>" in it.html
        json.loads(conf)


def test_failed_events_are_tried_again_by_one_conf() -> None:
    it = message_of(failed("m1", "m2", "m3"))
    assert [s["conf"] for s in it.body["next_step"] if s["conf"]] == [
        '{"redrive": {"mids": ["m1", "m2", "m3"]}}'
    ]


@pytest.mark.parametrize(
    "conf",
    [
        '{"execute_plan": "m9", "digest": "d"}',
        '{"redrive": {"mids": ["m1"]}, "reason": "r"}',
        '{"redrive": {"dead_letters": {}}}',
        "not JSON",
        "[" * 100_000,
    ],
    ids=["a plan", "more than mids", "dead letters", "no JSON", "nested too deeply"],
)
def test_any_other_conf_is_given_as_it_is_or_not_at_all(conf: str) -> None:
    it = message_of(Summary(failures={"m1": "why", "m2": "why"}, next_conf={"m1": conf, "m2": conf}))
    confs = [s["conf"] for s in it.body["next_step"]]
    assert confs == ([conf] if len(conf) < 1000 else [""])


def test_a_task_that_failed_is_named() -> None:
    it = message_of(Summary(failures={"pull_transfer_events": "did not end: its log says why"}))
    assert it.subject == f"{DAG_ID}: 1 failed ({RUN_ID})"
    assert "- pull_transfer_events: did not end: its log says why\n" in it.text
    assert [s["conf"] for s in it.body["next_step"]] == [""]


def test_what_is_left_out_of_a_long_list_is_counted() -> None:
    many = failed(*(f"m{n:02}" for n in range(50)))
    it = message_of(many.model_copy(update={"events": {"failed": 900}}))
    assert it.subject.startswith(f"{DAG_ID}: 900 failed")
    assert list(it.body["failures"]) == [f"m{n:02}" for n in range(MAX_LISTED)]
    assert it.text.count("\n- ") == it.html.count("<li>") == MAX_LISTED
    for form in (it.text, it.html):
        assert f"… and {900 - MAX_LISTED} more" in form
    assert it.body["counts"] == {"failed": 900}


def test_what_the_summary_only_counts_is_counted_too() -> None:
    it = message_of(
        Summary(events={EventState.AWAITING_APPROVAL: 31}, batches={"changed_elsewhere": 2}, plans=(plan(),))
    )
    assert it.subject.startswith(f"{DAG_ID}: 31 approvals wanted, 2 conflicts")
    assert "… and 30 more" in it.text
    assert "… and 2 more" in it.text


def test_a_message_has_a_bounded_size_whatever_is_in_it() -> None:
    long = "\n<&\"'" * 20_000
    mids = [f"{n}{long}" for n in range(50)]
    worst = Summary(
        events={"failed": 50},
        failures=dict.fromkeys(mids, long),
        users=dict.fromkeys(mids, long),
        next_conf=dict.fromkeys(mids, json.dumps({"redrive": {"mids": mids}})),
        plans=tuple(plan(m, next_conf=long) for m in mids),
        conflicts=tuple(conflict(m) for m in mids),
    )
    it = message_of(worst, run_id=long)
    assert len(it.subject) <= MAX_SUBJECT
    assert len(it.text) < 50_000
    assert len(it.html) < 300_000
    assert len(json.dumps(it.body)) < 150_000


def test_a_long_reason_is_cut_and_a_long_id_is_not() -> None:
    mid = "m" * 300  # the longest that an event may have
    it = message_of(Summary(failures={mid: "because " * 1000}))
    assert mid in it.text
    assert it.body["failures"][mid].endswith("…")
    assert len(mid) == MAX_ID


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_that_comes_from_an_event_is_markup(hostile: str) -> None:
    it = message_of(
        Summary(
            failures={hostile: hostile},
            users={hostile: hostile},
            conflicts=(conflict(hostile),),
            plans=(plan(hostile, next_conf=hostile),),
            next_conf={hostile: hostile},
        ),
        run_id=hostile,
        link=f"https://airflow.example/{hostile}",
    )
    tags = {re.sub(r' href="[^"<>]*"', "", tag) for tag in re.findall(r"<[^>]*>", it.html)}
    assert tags <= {f"<{end}{t}>" for t in ("p", "a", "h3", "ul", "li", "pre") for end in ("", "/")}
    assert hostile in it.text
    assert hostile in it.body["failures"]


@given(st.text(), st.text(), st.text())
def test_no_text_breaks_a_line_or_the_encoding(mid: str, why: str, run_id: str) -> None:
    it = message_of(Summary(failures={mid: why}, conflicts=(conflict(why),)), run_id=run_id)
    assert it.subject.isprintable()
    assert len(it.subject.splitlines()) == 1
    assert len(it.text.splitlines()) == 12
    for form in (it.subject, it.text, it.html, json.dumps(it.body, ensure_ascii=False)):
        form.encode()


def test_a_header_cannot_be_smuggled_into_the_subject() -> None:
    it = message_of(failed("m"), run_id="r\r\nBcc: everybody@example.org\u2028\u202eevil")
    assert it.subject == f"{DAG_ID}: 1 failed (r  Bcc: everybody@example.org �evil)"
