from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import re
import zlib
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownership.domain.decoding import MAX_EVENT_BYTES, MAX_LEVELS, same_payload
from ownership.domain.errors import Poison
from ownership.domain.event import (
    OrderKey,
    Transfer,
    folded,
    follow_ups,
    legible,
    manual_event,
    parse_event,
    unnamed_mid,
)
from ownership.domain.event_times import MAX_CLOCK_DRIFT_MS, none_ahead, order_time

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


GOOD = raw(event())
ODD_TIMES: tuple[Any, ...] = (
    None, "", "soon", True, False, 0, -1, 7, [], {}, 10**30, "9" * 9999, "NaN", "Infinity",
)  # fmt: skip


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
        pytest.param(raw(event()) * 2, "not JSON", id="two events"),
        pytest.param(b"\xef\xbb\xbf" * 2 + raw(event()), "not JSON", id="two byte order marks"),
        pytest.param(b" \n", "not JSON", id="blanks alone"),
        pytest.param(b"\xfe{}", "not UTF-8", id="not UTF-8"),
        pytest.param(raw(event()).replace(b'"A"', b'"\xc3"'), "not UTF-8", id="an id that is not UTF-8"),
        pytest.param(b"[1]", "a JSON array of 1, not an object", id="a list"),
        pytest.param(b"null", "a JSON null", id="null"),
        pytest.param(b'"text"', "a JSON text", id="a string"),
        pytest.param(b"{}", "eid: Field required", id="an empty object"),
        pytest.param(b" " * (MAX_EVENT_BYTES + 1), "at most 262144", id="too large"),
        pytest.param(b"x" * 1024 * 1024, "1048576 bytes", id="1 MiB"),
        pytest.param(b"[" * 10_000, "nested too deeply", id="nested 10,000 deep"),
        pytest.param(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested too deeply", id="closed, 10,000 deep"),
        pytest.param(raw(event(eid="BE_JOB")), "eid: Input should be 'BE_JOB_REQUEST'", id="another eid"),
        pytest.param(raw(event(edata__action="delete")), "edata.action", id="another action"),
        pytest.param(raw(event(mid=...)), "mid: Field required", id="no mid"),
        pytest.param(raw(event(mid="")), "mid", id="an empty mid"),
        pytest.param(raw(event(mid=7)), "mid: Input should be a valid string", id="a mid that is a number"),
        pytest.param(raw(event(mid="m" * 301)), "mid", id="a mid of 301 characters"),
        pytest.param(raw(event(mid="LP\n1")), "mid: ", id="a mid with a line feed"),
        pytest.param(raw(event(mid="LP.\ud800")), "mid: ", id="a mid with half a surrogate"),
        pytest.param(raw(event(edata=...)), "edata: Field required", id="no edata"),
        pytest.param(raw(event(edata=[])), "edata", id="edata a list"),
        pytest.param(raw(event(edata__organisationId=...)), "edata.organisationId: Field required", id="no organisation"),
        pytest.param(raw(event(edata__fromUserProfile=...)), "edata.fromUserProfile: Field required", id="no old user"),
        pytest.param(
            raw(event(edata__fromUserProfile=None, edata__fromUserId="a")), "edata.fromUserProfile: ", id="the old flat form"
        ),
        pytest.param(raw(event(edata__fromUserProfile={"userId": 1})), "fromUserProfile.userId: ", id="an id that is a number"),
        pytest.param(raw(event(edata__toUserProfile={"userId": None})), "toUserProfile.userId: ", id="an id that is null"),
        pytest.param(raw(event(edata__organisationId=None)), "edata.organisationId", id="organisation null"),
        pytest.param(raw(event(edata__fromUserProfile="A")), "edata.fromUserProfile", id="a profile that is text"),
        pytest.param(
            raw(event(edata__fromUserProfile={"userId": ["A"]})), "fromUserProfile.userId", id="an id in a list"
        ),
        pytest.param(raw(event(edata__toUserProfile={})), "toUserProfile.userId: Field", id="no new user"),
        pytest.param(raw(event(edata__toUserProfile={"userId": "a\x00b"})), "U+0000, a control character", id="NUL in an id"),
        pytest.param(raw(event(edata__toUserProfile={"userId": "a\nb"})), "U+000A, a control character", id="a line feed"),
        pytest.param(
            raw(event(edata__toUserProfile={"userId": "\ud83d"})), "U+D83D, half a surrogate pair", id="half a surrogate"
        ),
        pytest.param(raw(event(edata__toUserProfile={"userId": " \t"})), "toUserProfile.userId: ", id="an id of blanks"),
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
        parse_event(raw(event(eid="secret", mid=..., edata__toUserProfile={"userId": 77001})))
    for field in ("eid", "mid", "edata.toUserProfile.userId"):
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
    ets=st.integers(10**11, 10**14 - 1),
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
    ("message", "what"),
    [
        pytest.param(
            b"\x00\x00\x00\x00\x11" + GOOD, "framed by a schema registry's serializer", id="JSON Schema"
        ),
        pytest.param(b"\x00\x00\x00\x00\x11\x02\x08abc", "framed by a schema registry's", id="Avro"),
        pytest.param(b"\x01" + bytes(16) + GOOD, "framed by a schema registry's", id="a schema's GUID"),
        pytest.param(b"\x03\x00" + bytes(16) + GOOD, "framed by a schema registry's", id="Glue"),
        pytest.param(gzip.compress(GOOD), "compressed with gzip", id="gzip"),
        pytest.param(zlib.compress(GOOD), "compressed with zlib", id="zlib"),
        pytest.param(bz2.compress(GOOD), "compressed with bzip2", id="bzip2"),
        pytest.param(lzma.compress(GOOD), "compressed with xz", id="xz"),
        pytest.param(b"\x28\xb5\x2f\xfd" + GOOD, "compressed with zstd", id="zstd"),
        pytest.param(b"\x04\x22\x4d\x18" + GOOD, "compressed with lz4", id="lz4"),
        pytest.param(b"\xff\x06\x00\x00sNaPpY" + GOOD, "compressed with snappy", id="snappy"),
        pytest.param(b"\x82SNAPPY\x00" + GOOD, "compressed with snappy", id="snappy as Java frames it"),
        pytest.param(b"LZ4Block\x25" + GOOD, "compressed with lz4", id="lz4 as Java frames it"),
        pytest.param(b"PK\x03\x04" + GOOD, "compressed with zip", id="zip"),
        pytest.param(zlib.compress(GOOD, 3), "compressed with zlib", id="zlib, quickly"),
        pytest.param(b"Obj\x01\x04" + GOOD, "an Avro file", id="Avro"),
        pytest.param(b"\xc3\x01" + bytes(8) + GOOD, "an Avro object", id="one Avro object"),
        pytest.param(b"\x0a\x0eBE_JOB_REQUEST\x10\x01", "a Protobuf message", id="Protobuf"),
        pytest.param(b"\xd9\xd9\xf7\xa4ceid", "CBOR", id="CBOR"),
        pytest.param(b":)\n\x01" + GOOD, "Smile", id="Smile"),
        pytest.param(
            base64.b64encode(b"\xef\xbb\xbf" + GOOD), "JSON in Base64", id="Base64 of a byte order mark"
        ),
        pytest.param(
            base64.b64encode(gzip.compress(GOOD)), "compressed with gzip, in Base64", id="gzip, then Base64"
        ),
        pytest.param(quote(GOOD).encode(), "JSON, percent-encoded", id="percent-encoded"),
        pytest.param(b"<event/>", "XML or HTML", id="XML"),
        pytest.param((" \n" + GOOD.decode()).encode("utf-16-le"), "in UTF-16", id="UTF-16, a blank first"),
        pytest.param(f"[{GOOD.decode()}]".encode("utf-16-be"), "in UTF-16", id="a list in UTF-16"),
        pytest.param(
            raw(GOOD.decode()).decode().encode("utf-16-le"), "in UTF-16", id="JSON in a JSON text in UTF-16"
        ),
        pytest.param(b"\xac\xed\x00\x05t" + GOOD, "a serialized Java object", id="Java"),
        pytest.param(base64.b64encode(GOOD), "JSON in Base64", id="Base64"),
        pytest.param(GOOD.decode().encode("utf-16"), "in UTF-16", id="UTF-16"),
        pytest.param(
            GOOD.decode().encode("utf-16-be"), "in UTF-16", id="UTF-16 without its mark, big end first"
        ),
        pytest.param(
            GOOD.decode().encode("utf-16-le"), "in UTF-16", id="UTF-16 without its mark, little end first"
        ),
        pytest.param(GOOD.decode().encode("utf-32"), "in UTF-32", id="UTF-32"),
        pytest.param(GOOD.decode().encode("utf-32-be"), "in UTF-32", id="UTF-32 without its mark"),
        pytest.param(raw(GOOD.decode()), "JSON inside a JSON text", id="JSON in a JSON text"),
        pytest.param(raw([event()]), "a JSON array of 1", id="a list of one event"),
        pytest.param(raw(event(edata="{}")), "edata: is JSON inside a JSON text", id="JSON in a field"),
        pytest.param(
            raw({"schema": None, "payload": event()}), "inside its field 'payload'", id="Kafka Connect"
        ),
        pytest.param(raw({"before": None, "after": event()}), "inside its field 'after'", id="Debezium"),
        pytest.param(
            raw({"message": GOOD.decode()}), "inside its field 'message'", id="a text in an envelope"
        ),
        pytest.param(raw({"data_base64": "eyJ", "data": {}}), "inside its field 'data'", id="CloudEvents"),
        pytest.param(GOOD[:-1] + b', "mid": "LP.2"}', "the key 'mid' is there twice", id="a key twice"),
        pytest.param(
            GOOD.replace(b'{"userId": "A"}', b'{"userId": "A", "user\\u0049d": "C"}'),
            "the key 'userId' is there twice",
            id="a key twice, in two spellings",
        ),
        pytest.param(
            GOOD.replace(b"{}", b'{"a": 1, "a": 1}'), "the key 'a' is there twice", id="twice, far inside"
        ),
    ],
)
def test_a_message_that_is_packed_framed_or_ambiguous_is_named_as_what_it_is(
    message: bytes, what: str
) -> None:
    with pytest.raises(Poison) as caught:
        parse_event(message)
    assert what in str(caught.value)


