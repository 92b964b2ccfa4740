from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownership.domain.conf import (
    KNOWN,
    MAX_EVENTS,
    ORDERS,
    Abandon,
    Approve,
    ConfError,
    Redrive,
    Undo,
    apply_merge_patch,
    manual_events,
    orders,
    undo_order,
)
from ownership.domain.event import manual_event, parse_event
from ownership.domain.options import PLAIN, Options, Request
from tests.unit.domain.test_event import json_values

AT = 1_767_225_601_000
THREE = {"from_user": "A", "to_user": "B", "organisation_id": "O"}
WHOLE = manual_event(mid="LP.1.a", ets=AT - 5000, from_user="C", to_user="D", organisation_id="O")


scalars = st.none() | st.integers() | st.text(max_size=4) | st.just({"userId": "A"})


def events_of(conf: dict[str, Any]) -> list[Request]:
    return manual_events(conf, run_id="manual__1", at_ms=AT)


def test_the_form_names_one_event() -> None:
    ((event, payload, options),) = events_of({**THREE, "events": []})
    assert options == PLAIN
    assert (event.from_user, event.to_user, event.organisation_id) == ("A", "B", "O")
    assert (event.mid, event.ets) == ("manual:manual__1:0", AT)
    assert parse_event(payload) == event


def test_an_untouched_form_names_no_event() -> None:
    assert events_of({}) == []
    assert events_of({**dict.fromkeys(THREE), "events": []}) == []
    assert events_of({**dict.fromkeys(THREE, ""), "events": None}) == []


def test_events_and_the_form_go_together_in_order() -> None:
    found = events_of({"events": [WHOLE, {**THREE, "to_user": "E"}], **THREE})
    assert [(e.mid, e.from_user, e.to_user) for e, *_ in found] == [
        ("LP.1.a", "C", "D"),
        ("manual:manual__1:1", "A", "E"),
        ("manual:manual__1:2", "A", "B"),
    ]


