"""What a document says of its batch, and a document made from a row."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cassandra.cqltypes import UTF8Type
from cassandra.util import Date, OrderedMapSerializedKey
from hypothesis import given
from hypothesis import strategies as st

from ownership.platform.search_documents import COLUMNS, batch_named, document_from, row_key, users_named

INDIA = ZoneInfo("Asia/Kolkata")
ROW: dict[str, Any] = {
    "courseid": "do_1",
    "batchid": "01",
    "name": "Batch of A",
    "description": "moved by A",
    "createdby": "A",
    "createddate": "2026-01-01 10:00:00:000+0000",
    "createdfor": ["org"],
    "mentors": ["M", "N"],
    "enrollmenttype": "open",
    "status": 1,
    "startdate": "2026-01-02",
    "enddate": "2026-02-02",
    "enrollmentenddate": "2026-01-20",
    "updateddate": None,
    "cert_templates": None,
}
"""A row of an old installation."""
DATES = ("createdDate", "updatedDate", "startDate", "endDate", "enrollmentEndDate")


def ms(text: str) -> int:
    """Of an ISO 8601 time, as the row store holds it."""
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def made(**columns: Any) -> dict[str, Any]:
    """The document of the row with these columns."""
    return document_from({**ROW, **columns}, INDIA)


def driver_map(values: dict[str, Any]) -> OrderedMapSerializedKey:
    """A map as the driver reads one."""
    found = OrderedMapSerializedKey(UTF8Type, 4)
    for key, value in values.items():
        found._insert(key, value)
    return found


def template(**fields: str | None) -> dict[str, Any]:
    """The document's template, of one in a row."""
    templates = driver_map({"template_1": driver_map(fields)})
    document = made(cert_templates=templates)
    json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    found: dict[str, Any] = document["cert_templates"]["template_1"]
    return found


def test_a_document_has_the_fields_that_the_lms_writes() -> None:
    assert made() == {
        "courseId": "do_1",
        "batchId": "01",
        "id": "01",
        "identifier": "01",
        "name": "Batch of A",
        "description": "moved by A",
        "createdBy": "A",
        "createdDate": "2026-01-01 10:00:00:000+0000",
        "createdFor": ["org"],
        "mentors": ["M", "N"],
        "enrollmentType": "open",
        "status": 1,
        "startDate": "2026-01-02",
        "endDate": "2026-02-02",
        "enrollmentEndDate": "2026-01-20",
    }


def test_columns_that_the_job_does_not_know_stay_out() -> None:
    assert made(oldstartdate="x", other=object()) == made()
    assert "oldstartdate" not in COLUMNS


@pytest.mark.parametrize("value", [None, ...], ids=["null", "no column"])
@pytest.mark.parametrize("column", sorted(set(ROW) - {"courseid", "batchid"}))
def test_a_null_or_missing_column_gives_no_field(column: str, value: Any) -> None:
    row = {k: v for k, v in ROW.items() if k != column} | ({} if value is ... else {column: value})
    document = document_from(row, INDIA)
    assert None not in document.values()
    assert len(document) == len(made()) - (ROW[column] is not None)


def test_upcoming_is_a_status_and_not_nothing() -> None:
    assert made(status=0)["status"] == 0


def test_the_drivers_collections_become_plain_json() -> None:
    document = made(
        cert_templates=driver_map({"template_1": driver_map({"name": "cert"})}),
        mentors=("M",),
        createdfor=["o"],
    )
    assert document["cert_templates"] == {"template_1": {"name": "cert"}}
    assert (document["mentors"], document["createdFor"]) == (["M"], ["o"])
    assert json.loads(json.dumps(document)) == document


# --- dates


def test_timestamps_become_dates_in_the_platforms_time_zone() -> None:
    document = made(
        created_date=ms("2026-03-31T20:00:00.007+00:00"),
        updated_date=ms("2026-04-01T00:00:00+05:30"),
        start_date=ms("2026-04-01T00:00:00+05:30"),
        end_date=ms("2026-05-01T23:59:59.999+05:30"),
        enrollment_enddate=ms("2026-04-20T23:59:59.999+05:30"),
        **dict.fromkeys(("createddate", "startdate", "enddate", "enrollmentenddate")),
    )
    assert {field: document[field] for field in DATES} == {
        "createdDate": "2026-04-01 01:30:00:007+0530",
        "updatedDate": "2026-04-01 00:00:00:000+0530",
        "startDate": "2026-04-01",
        "endDate": "2026-05-01",
        "enrollmentEndDate": "2026-04-20",
    }


def test_the_time_zone_is_the_platforms_also_in_winter_and_summer() -> None:
    row = {
        **ROW,
        "created_date": ms("2026-01-01T12:00:00+00:00"),
        "updated_date": ms("2026-07-01T12:00:00+00:00"),
    }
    document = document_from(row, ZoneInfo("America/New_York"))
    assert document["createdDate"] == "2026-01-01 07:00:00:000-0500"
    assert document["updatedDate"] == "2026-07-01 08:00:00:000-0400"


def test_a_timestamp_counts_and_not_the_old_text_beside_it() -> None:
    document = made(start_date=ms("2027-01-01T00:00:00+05:30"), end_date=None)
    assert document["startDate"] == "2027-01-01"
    assert document["endDate"] == ROW["enddate"]