def test_a_byte_order_mark_is_taken_off() -> None:
    assert parse_event(b"\xef\xbb\xbf" + GOOD) == parse_event(GOOD)


@pytest.mark.parametrize(
    "path", ["mid", "edata__organisationId", "edata__fromUserProfile", "edata__toUserProfile"]
)
@pytest.mark.parametrize("around", [" {} ", "\t{}\n", "\r\n{}", "{}\x00", "\x1f{}"])
def test_blanks_around_an_id_are_taken_off_as_java_does_it(path: str, around: str) -> None:
    given = around.format("id-1")
    read = parse_event(raw(event(**{path: {"userId": given} if path.endswith("Profile") else given})))
    assert "id-1" in (read.mid, read.organisation_id, read.from_user, read.to_user)


@pytest.mark.parametrize(
    ("hidden", "name"),
    [
        ("\u200b", "U+200B, ZERO WIDTH SPACE"),
        ("\u200d", "U+200D, ZERO WIDTH JOINER"),
        ("\ufeff", "U+FEFF, ZERO WIDTH NO-BREAK SPACE"),
        ("\u202e", "U+202E, RIGHT-TO-LEFT OVERRIDE"),
        ("\u2066", "U+2066, LEFT-TO-RIGHT ISOLATE"),
        ("\u00ad", "U+00AD, SOFT HYPHEN"),
        ("\u2060", "U+2060, WORD JOINER"),
        ("\u00a0", "U+00A0, NO-BREAK SPACE"),
        ("\u3000", "U+3000, IDEOGRAPHIC SPACE"),
        ("\u2028", "U+2028, LINE SEPARATOR"),
        ("\u0085", "U+0085, a control character"),
        ("\u3164", "U+3164, HANGUL FILLER"),
        ("\u2800", "U+2800, BRAILLE PATTERN BLANK"),
        ("\U0001d159", "U+1D159, MUSICAL SYMBOL NULL NOTEHEAD"),
        ("\ufe0f", "U+FE0F, VARIATION SELECTOR-16"),
        ("\u034f", "U+034F, COMBINING GRAPHEME JOINER"),
        ("\U000e0041", "U+E0041, TAG LATIN CAPITAL LETTER A"),
        ("\ud83d", "U+D83D, half a surrogate pair"),
    ],
)
@pytest.mark.parametrize(
    "path", ["mid", "edata__organisationId", "edata__fromUserProfile", "edata__toUserProfile"]
)
@pytest.mark.parametrize("at", ["{}id", "i{}d", "id{}"])
def test_a_character_that_nobody_sees_in_an_id_is_rejected_and_named(
    hidden: str, name: str, path: str, at: str
) -> None:
    given = at.format(hidden)
    with pytest.raises(Poison, match=re.escape(f"contains {name}")):
        parse_event(raw(event(**{path: {"userId": given} if path.endswith("Profile") else given})))


