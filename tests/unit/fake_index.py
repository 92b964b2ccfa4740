"""Answers in place of Elasticsearch, below its own client: everything above the socket is real."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC
from typing import Any, NamedTuple

from elastic_transport import ApiResponseMeta, HttpHeaders, Urllib3HttpNode
from elasticsearch import Elasticsearch

from ownership.platform.search_dialect import SearchNode
from ownership.platform.search_index import SearchIndex


class Asked(NamedTuple):
    """A request as it reached the node."""

    method: str
    target: str
    body: bytes

    @property
    def lines(self) -> list[Any]:
        """The JSON values of a bulk."""
        return [json.loads(line) for line in self.body.splitlines() if line]


class Answer(NamedTuple):
    """Status, body and its kind."""

    status: int
    body: bytes
    kind: str = "application/json"
    headers: Mapping[str, str] = {}


class _Response(NamedTuple):
    meta: ApiResponseMeta
    body: bytes


Answering = Callable[[Asked], Answer]


def json_answer(body: Any, status: int = 200) -> Answer:
    """An answer in JSON."""
    return Answer(status, json.dumps(body).encode())


def refused(status: int, kind: str = "es_rejected_execution_exception") -> Answer:
    """An error as Elasticsearch words it."""
    return json_answer({"error": {"type": kind, "reason": "no"}, "status": status}, status)


OPENSEARCH_2 = json_answer({"version": {"distribution": "opensearch", "number": "2.19.3"}, "tagline": "…"})


class Wire(Urllib3HttpNode):
    """Answers with what `answer` says in place of the network, and keeps what it was asked.

    `GET /` is answered by itself: a supported server, unless `root` says otherwise.
    """

    answer: Answering
    asked: list[Asked]
    root: Answer
    sent: dict[str, str]
    """Headers of the last request."""

    def perform_request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Any = None,
        request_timeout: Any = None,  # noqa: ARG002  # the parent's signature
    ) -> Any:
        request = Asked(method, target, body or b"")
        if (method, target) == ("GET", "/"):
            answer = type(self).root
        else:
            type(self).asked.append(request)
            type(self).sent = dict(headers or {})
            answer = type(self).answer(request)
        sent = HttpHeaders({"content-type": answer.kind, **answer.headers})
        return _Response(ApiResponseMeta(answer.status, "1.1", sent, 0.0, self.config), answer.body)


class Node(SearchNode, Wire):
    """The job's node over a `Wire`."""


@contextmanager
def fake_index() -> Iterator[tuple[SearchIndex, type[Node]]]:
    """The job's view of an index, and the node that answers for it."""
    values = {"answer": staticmethod(lambda _: refused(503)), "asked": [], "root": OPENSEARCH_2}
    node = type("OwnNode", (Node,), values)
    with Elasticsearch("http://index:9200", node_class=node) as client:
        yield SearchIndex(lambda: client, "course-batch", zone=UTC), node


def answers(node: type[Node], *given: Answer) -> None:
    """Let the node give these, one after the other; the last one again and again."""
    node.asked = []
    node.answer = staticmethod(lambda _: given[min(len(node.asked), len(given)) - 1])
