"""The stand-in of the search index does what the server does with the job's calls."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from ownership.domain.plan import BatchId
from ownership.platform.search_index import SearchIndex
from simulation.choosers import Plain
from simulation.scheduler import Scheduler
from simulation.stores.index import Index


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Index:
    found = Index(Scheduler(Plain(), start_ms=0))
    monkeypatch.setattr("ownership.platform.search_index.streaming_bulk", found.streaming_bulk)
    return found


def put(index: Index, batch: str, creator: str) -> None:
    index.put(batch, {"batchId": batch, "courseId": "k", "createdBy": creator, "mentors": ["M"], "status": 1})


def search(index: Index) -> SearchIndex:
    return SearchIndex(lambda: index, "course-batch", zone=ZoneInfo("UTC"))  # type: ignore[arg-type, return-value]  # a client of its own


def test_a_search_shows_what_the_last_refresh_has(index: Index) -> None:
    job = search(index)
    put(index, "b", "A")
    assert list(job.live_batches({"a"})) == []
    job.refresh()
    assert [h.batch for h in job.live_batches({"a"})] == [BatchId("k", "b")]
    assert [h.batch for h in job.live_batches({"m"})] == [BatchId("k", "b")]


def test_a_document_that_was_written_since_refuses_the_write(index: Index) -> None:
    job = search(index)
    put(index, "b", "A")
    job.refresh()
    (document,) = job.get(["b"])["b"]
    put(index, "b", "X")
    written = job.write([(document, "B", ())], [])
    assert (written.versions, written.refused) == ({}, [])
    assert index.documents["b"].source["createdBy"] == "X"


def test_a_write_makes_a_version_that_every_read_can_recognise(index: Index) -> None:
    job = search(index)
    put(index, "b", "A")
    job.refresh()
    written = job.write([(job.get(["b"])["b"][0], "B", ("c",))], [])
    assert job.unchanged(written.versions) == set()
    job.refresh()
    assert job.unchanged(written.versions) == {"b"}
    assert job.get(["b"])["b"][0].owners == ("B", ("c",))


def test_a_missing_document_is_created_once(index: Index) -> None:
    job = search(index)
    row = {"courseid": "k", "batchid": "b", "createdby": "a", "mentors": None, "status": 1, "name": "n"}
    assert job.write([], [row]).versions.keys() == {"b"}
    assert job.write([], [row]).versions == {}
    assert index.documents["b"].source["createdBy"] == "a"
