from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownership.conf import KNOWN, MOST_EVENTS, ConfError, manual_events
from ownership.events import TransferEvent, manual_event, parse_event
from tests.unit.test_events import json_values

AT = 1_767_225_601_000
THREE = {"from_user": "A", "to_user": "B", "organisation_id": "O"}
WHOLE = manual_event(mid="LP.1.a", ets=AT - 5000, from_user="C", to_user="D", organisation_id="O")


scalars = st.none() | st.integers() | st.text(max_size=4) | st.just({"userId": "A"})


def events_of(conf: dict[str, Any]) -> list[tuple[TransferEvent, bytes]]:
    return manual_events(conf, run_id="manual__1", at_ms=AT)


def test_the_form_names_one_event() -> None:
    ((event, payload),) = events_of({**THREE, "events": []})
    assert (event.from_user, event.to_user, event.organisation_id) == ("A", "B", "O")
    assert (event.mid, event.ets) == ("manual:manual__1:0", AT)
    assert parse_event(payload) == event


def test_an_untouched_form_names_no_event() -> None:
    assert events_of({}) == []
    assert events_of({**dict.fromkeys(THREE), "events": []}) == []
    assert events_of({**dict.fromkeys(THREE, ""), "events": None}) == []


def test_events_and_the_form_go_together_in_order() -> None:
    found = events_of({"events": [WHOLE, {**THREE, "to_user": "E"}], **THREE})
    assert [(e.mid, e.from_user, e.to_user) for e, _ in found] == [
        ("LP.1.a", "C", "D"),
        ("manual:manual__1:1", "A", "E"),
        ("manual:manual__1:2", "A", "B"),
    ]


def test_every_try_of_a_run_names_the_same_events() -> None:
    conf = {"events": [THREE, {k: v for k, v in WHOLE.items() if k not in ("mid", "ets")}]}
    assert events_of(conf) == events_of(json.loads(json.dumps(conf)))
    assert [e.mid for e, _ in events_of(conf)] == ["manual:manual__1:0", "manual:manual__1:1"]


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        pytest.param({"form_user": "A"}, ["'form_user'", "from_user, to_user"], id="a typing error"),
        pytest.param({"from_user": "A"}, ["to_user is missing", "organisation_id is missing"], id="half a form"),
        pytest.param({**THREE, "to_user": 7}, ["toUserProfile.userId"], id="an id that is a number"),
        pytest.param({**THREE, "to_user": " B"}, ["toUserProfile.userId", "white space"], id="a blank"),
        pytest.param({**THREE, "to_user": "B" * 257}, ["toUserProfile.userId"], id="an id too long"),
        pytest.param({"events": WHOLE}, ["must be a list"], id="an object for a list"),
        pytest.param({"events": "A"}, ["must be a list"], id="text for a list"),
        pytest.param({"events": 3}, ["must be a list"], id="a number for a list"),
        pytest.param({"events": [THREE, 3]}, ["events[1]", "must be an object, is int"], id="no object"),
        pytest.param({"events": [{**THREE, "x": 1}]}, ["events[0]", "'x' is unknown"], id="an unknown field"),
        pytest.param({"events": [{}]}, ["from_user is missing"], id="an empty object"),
        pytest.param({"events": [{**WHOLE, "eid": "X"}]}, ["events[0]", "eid"], id="another eid"),
        pytest.param({"events": [{**WHOLE, "ets": None}]}, ["events[0]", "ets"], id="ets null"),
        pytest.param({"events": [WHOLE, WHOLE]}, ["'LP.1.a'", "more than once"], id="the same mid twice"),
        pytest.param({"events": [THREE] * (MOST_EVENTS + 1)}, ["1001", "at most 1000"], id="too many"),
    ],
)  # fmt: skip
def test_a_conf_that_cannot_be_carried_out_is_refused_with_the_reason(
    conf: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfError) as caught:
        events_of(conf)
    for word in words:
        assert word in str(caught.value)


def test_an_event_nested_too_deeply_is_refused() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ConfError, match="nested too deeply"):
        events_of({"events": [{**WHOLE, "more": deep}]})


def test_as_many_events_as_allowed_are_taken() -> None:
    assert len(events_of({"events": [THREE] * MOST_EVENTS})) == MOST_EVENTS


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
    assert all(parse_event(payload) == event for event, payload in found)