@pytest.mark.parametrize(
    ("ets", "ms"),
    [
        pytest.param(1_767_225_601_000, 1_767_225_601_000, id="ms"),
        pytest.param(1.7672256e12, 1_767_225_600_000, id="ms as a number with an exponent"),
        pytest.param(1_767_225_601_000.75, 1_767_225_601_000, id="ms with a fraction"),
        pytest.param("1767225601000", 1_767_225_601_000, id="text"),
        pytest.param(" 1.7672256E12 ", 1_767_225_600_000, id="text with an exponent"),
        pytest.param(1_767_225_601, 1_767_225_601_000, id="seconds"),
        pytest.param(1_767_225_601.5, 1_767_225_601_500, id="seconds with a fraction"),
        pytest.param("1767225601", 1_767_225_601_000, id="seconds as text"),
        pytest.param(1_767_225_601_000_999, 1_767_225_601_000, id="microseconds"),
        pytest.param(1_767_225_601_000_999_999, 1_767_225_601_000, id="nanoseconds"),
        pytest.param(..., None, id="absent"),
        *(pytest.param(odd, None, id=f"{odd!r}"[:20]) for odd in ODD_TIMES),
    ],
)
def test_a_time_only_orders_and_never_rejects(ets: Any, ms: int | None) -> None:
    assert parse_event(raw(event(ets=ets))).ets == ms


