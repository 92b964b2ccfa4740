"""The contract of the search index, on every search server that is supported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest
from elasticsearch import Elasticsearch
from elasticsearch.helpers import bulk

from local.platform.schema import connect_elasticsearch, create_batch_index
from ownership.domain.errors import SettingsError, Unavailable
from ownership.domain.plan import BatchId
from ownership.platform.search_index import SearchIndex


@dataclass
class Index:
    """An index of a test's own, the job's view of it, and a client to look behind it."""

    name: str
    job: SearchIndex
    client: Elasticsearch

    def put(self, batch_id: str, *, status: int = 1, **owners: object) -> None:
        """A document, searchable at once."""
        document = {
            "batchId": batch_id,
            "courseId": f"course-of-{batch_id}",
            "status": status,
            "name": "n",
            **owners,
        }
        self.client.index(index=self.name, id=batch_id, document=document, refresh=True)

    def source(self, batch_id: str) -> dict[str, object]:
        """A document as it is stored."""
        return dict(self.client.get(index=self.name, id=batch_id)["_source"])

    def found(self, *users: str) -> set[str]:
        """Ids of the live batches that the job's search shows."""
        return {batch.batch_id for _, batch in self.job.live_batches(users)}


@pytest.fixture
def index(search_server: str) -> Iterator[Index]:
    """An empty index of course batches."""
    client = connect_elasticsearch(search_server)
    name = f"course-batch-{uuid4().hex[:8]}"
    create_batch_index(client, name)
    with client:
        yield Index(name, SearchIndex(client, name), client)
        client.indices.delete(index=name)


def test_a_usable_index_passes_the_check(index: Index):
    index.job.check()


def test_an_index_that_cannot_be_searched_by_owner_is_refused(index: Index):
    other = f"plain-{uuid4().hex[:8]}"
    index.client.indices.create(index=other, mappings={"properties": {"createdBy": {"type": "keyword"}}})

    with pytest.raises(SettingsError, match=r"no sub-field 'createdBy\.raw'"):
        SearchIndex(index.client, other).check()
    with pytest.raises(SettingsError, match="no index 'nowhere'"):
        SearchIndex(index.client, "nowhere").check()
    index.client.indices.delete(index=other)


def test_only_the_owner_fields_are_written(index: Index):
    index.put("b1", createdBy="a", mentors=["a", "m"], description="by a")
    document = index.job.get(["b1", "missing"])["b1"]
    assert document.owners == ("a", ("a", "m"))

    index.job.write([(document, "b", ("b", "m"))], [])

    source = index.source("b1")
    assert (source["createdBy"], source["mentors"]) == ("b", ["b", "m"])
    assert (source["description"], source["name"]) == ("by a", "n")


def test_a_document_that_changed_meanwhile_refuses_the_write(index: Index):
    index.put("b1", createdBy="a")
    document = index.job.get(["b1"])["b1"]
    index.put("b1", createdBy="somebody else")

    index.job.write([(document, "b", ())], [])

    assert index.source("b1")["createdBy"] == "somebody else"


def test_a_missing_document_is_made_from_the_row_and_an_existing_one_is_not_replaced(index: Index):
    row = {
        "courseid": "c",
        "batchid": "b1",
        "createdby": "a",
        "mentors": ["m"],
        "status": 1,
        "name": "from row",
    }
    index.job.write([], [row])
    assert index.source("b1")["name"] == "from row"
    assert index.source("b1")["identifier"] == "b1"

    index.job.write([], [{**row, "name": "again"}])

    assert index.source("b1")["name"] == "from row"
    index.job.delete_created("b1")
    index.job.delete_created("b1")
    assert index.job.get(["b1"]) == {}


def test_a_search_finds_creators_and_mentors_of_live_batches_whatever_their_case(index: Index):
    index.put("created", createdBy="User-A")
    index.put("mentored", createdBy="x", mentors=["m", "USER-a"])
    index.put("completed", createdBy="User-A", status=2)
    index.put("text only", createdBy="x", description="User-A")

    assert index.found("user-a") == {"created", "mentored"}
    hits = {batch: users for users, batch in index.job.live_batches(["User-A"])}
    assert hits[BatchId("course-of-mentored", "mentored")] == {"x", "m", "user-a"}


def test_a_search_shows_more_than_ten_thousand_batches(index: Index):
    actions = (
        {
            "_index": index.name,
            "_id": f"b{n}",
            "batchId": f"b{n}",
            "courseId": "c",
            "status": 1,
            "createdBy": "a",
        }
        for n in range(10_050)
    )
    bulk(index.client, actions, chunk_size=5000, refresh=True)

    assert len(index.found("a")) == 10_050
    assert len(list(index.job.live_batches(["a"]))) == 10_050


def test_what_was_written_is_found_after_a_refresh(index: Index):
    index.put("b1", createdBy="a")
    index.job.write([(index.job.get(["b1"])["b1"], "b", ())], [])

    index.job.refresh()

    assert index.found("a") == set()
    assert index.found("b") == {"b1"}


def test_an_index_that_takes_no_writes_is_unavailable_not_ignored(index: Index):
    index.put("b1", createdBy="a")
    document = index.job.get(["b1"])["b1"]
    index.client.indices.put_settings(
        index=index.name, settings={"index.blocks.read_only_allow_delete": True}
    )

    with pytest.raises(Unavailable, match="cluster_block_exception"):
        index.job.write([(document, "b", ())], [])

    assert index.source("b1")["createdBy"] == "a"