def test_every_try_of_a_run_names_the_same_events() -> None:
    conf = {"events": [THREE, {k: v for k, v in WHOLE.items() if k not in ("mid", "ets")}]}
    assert events_of(conf) == events_of(json.loads(json.dumps(conf)))
    assert [e.mid for e, *_ in events_of(conf)] == ["manual:manual__1:0", "manual:manual__1:1"]


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        pytest.param({"form_user": "A"}, ["'form_user'", "from_user, to_user"], id="a typing error"),
        pytest.param({"from_user": "A"}, ["to_user is missing", "organisation_id is missing"], id="half a form"),
        pytest.param({**THREE, "to_user": 7}, ["to_user: Input should be a valid string"], id="an id that is a number"),
        pytest.param({**THREE, "to_user": "B\u200b"}, ["to_user: contains U+200B, ZERO WIDTH SPACE"], id="zero width"),
        pytest.param({**THREE, "organisation_id": "\u202eO"}, ["organisation_id: contains U+202E"], id="right to left"),
        pytest.param({**THREE, "requested_by": "a\u00adb"}, ["requested_by: contains U+00AD, SOFT HYPHEN"], id="hyphen"),
        pytest.param({**THREE, "to_user": "\u00a0B"}, ["to_user: contains U+00A0, NO-BREAK SPACE"], id="no-break space"),
        pytest.param({**THREE, "to_user": " \t "}, ["to_user: "], id="blanks alone"),
        pytest.param({**THREE, "to_user": "B" * 257}, ["to_user: "], id="an id too long"),
        pytest.param({**THREE, "from_user": 1, "to_user": 2}, ["from_user: ", "to_user: "], id="each field is named"),
        pytest.param({**THREE, "roles": ["owner"]}, ["roles.0: Input should be 'created' or 'mentored'"], id="a role"),
        pytest.param({**THREE, "roles": []}, ["roles: "], id="no role"),
        pytest.param({**THREE, "statuses": [2]}, ["statuses.0: Input should be 0 or 1"], id="a status"),
        pytest.param({**THREE, "course_ids": ["c\nd"]}, ["course_ids.0: contains U+000A, a control character"], id="a course"),
        pytest.param({**THREE, "course_ids": ["c"] * 1001}, ["course_ids: "], id="too many courses"),
        pytest.param({**THREE, "dry_run": "yes"}, ["dry_run: Input should be a valid boolean"], id="dry_run as text"),
        pytest.param({**THREE, "reason": "x" * 501}, ["reason: "], id="a reason too long"),
        pytest.param({**THREE, "requested_by": 3}, ["requested_by: "], id="a requester that is a number"),
        pytest.param({"events": [WHOLE], "roles": ["x"]}, ["roles.0: "], id="a role beside whole events"),
        pytest.param({"events": [{**THREE, "statuses": [5]}]}, ["events[0]: statuses.0"], id="a status of an item"),
        pytest.param({"events": WHOLE}, ["must be a list"], id="an object for a list"),
        pytest.param({"events": "A"}, ["must be a list"], id="text for a list"),
        pytest.param({"events": 3}, ["must be a list"], id="a number for a list"),
        pytest.param({"events": [THREE, 3]}, ["events[1]", "must be an object, is int"], id="no object"),
        pytest.param({"events": [{**THREE, "x": 1}]}, ["events[0]", "'x' is unknown"], id="an unknown field"),
        pytest.param({"events": [{}]}, ["from_user is missing"], id="an empty object"),
        pytest.param({"events": [{**WHOLE, "eid": "X"}]}, ["events[0]", "eid"], id="another eid"),
        pytest.param({"events": [WHOLE, WHOLE]}, ["'LP.1.a'", "more than once"], id="the same mid twice"),
        pytest.param({"events": [THREE] * (MAX_EVENTS + 1)}, ["1001", "at most 1000"], id="too many"),
        pytest.param(
            {"events": [{**WHOLE, "dry_run": True}]}, ["events[0]: 'dry_run'", "whole event"], id="a dry run inside an event"
        ),
        pytest.param({"events": [WHOLE, {**WHOLE, **THREE}]}, ["events[1]: 'from_user'", "'to_user'"], id="two in one"),
    ],
)  # fmt: skip
def test_a_conf_that_cannot_be_carried_out_is_refused_with_the_reason(
    conf: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfError) as caught:
        events_of(conf)
    for word in words:
        assert word in str(caught.value)


def test_an_order_that_was_left_empty_in_the_form_is_none() -> None:
    """Airflow's form sends null for it."""
    assert not any(orders(dict.fromkeys((*ORDERS, "execute_plan", "digest"))))


REDRIVE = {"redrive": {"mids": ["m"]}}
UNTOUCHED = {
    **dict.fromkeys(THREE), "dry_run": False, "roles": ["mentored", "created"], "statuses": ["0", "1"],
    "course_ids": [], "reason": None, "requested_by": "", "events": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        pytest.param({"dry_run": True}, "dry_run: ", id="a dry run of nothing"),
        pytest.param({**REDRIVE, "dry_run": True}, "dry_run: ", id="a dry run of a redrive"),
        pytest.param({**REDRIVE, **THREE, "dry_run": True}, "dry_run: ", id="and a transfer beside it"),
        pytest.param({"abandon": {"mids": ["m"], "reason": "r"}, "dry_run": True}, "dry_run: ", id="of an end"),
        pytest.param({"approve": {"mid": "m"}, "course_ids": ["c"]}, "course_ids: ", id="some courses of an approval"),
        pytest.param({"execute_plan": "m", "roles": ["created"]}, "roles: ", id="one role of a plan"),
        pytest.param({"execute_plan": "m", "statuses": ["1"]}, "statuses: ", id="one status of a plan"),
        pytest.param({"execute_plan": "m", "dry_run": True}, "dry_run: ", id="a dry run of a plan"),
        pytest.param({**REDRIVE, "reason": "cured"}, "reason: ", id="a reason that nothing keeps"),
        pytest.param({**REDRIVE, "requested_by": "u"}, "requested_by: ", id="a requester of nothing"),
        pytest.param({"events": [WHOLE], "reason": "r"}, "reason: ", id="a reason beside a whole event"),
        pytest.param({"events": [THREE, WHOLE], "reason": "r"}, "reason: ", id="a reason that one event would not get"),
        pytest.param({**THREE, "events": [WHOLE], "requested_by": "u"}, "requested_by: ", id="a requester of one alone"),
    ],
)  # fmt: skip
def test_a_field_that_says_how_transfers_are_carried_out_is_refused_where_it_would_have_no_effect(
    conf: dict[str, Any], words: str
) -> None:
    """Else what was meant as a dry run, or as a part, is carried out as a whole."""
    with pytest.raises(ConfError) as caught:
        events_of({**UNTOUCHED, **conf})
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("conf", [REDRIVE, {"execute_plan": "m", "reason": "r", "requested_by": "u"}])
def test_a_form_with_its_defaults_goes_with_an_order(conf: dict[str, Any]) -> None:
    assert manual_events({**UNTOUCHED, **conf}, run_id="r", at_ms=AT, by="admin") == []
    assert len(events_of({**UNTOUCHED, **REDRIVE, **THREE, "course_ids": ["c"], "reason": "r"})) == 1


