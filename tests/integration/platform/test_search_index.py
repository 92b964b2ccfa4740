"""The contract of the search index, on every search server that is supported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from elasticsearch import Elasticsearch
from elasticsearch.helpers import bulk

from local.platform.schema import connect_elasticsearch, create_batch_index
from ownership.domain.errors import SettingsError, Unavailable
from ownership.domain.plan import BatchId
from ownership.platform.search_dialect import SearchNode
from ownership.platform.search_index import SearchIndex

INDIA = ZoneInfo("Asia/Kolkata")


@dataclass
class Index:
    """An index of a test's own, the job's view of it, and a client to look behind it."""

    name: str
    job: SearchIndex
    client: Elasticsearch
    own: Elasticsearch
    """The job's client."""

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

    def under(self, name: str) -> SearchIndex:
        """The job's view of another index or alias of the same server."""
        return SearchIndex(lambda: self.own, name, zone=INDIA)

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
        with Elasticsearch(search_server, node_class=SearchNode) as own:
            yield Index(name, SearchIndex(lambda: own, name, zone=INDIA), client, own)
        client.indices.delete(index=name)


def test_a_usable_index_passes_the_check(index: Index):
    index.job.check()


def test_an_index_that_cannot_be_searched_by_owner_is_refused(index: Index):
    other = f"plain-{uuid4().hex[:8]}"
    index.client.indices.create(index=other, mappings={"properties": {"createdBy": {"type": "keyword"}}})

    with pytest.raises(SettingsError, match=r"no sub-field 'createdBy\.raw'"):
        index.under(other).check()
    with pytest.raises(SettingsError, match="no index 'nowhere'"):
        index.under("nowhere").check()
    index.client.indices.delete(index=other)


def test_an_alias_of_one_index_serves_and_any_other_is_refused(index: Index):
    other = f"{index.name}-2"
    create_batch_index(index.client, other)
    one, several, part = (f"{name}-{index.name}" for name in ("one", "several", "part"))
    index.client.indices.put_alias(index=index.name, name=one)
    index.client.indices.put_alias(index=f"{index.name},{other}", name=several)
    index.client.indices.put_alias(index=index.name, name=part, filter={"term": {"status": 1}})
    index.put("b1", createdBy="a")

    index.under(one).check()
    assert set(index.under(one).get(["b1"])) == {"b1"}
    with pytest.raises(SettingsError, match=f"'{several}' stands for {index.name}, {other}"):
        index.under(several).check()
    with pytest.raises(SettingsError, match=f"Alias '{part}' of index '{index.name}' has filter"):
        index.under(part).check()
    with pytest.raises(SettingsError, match=f"stands for .*{other}"):
        index.under(f"{index.name}*").check()
    with pytest.raises(SettingsError, match="stands for no index"):
        index.under("nowhere*").check()
    index.client.indices.delete(index=other)


@pytest.mark.parametrize("kept", [{"enabled": False}, {"excludes": ["description"]}, {"includes": ["name"]}])
def test_an_index_that_keeps_a_part_of_its_documents_is_refused(index: Index, kept: dict[str, object]):
    other, text = f"{index.name}-2", {"type": "text", "fields": {"raw": {"type": "keyword"}}}
    mappings = {"_source": kept, "properties": dict.fromkeys(("createdBy", "mentors"), text)}
    index.client.indices.create(index=other, mappings=mappings)

    with pytest.raises(SettingsError, match=f"Index '{other}' does not keep documents as they were written"):
        index.under(other).check()
    index.client.indices.delete(index=other)


def test_a_document_that_was_routed_to_a_shard_stays_there(index: Index):
    other = f"{index.name}-2"
    create_batch_index(index.client, other, shards=5)
    for batch in "abcd":
        document = {"batchId": batch, "status": 1, "createdBy": "old", "mentors": []}
        index.client.index(index=other, id=batch, routing="course", document=document, refresh=True)
    job = index.under(other)

    found = [document for (document,) in job.get("abcd").values()]
    written = job.write([(d, "new", ()) for d in found], [])

    assert (len(found), written.versions.keys(), written.refused) == (4, set("abcd"), [])
    job.refresh()
    assert {d.created_by for (d,) in job.get("abcd").values()} == {"new"}
    assert job.unchanged(written.versions) == set("abcd")
    assert job.count() == 4
    index.client.indices.delete(index=other)