@pytest.mark.parametrize("ets", [b"NaN", b"Infinity", b"-Infinity", b"9" * 5000, b"1e999", b"-0.0"])
def test_a_number_that_is_no_time_does_not_reject(ets: bytes) -> None:
    assert parse_event(GOOD.replace(b"1767225601000", ets)).ets is None


@pytest.mark.parametrize("mid", [..., None, "", " \t"])
def test_a_message_without_a_mid_is_named_by_its_place(mid: Any) -> None:
    name = unnamed_mid("topic", 1, 42, "0123456789abcdef")
    assert name == "message:topic:1:42:01234567"
    assert parse_event(raw(event(mid=mid)), unnamed=name).mid == name
    assert parse_event(GOOD, unnamed=name).mid == "LP.1.a"
    assert len(unnamed_mid("t" * 249, 2**31 - 1, 2**63 - 1, "0" * 32)) <= 300


def test_a_mid_is_read_beside_a_number_of_any_length() -> None:
    message = b'{"mid": "m", "ets": ' + b"9" * 5000 + b"}"
    assert legible(message).mid == "m"


@pytest.mark.parametrize(
    ("context", "request_id"),
    [
        pytest.param({"cdata": {"id": "r-1", "type": "Request"}}, "r-1", id="as the producer sends it"),
        pytest.param(
            {"cdata": [{"id": "u", "type": "User"}, {"id": " r-1 ", "type": "Request"}]}, "r-1", id="a list"
        ),
        pytest.param({"cdata": {"id": "r-1", "type": "User"}}, None, id="another type"),
        pytest.param({"cdata": {"id": "x" * 256, "type": "Request"}}, "x" * 256, id="the longest"),
        pytest.param({"cdata": {"id": "x" * 257, "type": "Request"}}, None, id="too long to be an id"),
        pytest.param({"cdata": {"id": "r\u200b", "type": "Request"}}, None, id="with something invisible"),
        pytest.param({"cdata": {"id": " ", "type": "Request"}}, None, id="blank"),
        pytest.param({"cdata": {"id": 7, "type": "Request"}}, None, id="a number"),
        pytest.param({"cdata": ["Request", None, {}]}, None, id="a list of anything"),
        pytest.param({"cdata": {"type": ["Request"]}}, None, id="a list as type"),
        pytest.param({}, None, id="no cdata"),
        pytest.param("r-1", None, id="a text"),
        pytest.param(None, None, id="null"),
    ],
)
def test_the_request_is_read_where_it_can_be_and_rejects_nothing(
    context: Any, request_id: str | None
) -> None:
    assert parse_event(raw(event(context=context))).request_id == request_id
    assert legible(raw({"mid": "m", "context": context})) == ("m", request_id)