def test_blanks_around_the_ids_of_a_conf_are_taken_off() -> None:
    blank = {k: f" {v}\t" for k, v in THREE.items()}
    conf = {
        "course_ids": [" c1\n"],
        "events": [{**WHOLE, "mid": " LP.1.a "}, {**blank, "requested_by": " admin "}],
    }
    whole, form = manual_events(conf, run_id="manual__1", at_ms=AT)
    assert whole.event.mid == "LP.1.a"
    assert (form.event.from_user, form.event.to_user, form.event.organisation_id) == tuple(THREE.values())
    assert (form.options.course_ids, form.event.requested_by) == (("c1",), "admin")
    assert orders({"approve": {"mid": " LP.1.a ", "digest": "0" * 20}}).approve.mid == "LP.1.a"  # type: ignore[union-attr]  # None fails the test


def test_a_transfer_of_a_list_may_have_a_mid_of_its_own_that_another_run_gives_again() -> None:
    for run_id in ("manual__1", "manual__2"):
        conf = {"events": [{**THREE, "mid": "import:1:2"}], "dry_run": True}
        (request,) = manual_events(conf, run_id=run_id, at_ms=AT)
        assert (request.event.mid, request.options.dry_run) == ("import:1:2", True)


@pytest.mark.parametrize("mid", ["rejected:1", "message:1", "x" * 301, "a\u200bb"])
def test_a_mid_of_its_own_must_be_one(mid: str) -> None:
    with pytest.raises(ConfError, match="mid: "):
        events_of({"events": [{**THREE, "mid": mid}]})


@pytest.mark.parametrize("mid", [None, "", "  "])
def test_an_event_of_a_conf_without_a_mid_has_the_runs(mid: str | None) -> None:
    (request,) = manual_events({"events": [{**WHOLE, "mid": mid, "ets": None}]}, run_id="manual__1", at_ms=AT)
    assert (request.event.mid, request.event.ets) == ("manual:manual__1:0", None)


def test_an_event_nested_too_deeply_is_refused() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ConfError, match="nested too deeply"):
        events_of({"events": [{**WHOLE, "more": deep}]})


def test_a_mend_nested_too_deeply_is_refused() -> None:
    merge_patch: Any = {}
    for _ in range(120):
        merge_patch = {"a": merge_patch}
    with pytest.raises(ConfError, match=r"redrive: dead_letters\.merge_patch: is nested too deeply"):
        orders({"redrive": {"dead_letters": {"from_offset": 1, "to_offset": 1, "merge_patch": merge_patch}}})


def test_an_event_larger_than_one_on_the_topic_is_refused() -> None:
    with pytest.raises(ConfError, match=r"events\[0\]: the event has \d+ bytes, at most 262144 are taken"):
        events_of({"events": [{**WHOLE, "more": "x" * 300_000}]})