def test_only_the_owner_fields_are_written(index: Index):
    index.put("b1", createdBy="a", mentors=["a", "m"], description="by a")
    (document,) = index.job.get(["b1", "missing"])["b1"]
    assert document.owners == ("a", ("a", "m"))

    index.job.write([(document, "b", ("b", "m"))], [])

    source = index.source("b1")
    assert (source["createdBy"], source["mentors"]) == ("b", ["b", "m"])
    assert (source["description"], source["name"]) == ("by a", "n")


def test_a_document_that_changed_meanwhile_refuses_the_write(index: Index):
    index.put("b1", createdBy="a")
    (document,) = index.job.get(["b1"])["b1"]
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
    assert index.source("b1")["createdBy"] == "a"
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
    (document,) = index.job.get(["b1"])["b1"]
    index.job.write([(document, "b", ())], [])

    index.job.refresh()

    assert index.found("a") == set()
    assert index.found("b") == {"b1"}


def test_a_document_is_unchanged_as_long_as_a_search_shows_what_was_written(index: Index):
    index.put("b1", createdBy="a")
    index.put("b2", createdBy="a")
    index.put("b3", createdBy="b", mentors=[])  # a write that changes nothing has a version as well
    documents = [d for of_batch in index.job.get(["b1", "b2", "b3"]).values() for d in of_batch]
    versions, refused = index.job.write([(d, "b", ()) for d in documents], [])
    assert (versions.keys(), refused) == ({"b1", "b2", "b3"}, [])
    assert index.job.unchanged(versions) <= {"b3"}  # no search shows the others yet

    index.job.refresh()
    assert index.job.unchanged(versions) == {"b1", "b2", "b3"}
    index.put("b2", createdBy="a")
    assert index.job.unchanged(versions) == {"b1", "b3"}
    index.client.delete(index=index.name, id="b1", refresh=True)
    assert index.job.unchanged(versions) == {"b3"}


def test_an_index_that_takes_no_writes_is_unavailable_not_ignored(index: Index):
    index.put("b1", createdBy="a")
    (document,) = index.job.get(["b1"])["b1"]
    index.client.indices.put_settings(
        index=index.name, settings={"index.blocks.read_only_allow_delete": True}
    )

    with pytest.raises(Unavailable, match="cluster_block_exception"):
        index.job.write([(document, "b", ())], [])

    assert index.source("b1")["createdBy"] == "a"


# --- documents that are as nobody expects them


def test_a_document_that_the_index_refuses_stops_no_other(index: Index):
    strict = f"{index.name}-strict"
    text = {"type": "text", "fields": {"raw": {"type": "keyword"}}}
    index.client.indices.create(
        index=strict,
        mappings={"properties": {"createdBy": text, "mentors": text, "startDate": {"type": "date"}}},
        settings={"number_of_replicas": 0},
    )
    job = index.under(strict)
    rows = [{"courseid": "c", "batchid": f"b{n}", "startdate": "2026-01-01"} for n in range(5)]
    rows[1]["startdate"] = "some day"
    rows[3]["batchid"] = "x" * 600  # of an _id of more than 512 bytes the server refuses the whole bulk

    refused = {document.document_id: document.reason for document in job.write([], rows).refused}

    assert refused.keys() == {"b1", "x" * 600}
    assert "startDate" in refused["b1"]
    assert (
        "512" in refused["x" * 600]
        or "illegal_argument" in refused["x" * 600]
        or "validation" in refused["x" * 600]
    )
    job.refresh()
    assert set(job.get([row["batchid"] for row in rows])) == {"b0", "b2", "b4"}
    index.client.indices.delete(index=strict)


def test_json_in_templates_is_an_object_of_the_document_and_other_text_stays(index: Index):
    templates = {
        "t1": {"name": "t1", "criteria": '{"enrollment": {"status": 2}}', "signatoryList": '[{"id": "s"}]'},
        "t2": {"name": "t2", "criteria": "{", "issuer": '{"a": NaN}', "notifyTemplate": '{"a": "\\ud800"}'},
    }
    written = index.job.write([], [{"courseid": "c", "batchid": "b1", "cert_templates": templates}])

    assert written.refused == []
    assert index.source("b1")["cert_templates"] == {
        "t1": {"name": "t1", "criteria": {"enrollment": {"status": 2}}, "signatoryList": [{"id": "s"}]},
        "t2": templates["t2"],
    }


