from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownership.domain.errors import Poison
from ownership.domain.event import (
    MAX_CLOCK_DRIFT_MS,
    MAX_EVENT_BYTES,
    MAX_LEVELS,
    OrderKey,
    Transfer,
    folded,
    manual_event,
    order_time,
    parse_event,
    same_payload,
)

KNOWN_TOP = {"eid", "ets", "mid", "edata"}
KNOWN_EDATA = {"action", "organisationId", "fromUserProfile", "toUserProfile"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
identifiers = st.text("aZ09-_.:/%?#@ é\u4e2d\U0001f600", min_size=1, max_size=40).filter(
    lambda s: s == s.strip() and s not in (".", "..")
)


def event(**changes: Any) -> dict[str, Any]:
    """A good event, with fields at dotted paths changed, or left out where the value is `...`."""
    value = manual_event(mid="LP.1.a", ets=1_767_225_601_000, from_user="A", to_user="B", organisation_id="O")
    for path, new in changes.items():
        *parents, last = path.split("__")
        at = value
        for name in parents:
            at = at[name]
        if new is ...:
            del at[last]
        else:
            at[last] = new
    return value


def raw(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_a_transfer_compares_its_users_in_lower_case_and_spells_them_as_the_event_does() -> None:
    t = Transfer(OrderKey(1, 0, 0, "m"), "User-A", "uSER-b")
    assert (t.source, t.target) == ("user-a", "user-b")
    assert t.users == {"user-a", "user-b"}
    assert (t.from_user, t.to_user) == ("User-A", "uSER-b")
    assert Transfer(t.key, "A", "a").users == {"a"}


@given(identifiers)
def test_a_folded_id_is_folded_already(user: str) -> None:
    assert folded(folded(user)) == folded(user) == folded(user.swapcase())


@pytest.mark.parametrize(
    ("user", "compared"),
    [
        pytest.param("User-A", "user-a", id="plain letters"),
        pytest.param("İd", "id", id="one letter stays one"),
        pytest.param("ΟΔΟΣ", "οδοσ", id="a sigma is the same at the end of a word"),
        pytest.param("STRAẞE", "straße", id="a capital sharp s"),
    ],
)
def test_case_is_ignored_letter_by_letter_as_the_index_does_it(user: str, compared: str) -> None:
    assert folded(user) == compared


def test_the_producers_own_event_is_read() -> None:
    message = raw(
        {
            "eid": "BE_JOB_REQUEST",
            "ets": 1767225601000,
            "mid": "LP.1767225601000.7c3f5a52-6e0b-4f0e-9a51-000000000001",
            "actor": {"id": "ownership-transfer", "type": "System"},
            "context": {"pdata": {"id": "org.sunbird.platform", "ver": "1.0"}, "cdata": {"id": "r", "type": "Request"}},
            "object": {"id": "02c4e0dc", "type": "User"},
            "edata": {
                "action": "ownership-transfer",
                "organisationId": "0126796199493140480",
                "context": "User Deletion",
                "actionBy": {"userId": "5a587cc1", "userName": "orgadmin"},
                "fromUserProfile": {"userId": "02c4e0dc", "userName": "c", "roles": ["CONTENT_CREATOR"]},
                "toUserProfile": {"userId": "fca2925f", "userName": "d", "firstName": "N", "roles": []},
                "assetInformation": {"objectType": "Content", "identifier": "do_21", "name": "Course 0"},
                "iteration": 1,
            },
        }
    )  # fmt: skip
    read = parse_event(message)
    assert (read.from_user, read.to_user) == ("02c4e0dc", "fca2925f")
    assert read.organisation_id == "0126796199493140480"
    assert read.ets == 1767225601000


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(None, "empty", id="a tombstone"),
        pytest.param(b"", "empty", id="no bytes"),
        pytest.param(b"hello", "not JSON", id="not JSON"),
        pytest.param(raw(event())[:-1], "not JSON", id="cut off"),
        pytest.param(b"\xff\xfe{}", "not UTF-8", id="not UTF-8"),
        pytest.param(raw(event()).replace(b'"A"', b'"\xc3"'), "not UTF-8", id="an id that is not UTF-8"),
        pytest.param(b"[1]", "a JSON list", id="a list"),
        pytest.param(b"null", "a JSON NoneType", id="null"),
        pytest.param(b'"text"', "a JSON str", id="a string"),
        pytest.param(b"{}", "eid: Field required", id="an empty object"),
        pytest.param(b" " * (MAX_EVENT_BYTES + 1), "at most 262144", id="too large"),
        pytest.param(b"x" * 1024 * 1024, "1048576 bytes", id="1 MiB"),
        pytest.param(b"[" * 10_000, "nested too deeply", id="nested 10,000 deep"),
        pytest.param(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested too deeply", id="closed, 10,000 deep"),
        pytest.param(b'{"ets": ' + b"9" * 5000 + b"}", "not JSON", id="a number of 5,000 digits"),
        pytest.param(raw(event(eid="BE_JOB")), "eid: Input should be 'BE_JOB_REQUEST'", id="another eid"),
        pytest.param(raw(event(edata__action="delete")), "edata.action", id="another action"),
        pytest.param(raw(event(mid=...)), "mid: Field required", id="no mid"),
        pytest.param(raw(event(mid="")), "mid", id="an empty mid"),
        pytest.param(raw(event(mid=7)), "mid: Input should be a valid string", id="a mid that is a number"),
        pytest.param(raw(event(mid="m" * 301)), "mid", id="a mid of 301 characters"),
        pytest.param(raw(event(ets="1767225601000")), "ets", id="ets in quotes"),
        pytest.param(raw(event(ets=1.5)), "ets", id="ets with a fraction"),
        pytest.param(raw(event(ets=True)), "ets", id="ets true"),
        pytest.param(raw(event(ets=0)), "ets", id="ets zero"),
        pytest.param(raw(event(ets=2**53)), "ets", id="ets beyond what a column holds"),
        pytest.param(raw(event(edata=[])), "edata", id="edata a list"),
        pytest.param(raw(event(edata__organisationId=None)), "edata.organisationId", id="organisation null"),
        pytest.param(raw(event(edata__fromUserProfile="A")), "edata.fromUserProfile", id="a profile that is text"),
        pytest.param(
            raw(event(edata__fromUserProfile={"userId": ["A"]})), "fromUserProfile.userId", id="an id in a list"
        ),
        pytest.param(raw(event(edata__toUserProfile={})), "toUserProfile.userId: Field", id="no new user"),
        pytest.param(raw(event(edata__toUserProfile={"userId": "a\x00b"})), "control characters", id="NUL in an id"),
        pytest.param(raw(event(edata__toUserProfile={"userId": "a\nb"})), "control characters", id="a line feed"),
        pytest.param(raw(event(edata__toUserProfile={"userId": "\ud800"})), "toUserProfile", id="half a surrogate"),
        pytest.param(raw(event(edata__toUserProfile={"userId": " B"})), "white space", id="a blank before an id"),
        pytest.param(raw(event(edata__toUserProfile={"userId": ".."})), "a step in a path", id="two dots"),
        pytest.param(raw(event(edata__fromUserProfile={"userId": "."})), "a step in a path", id="one dot"),
    ],
)  # fmt: skip
def test_a_message_that_is_no_transfer_is_poison_with_its_reason(message: bytes | None, reason: str) -> None:
    with pytest.raises(Poison) as caught:
        parse_event(message)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def nested(levels: int) -> bytes:
    """A good event with objects in one another, so many with the event itself."""
    # The event, edata and the asset are three of them.
    inner = b'{"a":' * (levels - 3) + b"1" + b"}" * (levels - 3)
    return raw(event()).replace(b'"assetInformation": {}', b'"assetInformation": {"a":' + inner + b"}")


def from_deep_within(calls: int, message: bytes) -> str:
    return from_deep_within(calls - 1, message) if calls else parse_event(message).mid


@pytest.mark.parametrize("calls", [0, 400])
def test_whether_an_event_is_nested_too_deeply_does_not_depend_on_who_reads_it(calls: int) -> None:
    assert from_deep_within(calls, nested(MAX_LEVELS)) == "LP.1.a"
    with pytest.raises(Poison, match="the JSON is nested too deeply"):
        from_deep_within(calls, nested(MAX_LEVELS + 1))


def test_every_bad_field_is_named_and_no_value_is_repeated() -> None:
    with pytest.raises(Poison) as caught:
        parse_event(raw(event(ets="secret", mid=..., edata__toUserProfile={"userId": 77001})))
    for field in ("ets", "mid", "edata.toUserProfile.userId"):
        assert f"{field}: " in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "77001" not in str(caught.value)


def test_a_message_of_exactly_the_largest_size_is_read() -> None:
    good = raw(event())
    assert parse_event(good + b" " * (MAX_EVENT_BYTES - len(good))).mid == "LP.1.a"


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_poison(message: bytes) -> None:
    with pytest.raises(Poison):
        parse_event(message)


@given(json_values)
def test_any_json_is_an_event_or_poison(value: Any) -> None:
    with pytest.raises(Poison):
        parse_event(raw(value))


@given(
    st.dictionaries(st.sampled_from(sorted(KNOWN_TOP | {"actor"})), json_values),
    st.dictionaries(st.sampled_from(sorted(KNOWN_EDATA | {"iteration"})), json_values),
)
def test_an_event_with_any_field_replaced_is_an_event_or_poison(top: Any, edata: Any) -> None:
    value = event()
    value["edata"] |= edata
    try:
        read = parse_event(raw(value | top))
    except Poison:
        return
    assert read.eid == "BE_JOB_REQUEST"


@settings(max_examples=60)
@given(
    mid=identifiers,
    ets=st.integers(1, 2**53 - 1),
    people=st.tuples(identifiers, identifiers, identifiers),
    top=st.dictionaries(st.text(max_size=6), json_values, max_size=2),
    edata=st.dictionaries(st.text(max_size=6), json_values, max_size=2),
    profile=st.dictionaries(st.text(max_size=5), json_values, max_size=2),
)
def test_a_valid_envelope_is_read_whatever_else_it_carries(
    mid: str, ets: int, people: tuple[str, str, str], top: Any, edata: Any, profile: Any
) -> None:
    old, new, organisation = people
    value = manual_event(mid=mid, ets=ets, from_user=old, to_user=new, organisation_id=organisation)
    value["edata"]["fromUserProfile"] |= profile
    value["edata"] |= {k: v for k, v in edata.items() if k not in KNOWN_EDATA}
    value |= {k: v for k, v in top.items() if k not in KNOWN_TOP}
    read = parse_event(raw(value))
    assert (read.mid, read.ets) == (mid, ets)
    assert (read.from_user, read.to_user, read.organisation_id) == people


@pytest.mark.parametrize(
    ("drift", "orders"),
    [
        pytest.param(0, "producer", id="the clocks agree"),
        pytest.param(MAX_CLOCK_DRIFT_MS, "producer", id="the producer is just within the bound"),
        pytest.param(-MAX_CLOCK_DRIFT_MS, "producer", id="behind, just within the bound"),
        pytest.param(MAX_CLOCK_DRIFT_MS + 1, "broker", id="the producer is ahead"),
        pytest.param(-MAX_CLOCK_DRIFT_MS - 1, "broker", id="the producer is behind"),
    ],
)
def test_the_producers_clock_decides_the_order_unless_it_is_far_off(drift: int, orders: str) -> None:
    broker = 1_767_225_601_000
    assert order_time(broker + drift, broker) == (broker + drift if orders == "producer" else broker)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(b'{"a":1,"b":2}', b'{ "b": 2, "a": 1 }', True, id="spacing and key order"),
        pytest.param(b'{"a":1}', b'{"a":2}', False, id="another value"),
        pytest.param(b"\xff", b"\xff", True, id="the same bytes that are no JSON"),
        pytest.param(b"\xff", b"{}", False, id="no JSON against JSON"),
        pytest.param(b"[" * 10_000, b"[" * 9_999, False, id="nested too deeply"),
        pytest.param(b'{"a":"\xc3\xa9"}', rb'{"a":"\u00e9"}', True, id="escaped and not"),
    ],
)
def test_payloads_are_the_same_when_their_values_are(one: bytes, other: bytes, same: bool) -> None:
    assert same_payload(one, other) is same
