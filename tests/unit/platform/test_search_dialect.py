"""What a server may say that it is, and what the client then says to it."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

import pytest
from elastic_transport import ConnectionTimeout
from elasticsearch import Elasticsearch

from ownership.domain.errors import SettingsError, Unavailable
from ownership.platform.search_dialect import OneOfSeveral, SearchNode, Server, check, from_nodes, from_root
from ownership.platform.search_index import SearchIndex
from tests.unit.fake_index import OPENSEARCH_2, Answer, Asked, Node, Wire, answers, json_answer, refused

HEADER = {"X-Elastic-Product": "Elasticsearch"}
COUNT = json_answer({"count": 3})
FOR_SEARCH = "You Know, for Search"
OF_OPENSEARCH = "The OpenSearch Project: https://opensearch.org/"


@pytest.fixture
def node(node: type[Node]) -> type[Node]:
    answers(node, COUNT)
    return node


def root(number: str, tagline: str = FOR_SEARCH, **version: str) -> Answer:
    """An answer to `GET /`."""
    return json_answer({"name": "n", "version": {"number": number, **version}, "tagline": tagline})


def nodes(version: str, **more: str) -> Answer:
    """An answer to `GET /_nodes/_local`."""
    return json_answer({"nodes": {"n1": {"version": version, **more}}})


def with_header(answer: Answer) -> Answer:
    return answer._replace(headers=HEADER)


def hidden(node: type[Node], first: Answer, second: Answer) -> None:
    """Let the server answer so to `GET /`, and then when its nodes are asked for."""
    node.root = first

    def answer(asked: Asked) -> Answer:
        return second if asked.target == "/_nodes/_local" else COUNT

    node.answer = staticmethod(answer)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(root("7.10.2"), id="Elasticsearch 7.10.2"),
        pytest.param(root("7.13.4"), id="the last that sends no header"),
        pytest.param(with_header(root("7.17.29")), id="Elasticsearch 7.17"),
        pytest.param(with_header(root("8.19.0")), id="Elasticsearch 8"),
        pytest.param(with_header(root("9.2.2")), id="Elasticsearch 9"),
        pytest.param(with_header(root("10.0.0-SNAPSHOT")), id="one to come"),
        pytest.param(with_header(refused(405)), id="GET / not served"),
        pytest.param(with_header(refused(403, "security_exception")), id="GET / not granted"),
        pytest.param(root("2.19.3", OF_OPENSEARCH, distribution="opensearch"), id="OpenSearch 2"),
        pytest.param(root("3.3.2", OF_OPENSEARCH, distribution="opensearch"), id="OpenSearch 3"),
        pytest.param(root("7.10.2", OF_OPENSEARCH), id="OpenSearch that calls itself 7.10.2"),
    ],
)
def test_a_supported_server_is_asked_once(index: SearchIndex, node: type[Node], answer: Answer) -> None:
    node.root = answer
    assert (index.count(), index.count()) == (3, 3)
    assert [a.method for a in node.asked] == ["POST", "POST"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            root("6.8.23"),
            r"Elasticsearch 6\.8\.23 at http://index:9200 is too old: supported are Elasticsearch from 7\.10",
        ),
        (root("7.9.3"), r"Elasticsearch 7\.9\.3 .* too old"),
        (root("1.3.20", OF_OPENSEARCH, distribution="opensearch"), r"OpenSearch 1\.3\.20 .* too old"),
        (root("7.17.29"), r"Elasticsearch 7\.17\.29 .* without its header X-Elastic-Product: a proxy"),
        (root("9.2.2"), r"Elasticsearch 9\.2\.2 .* a proxy in front of it strips the header"),
        (root("1.0", "", distribution="quickwit"), r"is quickwit 1\.0: supported are"),
        (root("0.4", "A search engine"), r"is A search engine 0\.4: supported are"),
        (root("seven"), r"is Elasticsearch seven: supported are"),
    ],
)
def test_a_server_that_is_not_supported_is_named(
    index: SearchIndex, node: type[Node], answer: Answer, says: str
) -> None:
    node.root = answer
    for _ in range(2):
        with pytest.raises(SettingsError, match=says):
            index.count()
    assert node.asked == []


@pytest.mark.parametrize(
    "first", [refused(405), refused(403), refused(404), json_answer("x"), Answer(200, b"<html>")]
)
@pytest.mark.parametrize(
    "second", [nodes("7.10.2", build_flavor="oss"), nodes("2.19.3"), with_header(refused(403))]
)
def test_a_server_that_hides_what_it_is_is_known_by_its_nodes(
    index: SearchIndex, node: type[Node], first: Answer, second: Answer
) -> None:
    hidden(node, first, second)
    assert index.count() == 3


def test_a_proxy_is_named_also_where_the_server_hides_what_it_is(
    index: SearchIndex, node: type[Node]
) -> None:
    hidden(node, refused(405), nodes("9.2.2", build_flavor="default"))
    with pytest.raises(SettingsError, match=r"Elasticsearch 9\.2\.2 .* a proxy"):
        index.count()


def test_a_server_that_says_nothing_is_refused_with_what_to_grant(
    index: SearchIndex, node: type[Node]
) -> None:
    hidden(node, refused(403), refused(404))
    with pytest.raises(
        SettingsError, match=r"`GET /` answers HTTP 403, .*HTTP 404.*'elasticsearch_default'.*grant"
    ):
        index.count()


class _OneFrozen(Wire):
    """Of the hosts, `frozen` takes connections and stays silent."""

    frozen: str
    waited: list[float | None]
    """For it, in seconds."""

    def perform_request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Any = None,
        request_timeout: Any = None,
    ) -> Any:
        if self.host == self.frozen:
            self.waited.append(request_timeout)
            raise ConnectionTimeout("silent")
        return super().perform_request(method, target, body, headers, request_timeout)


def test_a_node_that_freezes_is_given_up_after_three_seconds() -> None:
    values = {"answer": staticmethod(lambda _: COUNT), "asked": [], "root": OPENSEARCH_2, "waited": []}
    node: Any = type("OwnNode", (OneOfSeveral, _OneFrozen), {**values, "frozen": "", "again_after_s": 0})
    hosts = ["http://one:9200", "http://other:9200"]
    client = Elasticsearch(hosts, node_class=node, request_timeout=20, max_retries=3, retry_on_timeout=True)
    with client:
        index = SearchIndex(lambda: client, "course-batch", zone=UTC)
        assert [index.count() for _ in range(4)] == [3] * 4
        node.frozen = "other"
        assert [index.count() for _ in range(4)] == [3] * 4
    assert node.waited == [OneOfSeveral.look_s]


def test_the_only_node_has_as_long_for_a_look_as_for_a_call() -> None:
    values = {"answer": staticmethod(lambda _: COUNT), "asked": [], "root": OPENSEARCH_2, "waited": []}
    node: Any = type("OwnNode", (SearchNode, _OneFrozen), {**values, "frozen": "one"})
    with (
        Elasticsearch("http://one:9200", node_class=node, request_timeout=20, max_retries=0) as client,
        pytest.raises(Unavailable),
    ):
        SearchIndex(lambda: client, "course-batch", zone=UTC).count()
    assert node.waited == [20]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_an_outage_is_no_verdict_about_the_server(
    index: SearchIndex, node: type[Node], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    node.root = refused(status, "busy")
    with pytest.raises(Unavailable, match=f"HTTP {status} busy"):
        index.count()
    assert node.asked == []
    node.root = root("7.10.2")
    assert index.count() == 3


def test_a_wrong_login_is_said_and_not_taken_for_another_server(index: SearchIndex, node: type[Node]) -> None:
    node.root = refused(401, "security_exception")
    with pytest.raises(SettingsError, match="refuses access"):
        index.count()


def test_plain_media_types_are_sent(index: SearchIndex, node: type[Node]) -> None:
    index.count()
    assert node.sent["accept"] == "application/json"
    answers(
        node,
        json_answer({"items": [{"create": {"_id": "b", "status": 201, "_seq_no": 1, "_primary_term": 1}}]}),
    )
    index.write([], [{"batchid": "b"}])
    assert (node.sent["accept"], node.sent["content-type"]) == ("application/json", "application/x-ndjson")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"null", b"[" * 100_000, b'{"version": "3.3"}', b'{"version": {"number": 7}}', b'{"nodes": {}}',
             b'{"nodes": {"n": {}}}', b'{"nodes": []}']
)  # fmt: skip
def test_what_is_no_answer_of_a_search_server_says_nothing(body: bytes) -> None:
    assert from_root(body) is None
    assert from_nodes(body) is None


def test_what_a_server_says_of_itself_is_reported_cut() -> None:
    long: Any = {"version": {"number": "9" * 9000, "distribution": "x" * 9000}}
    server = from_root(json.dumps(long).encode())
    assert server is not None
    with pytest.raises(SettingsError) as caught:
        check("http://index:9200", server, has_header=False)
    assert len(str(caught.value)) < 400


def test_elasticsearch_without_a_version_is_taken_where_it_sends_its_header() -> None:
    check("u", None, has_header=True)
    check("u", Server("Elasticsearch", "8.0.0"), has_header=True)