@pytest.mark.parametrize("mid", ["message:topic:1:42:01234567", " message:x", "rejected:topic:1:42"])
def test_no_mid_of_a_producer_is_one_that_the_job_gives(mid: str) -> None:
    with pytest.raises(Poison, match=r"^mid: begins with '(message|rejected):'"):
        parse_event(raw(event(mid=mid)), unnamed="message:topic:1:42:01234567")


def test_no_mid_of_a_producer_is_one_of_a_follow_up() -> None:
    first, *_, last = follow_ups("LP.1")
    for mid in (first, f" {last} "):
        with pytest.raises(Poison, match=r"^mid: ends with ':follow-up:' and a number"):
            parse_event(raw(event(mid=mid)))
    for mid in ("LP.1+", "LP.1:follow-up:", ":follow-up:1", "LP.1:follow-up:5", "LP.1:follow-up:1x"):
        assert parse_event(raw(event(mid=mid))).mid == mid


def test_follow_ups_are_numbered_on_and_each_comes_behind_what_it_follows() -> None:
    mids = ["LP.1:follow-up:1", "LP.1:follow-up:2", "LP.1:follow-up:3", "LP.1:follow-up:4"]
    assert follow_ups("LP.1") == mids
    assert [follow_ups(mid) for mid in mids] == [mids[1:], mids[2:], mids[3:], []]
    keys = [OrderKey(1, 0, 0, mid) for mid in ("LP.1", *mids)]
    assert sorted(keys) == keys


def test_half_a_surrogate_pair_in_words_for_people_is_replaced() -> None:
    read = parse_event(
        raw(event(edata__context="left \ud83d today", edata__actionBy={"userId": "ad\udc00min"}))
    )
    assert (read.request_reason, read.requested_by) == ("left \ufffd today", "ad\ufffdmin")


@pytest.mark.parametrize(
    ("given", "asset"),
    [
        pytest.param(..., None, id="absent"),
        pytest.param(None, None, id="null"),
        pytest.param({}, None, id="empty"),
        pytest.param({"objectType": "Course Batch", "identifier": " b1 "}, "b1", id="a batch"),
        pytest.param(
            {"objectType": " course batch", "identifier": "b1", "name": ["x"]}, "b1", id="another case"
        ),
        pytest.param({"objectType": "CourseBatch", "identifier": "b1"}, "b1", id="one word, as in telemetry"),
        pytest.param({"objectType": "course_batch", "identifier": "b1"}, "b1", id="as the table is named"),
    ],
)
def test_the_asset_of_an_event_is_a_batch_or_nothing(given: Any, asset: str | None) -> None:
    read = parse_event(raw(event(edata__assetInformation=given))).asset()
    assert (read[1] if read else None) == asset