def test_what_is_unknown_or_wrong_is_reported_cut_and_on_one_line() -> None:
    strange = {"x" * 9000: 1, "a\x1b[31m\n": 1, **{f"name{n}": 1 for n in range(50)}}
    for read, conf in (
        (events_of, strange),
        (events_of, {"events": [{**THREE, **strange}]}),
        (orders, {"approve": strange}),
        (orders, {"redrive": {"mids": [1] * 1000}}),
        (undo_order, {"mids": ["\n"] * 1000}),
    ):
        with pytest.raises(ConfError) as caught:
            read(conf)
        assert "more" in str(caught.value)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 2000


def test_as_many_events_as_allowed_are_taken() -> None:
    assert len(events_of({"events": [THREE] * MAX_EVENTS})) == MAX_EVENTS


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "events": json_values | st.lists(st.dictionaries(st.sampled_from([*THREE, *WHOLE]), scalars), max_size=3),
            **dict.fromkeys(THREE, scalars),
        },
    )
    | st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=4), json_values, max_size=3)
)  # fmt: skip
def test_any_conf_is_events_or_a_conf_error(conf: dict[str, Any]) -> None:
    try:
        found = events_of(conf)
    except ConfError:
        return
    assert set(conf) <= set(KNOWN)
    assert all(parse_event(payload) == event for event, payload, _ in found)


def test_the_form_says_how_its_transfer_is_carried_out_and_who_asked() -> None:
    conf = {
        **THREE, "roles": ["mentored"], "statuses": [1], "course_ids": ["c1", "c1"], "dry_run": True,
        "reason": "left the school", "requested_by": "registrar",
    }  # fmt: skip
    ((event, payload, options),) = events_of(conf)
    assert options == Options(roles=("mentored",), statuses=(1,), course_ids=("c1",), dry_run=True)
    assert (event.request_reason, event.requested_by) == ("left the school", "registrar")
    assert parse_event(payload) == event


def test_whoever_started_the_run_asked_unless_the_form_says_otherwise() -> None:
    def asked(conf: dict[str, Any]) -> list[str | None]:
        return [r.event.requested_by for r in manual_events(conf, run_id="r", at_ms=AT, by="admin")]

    assert asked(THREE) == ["admin"]
    assert asked({**THREE, "requested_by": "registrar"}) == ["registrar"]


def test_all_roles_and_statuses_in_any_order_are_no_restriction() -> None:
    ((*_, options),) = events_of({**THREE, "roles": ["mentored", "created"], "statuses": [1, 0]})
    assert options.whole


def test_the_form_s_fields_hold_for_every_event_and_an_item_may_say_otherwise() -> None:
    conf = {"events": [WHOLE, THREE, {**THREE, "roles": ["created"]}], "roles": ["mentored"], "dry_run": True}
    assert [(r.options.roles, r.options.dry_run) for r in events_of(conf)] == [
        (("mentored",), True),
        (("mentored",), True),
        (("created",), True),
    ]


def test_the_dry_run_of_a_whole_event_is_an_event_of_its_own() -> None:
    ((event, payload, _),) = events_of({"events": [WHOLE], "dry_run": True})
    assert event.mid == "manual:manual__1:0"
    assert parse_event(payload) == event
    assert events_of({"events": [WHOLE]})[0].event.mid == WHOLE["mid"]


def test_options_survive_the_ledger() -> None:
    for options in (PLAIN, Options(roles=("created",), statuses=(0,), course_ids=("c",), dry_run=True)):
        assert Options.of(options.to_json()) == options
    assert PLAIN.to_json() is None


MID = {"mid": "m", "digest": "0" * 20}


def test_orders_are_read_beside_each_other() -> None:
    found = orders({"approve": MID, "redrive": {"mids": ["a"]}, "abandon": {"mids": ["b"], "reason": "r"}})
    assert found.approve == Approve(**MID)
    assert found.redrive == Redrive(mids=("a",))
    assert found.abandon == Abandon(mids=("b",), reason="r")
    assert found.execute is None