def put_as(index: Index, own_id: str, **fields: object) -> None:
    document = {"courseId": "c", "status": 1, "createdBy": "a", **fields}
    index.client.index(index=index.name, id=own_id, document=document, refresh=True)


@pytest.mark.parametrize(
    ("own_id", "names", "batch_id"),
    [
        pytest.param("b1", {"id": "b1", "identifier": "b1"}, "b1", id="no batchId"),
        pytest.param("17", {"batchId": 17}, "17", id="a number"),
        pytest.param("b1", {}, "b1", id="its _id alone"),
        pytest.param("own-1", {"identifier": "B1"}, "B1", id="an _id of its own"),
        pytest.param("own-1", {"id": "b1"}, "b1", id="an _id of its own, and an id"),
        pytest.param("own-1", {"batchId": 17, "id": "x"}, "17", id="an _id of its own, and a number"),
        pytest.param("own-1", {"batchId": "", "identifier": "b1"}, "b1", id="an empty batchId"),
    ],
)
def test_an_old_document_is_found_by_what_names_its_batch(
    index: Index, own_id: str, names: dict[str, object], batch_id: str
):
    put_as(index, own_id, **names)
    assert index.found("a") == {batch_id}
    for job in (index.job, index.under(index.name)):  # a task that has searched, and one that has not
        (document,) = job.get([batch_id, "other"])[batch_id]
        assert (document.batch_id, document.document_id) == (batch_id, own_id)

    index.job.write([(document, "b", ("m",))], [])

    assert index.source(own_id) == {"courseId": "c", "status": 1, **names, "createdBy": "b", "mentors": ["m"]}
    assert index.client.count(index=index.name)["count"] == 1


def test_a_batch_may_have_a_document_under_an_id_of_its_own_beside_the_usual_one(index: Index):
    put_as(index, "own-1", identifier="b1")
    put_as(index, "b1", identifier="b1")

    fresh = index.under(index.name)
    assert [d.document_id for d in fresh.get(["b1"])["b1"]] == ["b1"]
    assert {d.document_id for d in fresh.get(["b1"], everywhere=True)["b1"]} == {"b1", "own-1"}
    assert index.found("a") == {"b1"}
    assert {d.document_id for d in index.job.get(["b1"])["b1"]} == {"b1", "own-1"}


def test_every_document_is_shown_once_by_a_walk_through_the_index(index: Index):
    put_as(index, "own-1", identifier="b1")
    actions = (
        {"_index": index.name, "_id": f"b{n}", "courseId": "c", "createdBy": n} for n in range(2, 10_050)
    )
    bulk(index.client, actions, chunk_size=5000, refresh=True)

    pages = list(index.job.documents())

    shown = [seen.batch_id for page in pages for seen in page]
    assert len(shown) == index.job.count() == 10_049
    assert set(shown) == {f"b{n}" for n in range(1, 10_050)}
    assert (
        index.client.nodes.stats(metric="indices")["nodes"].popitem()[1]["indices"]["search"][
            "scroll_current"
        ]
        == 0
    )


def test_every_batch_of_a_user_is_found_by_page_whatever_its_status(index: Index) -> None:
    for n in range(7):
        index.put(
            f"batch-{n}", status=n % 3, createdBy="A" if n < 5 else "z", mentors=["a"] if n == 6 else []
        )
    found = [index.job.owned_by("a", offset=o, limit=4) for o in (0, 4)]
    assert [f.total for f in found] == [6, 6]
    ids = [[d.batch_id for d in f.documents] for f in found]
    assert ids == [["batch-0", "batch-1", "batch-2", "batch-3"], ["batch-4", "batch-6"]]
    assert index.job.owned_by("nobody", offset=0, limit=4) == (0, [])


def test_a_batch_is_found_by_an_id_or_a_part_of_its_name_and_a_wildcard_is_a_letter(index: Index) -> None:
    index.put("Batch-1", name="Algebra for 10*", createdBy="Ada", mentors=["Bob"])
    index.put("batch-2", name="Geometry", createdBy="x", mentors=[])
    for text in ("batch-1", "course-of-batch-1", "ADA", "bob", "gebra FOR", "10*"):
        assert [d.batch_id for d in index.job.matching(text, limit=9).documents] == ["Batch-1"], text
    for text in ("batch", "1*0", "?", "\\"):
        assert index.job.matching(text, limit=9).documents == [], text
    assert index.job.matching("e", limit=1).total == 2