@pytest.mark.parametrize(
    "given", [{"objectType": "Content", "identifier": "do_1"}, {"objectType": "Content\n"}]
)
def test_an_asset_of_another_kind_is_reported_by_its_kind(given: Any) -> None:
    assert parse_event(raw(event(edata__assetInformation=given))).asset() == ("Content", None)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], ": must be an object, is a JSON array"),
        ([{"objectType": "Course Batch", "identifier": "b"}], ": must be an object, is a JSON array"),
        (7, ": must be an object, is a JSON number"),
        (False, ": must be an object, is a JSON boolean"),
        ("", ": must be an object, is a JSON text"),
        ('{"objectType": "Course Batch"}', ": is JSON inside a JSON text"),
        ({"identifier": "b"}, ".objectType: Field required"),
        ({"objectType": "", "identifier": "b"}, ".objectType: String should have"),
        ({"objectType": ["Course Batch"], "identifier": "b"}, ".objectType: Input should be a valid string"),
        ({"objectType": "Course Batch"}, ".identifier: Field required"),
        ({"objectType": "Course Batch", "identifier": None}, ".identifier: Input should be a valid string"),
        ({"objectType": "Course Batch", "identifier": 7}, ".identifier: Input should be a valid string"),
        ({"objectType": "Course Batch", "identifier": ["b"]}, ".identifier: Input should be a valid string"),
        ({"objectType": "Course Batch", "identifier": " "}, ".identifier: String should have"),
        ({"objectType": "Course Batch", "identifier": "b\u200b"}, ".identifier: contains U+200B"),
    ],
)
def test_an_asset_that_cannot_be_read_has_a_named_reason(given: Any, why: str) -> None:
    read = parse_event(raw(event(edata__assetInformation=given)))
    with pytest.raises(Poison) as caught:
        read.asset()
    assert str(caught.value).startswith(f"edata.assetInformation{why}")


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
    assert order_time(None, broker) == broker


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(b'{"a":1,"b":2}', b'{ "b": 2, "a": 1 }', True, id="spacing and key order"),
        pytest.param(b'{"a":1}', b'{"a":2}', False, id="another value"),
        pytest.param(b"\xff", b"\xff", True, id="the same bytes that are no JSON"),
        pytest.param(b"\xff", b"{}", False, id="no JSON against JSON"),
        pytest.param(b"[" * 10_000, b"[" * 9_999, False, id="nested too deeply"),
        pytest.param(b'{"a":"\xc3\xa9"}', rb'{"a":"\u00e9"}', True, id="escaped and not"),
        pytest.param(
            b'{"a":' + b"9" * 5000 + b"}", b'{"a": ' + b"9" * 5000 + b"}", True, id="a number of any length"
        ),
    ],
)
def test_payloads_are_the_same_when_their_values_are(one: bytes, other: bytes, same: bool) -> None:
    assert same_payload(one, other) is same


CLOCK = 1_767_225_601_000
MINUTES = 60_000


@pytest.mark.parametrize(
    ("times", "bounded"),
    [
        pytest.param([(0, -5), (1, 0)], [-5, 0], id="none is ahead"),
        pytest.param([(0, 50 * MINUTES)], [0], id="one is the clock's"),
        pytest.param([(0, 50 * MINUTES), (0, -200)], [-200, -200], id="before the next one of its partition"),
        pytest.param([(0, 50 * MINUTES), (1, -200)], [0, -200], id="another partition says nothing"),
        pytest.param([(0, -200), (0, 50 * MINUTES)], [-200, 0], id="after the one before it"),
        pytest.param([(0, 150), (1, 20)], [0, -1], id="clocks that are a bit ahead keep their order"),
        pytest.param([(0, 7), (0, 8), (0, -3)], [-3, -3, -3], id="several before a right one"),
        pytest.param([(0, 7), (0, -6 * MINUTES)], [0, -6 * MINUTES], id="a message of long ago is no bound"),
    ],
)
def test_no_time_is_beyond_the_acceptors_clock(times: list[tuple[int, int]], bounded: list[int]) -> None:
    given = [(partition, CLOCK + t) for partition, t in times]
    assert none_ahead(given, CLOCK) == [CLOCK + t for t in bounded]