def test_an_event_that_an_order_names_twice_is_meant_once() -> None:
    """A second redrive of a skipped event would be a transfer more."""
    mids = ["b", "a", " b"]
    found = orders({"redrive": {"mids": mids}, "abandon": {"mids": mids, "reason": "r"}})
    assert found.redrive == Redrive(mids=("b", "a"))
    assert found.abandon == Abandon(mids=("b", "a"), reason="r")
    assert undo_order({"mids": mids}).undo == Undo(mids=("b", "a"))


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        pytest.param({"execute_plan": "m"}, "digest: Field required", id="a plan without its digest"),
        pytest.param({"digest": "0" * 20}, "execute_plan: Field required", id="a digest without its plan"),
        pytest.param({"execute_plan": "m", "digest": "X"}, "digest: String should match", id="no digest"),
        pytest.param({"execute_plan": "m", "digest": "0" * 20, **THREE}, "from_user: cannot be given with", id="both"),
        pytest.param({"approve": {"mid": "m"}}, "approve: digest: Field required", id="approval without digest"),
        pytest.param({"decline": {"mid": "m"}}, "decline: reason: Field required", id="refusal without a reason"),
        *(pytest.param({order: {}}, f"{order}: ", id=f"an empty {order}") for order in ORDERS),
        pytest.param({"redrive": {"states": ["failed"]}}, "states go with since", id="states without a time"),
        pytest.param({"redrive": {"mids": ["a"], "states": ["failed"]}}, "give one of", id="two ways to say which"),
        pytest.param({"redrive": {"states": ["completed"], "since": "2026-01-01"}}, "states.0", id="a final state"),
        pytest.param(
            {"redrive": {"dead_letters": {"from_offset": 2, "to_offset": 1}}}, "to_offset must not", id="a range"
        ),
        pytest.param(
            {"redrive": {"states": ["failed"], "since": "2026-01-02", "until": "2026-01-01"}},
            "redrive: message: until must be after since",
            id="an end before the begin",
        ),
        pytest.param({"redrive": {"states": ["failed"], "since": "x"}}, "redrive: since: ", id="no time"),
    ],
)  # fmt: skip
def test_an_order_out_of_form_is_refused_by_its_field(conf: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfError) as caught:
        orders(conf)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        pytest.param({}, "give one of mids, run_id", id="nothing"),
        pytest.param({"mids": ["m"], "run_id": "r"}, "give one of", id="two"),
        pytest.param({"from_user": "a"}, "go with since", id="a user without a time"),
        pytest.param({"mids": ["m"], "since": "2026-01-01T00:00:00"}, "go with since", id="a time without a user"),
        pytest.param(
            {"from_user": "a", "since": "2026-01-02T00:00:00", "until": "2026-01-02T00:00:00Z"},
            "until must be after since",
            id="an empty time",
        ),
        pytest.param({"mid": "m"}, "Unknown conf 'mid'", id="a typing error"),
        pytest.param({"mids": ["m"], "dry_run": "no"}, "dry_run: ", id="dry_run as text"),
    ],
)  # fmt: skip
def test_an_undo_out_of_form_is_refused_by_its_field(conf: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfError) as caught:
        undo_order(conf)
    assert words in str(caught.value)


def test_an_undo_is_a_dry_run_unless_it_is_told_otherwise() -> None:
    undo = undo_order({"mids": ["m"], "from_user": None, "reason": ""}).undo
    assert undo == Undo(mids=("m",), dry_run=True)
    taken = undo_order({"from_user": "a", "since": "2026-01-01T00:00:00", "dry_run": False}).undo
    assert taken == Undo(from_user="a", since="2026-01-01T00:00:00Z", dry_run=False)


def test_a_merge_patch_mends_a_message() -> None:
    # The example of RFC 7396, section 3, shortened.
    target = {"title": "Goodbye!", "author": {"givenName": "John", "familyName": "Doe"}, "tags": ["a"]}
    patch = {"title": "Hello!", "phone": "+01", "author": {"familyName": None}, "tags": ["b"]}
    assert apply_merge_patch(target, patch) == {
        "title": "Hello!", "author": {"givenName": "John"}, "tags": ["b"], "phone": "+01",
    }  # fmt: skip
    assert apply_merge_patch("text", {"a": 1}) == {"a": 1}
