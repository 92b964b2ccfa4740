from __future__ import annotations

import json
from typing import Any

import pytest
from cassandra.cqltypes import UTF8Type
from cassandra.util import OrderedMapSerializedKey

from ownership.platform.search_index import document_of

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


def test_a_document_has_the_fields_that_the_lms_writes() -> None:
    assert document_of(ROW) == {
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
    assert document_of({**ROW, "start_date": object(), "oldstartdate": "x"}) == document_of(ROW)


@pytest.mark.parametrize("value", [None, ...], ids=["null", "no column"])
@pytest.mark.parametrize("column", sorted(set(ROW) - {"courseid", "batchid"}))
def test_a_null_or_missing_column_gives_no_field(column: str, value: Any) -> None:
    row = {k: v for k, v in ROW.items() if k != column} | ({} if value is ... else {column: value})
    document = document_of(row)
    assert None not in document.values()
    assert len(document) == len(document_of(ROW)) - (ROW[column] is not None)


def test_upcoming_is_a_status_and_not_nothing() -> None:
    assert document_of({**ROW, "status": 0})["status"] == 0


def test_the_drivers_collections_become_plain_json() -> None:
    inner = OrderedMapSerializedKey(UTF8Type, 4)
    inner._insert("name", "cert")
    outer = OrderedMapSerializedKey(UTF8Type, 4)
    outer._insert("template_1", inner)
    document = document_of({**ROW, "cert_templates": outer, "mentors": ("M",), "createdfor": ["o"]})
    assert document["cert_templates"] == {"template_1": {"name": "cert"}}
    assert (document["mentors"], document["createdFor"]) == (["M"], ["o"])
    assert json.loads(json.dumps(document)) == document