@pytest.mark.parametrize("text", ["", " ", "\t"])
def test_an_empty_text_is_no_date(text: str) -> None:
    document = made(
        **dict.fromkeys(("createddate", "updateddate", "startdate", "enddate", "enrollmentenddate"), text)
    )
    assert not document.keys() & set(DATES)


@pytest.mark.parametrize("columns", [("createddate", "startdate"), ("created_date", "start_date")])
def test_a_date_is_read_whatever_the_type_of_its_column(columns: tuple[str, str]) -> None:
    none = dict.fromkeys(("createddate", "startdate"))
    at = ms("2026-04-01T00:00:00+05:30")
    document = made(**none | dict.fromkeys(columns, at))
    assert (document["createdDate"], document["startDate"]) == ("2026-04-01 00:00:00:000+0530", "2026-04-01")
    document = made(**none | dict.fromkeys(columns, Date("2026-04-01")))
    assert (document["createdDate"], document["startDate"]) == ("2026-04-01", "2026-04-01")
    document = made(**none | dict.fromkeys(columns, "1 April"))
    assert (document["createdDate"], document["startDate"]) == ("1 April", "1 April")


@pytest.mark.parametrize("beyond", [2**63 - 1, -(2**63), 1_767_225_600_000_000, 253_402_300_799_999])
def test_a_timestamp_beyond_all_years_leaves_the_text(beyond: int) -> None:
    assert made(start_date=beyond)["startDate"] == ROW["startdate"]
    assert "updatedDate" not in made(updated_date=beyond)


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_timestamp_gives_a_date_or_none(value: int) -> None:
    document = made(created_date=value, start_date=value)
    assert len(document["startDate"]) == 10
    assert len(document["createdDate"]) == 28


# --- templates


def test_json_in_a_template_is_an_object() -> None:
    assert template(
        identifier="t",
        name='{"not": "parsed"}',
        criteria='{"enrollment": {"status": 2}}',
        issuer='{"name": "é", "url": "https://issuer"}',
        signatoryList='[{"id": "s", "image": null}]',
        notifyTemplate="{}",
        additionalProps='{"n": [1, 2.5, true]}',
    ) == {
        "identifier": "t",
        "name": '{"not": "parsed"}',
        "criteria": {"enrollment": {"status": 2}},
        "issuer": {"name": "é", "url": "https://issuer"},
        "signatoryList": [{"id": "s", "image": None}],
        "notifyTemplate": {},
        "additionalProps": {"n": [1, 2.5, True]},
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "criteria",
        "null",
        "7",
        '"text"',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:20],
)
@pytest.mark.parametrize(
    "field", ["criteria", "issuer", "signatoryList", "notifyTemplate", "additionalProps"]
)
def test_what_is_no_json_object_stays_text(field: str, text: str) -> None:
    assert template(**{field: text, "issuer" if field != "issuer" else "criteria": "{}"})[field] == text


def test_a_field_of_a_template_may_be_null() -> None:
    assert template(criteria=None, name=None) == {"criteria": None, "name": None}


# --- what a document says


@pytest.mark.parametrize(
    ("value", "key"),
    [
        pytest.param("do_1", "do_1", id="text"),
        pytest.param(17, "17", id="a number"),
        pytest.param(["do_1"], "do_1", id="a list of one text"),
        pytest.param([17], "17", id="a list of one number"),
        pytest.param(["do_1", "do_2"], "", id="a list of two"),
        pytest.param([], "", id="an empty list"),
        pytest.param([["do_1"]], "", id="a list in a list"),
        pytest.param({"id": "do_1"}, "", id="an object"),
        pytest.param(True, "", id="true"),
        pytest.param(1.5, "", id="a fraction"),
        pytest.param("do_\0", "", id="NUL, which the ledger cannot hold"),
        pytest.param(None, "", id="null"),
    ],
)
def test_batch_and_course_of_a_document_may_be_written_in_several_ways(value: Any, key: str) -> None:
    assert row_key(value) == key
    assert batch_named({"batchId": value}) == (key or None)
    assert batch_named({"batchId": value, "identifier": "other"}) == (key or "other")


@pytest.mark.parametrize(
    ("doc", "named"),
    [
        pytest.param({"createdBy": "AB", "mentors": ["Cd"]}, {"ab", "cd"}, id="both"),
        pytest.param({"createdBy": "A", "mentors": None}, {"a"}, id="mentors null"),
        pytest.param({"createdBy": "A", "mentors": "M"}, {"a", "m"}, id="one mentor, no list"),
        pytest.param({"createdBy": None, "mentors": [None, 3, "M"]}, {"m"}, id="odd mentors"),
        pytest.param({"createdBy": ["A", None], "mentors": []}, {"a"}, id="creators in a list"),
        pytest.param({"createdBy": {"id": "A"}, "mentors": {"id": "M"}}, set(), id="objects"),
        pytest.param({}, set(), id="neither"),
    ],
)
def test_a_document_names_its_owners_in_lower_case(doc: dict[str, Any], named: set[str]) -> None:
    assert users_named(doc) == named
