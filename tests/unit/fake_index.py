"""Answers in place of Elasticsearch, below its own client: everything above the socket is real."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from elastic_transport import ApiResponseMeta, BaseNode, HttpHeaders
from elasticsearch import Elasticsearch

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


class _Response(NamedTuple):
    meta: ApiResponseMeta
    body: bytes


Answering = Callable[[Asked], Answer]


def told(body: Any, status: int = 200) -> Answer:
    """An answer in JSON."""
    return Answer(status, json.dumps(body).encode())


def refused(status: int, kind: str = "es_rejected_execution_exception") -> Answer:
    """An error as Elasticsearch words it."""
    return told({"error": {"type": kind, "reason": "no"}, "status": status}, status)


class Node(BaseNode):
    """A node that answers with what `answer` says, and keeps what it was asked."""

    answer: Answering
    asked: list[Asked]

    def perform_request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Any = None,  # noqa: ARG002
        request_timeout: Any = None,  # noqa: ARG002
    ) -> Any:
        request = Asked(method, target, body or b"")
        type(self).asked.append(request)
        status, raw, kind = type(self).answer(request)
        sent = HttpHeaders({"x-elastic-product": "Elasticsearch", "content-type": kind})
        return _Response(ApiResponseMeta(status, "1.1", sent, 0.0, self.config), raw)

    def close(self) -> None: ...


@contextmanager
def fake_index() -> Iterator[tuple[SearchIndex, type[Node]]]:
    """The job's view of an index, and the node that answers for it."""
    node = type("OwnNode", (Node,), {"answer": staticmethod(lambda _: refused(503)), "asked": []})
    with Elasticsearch("http://index:9200", node_class=node, max_retries=0) as client:
        yield SearchIndex(client, "course-batch"), node


def answers(node: type[Node], *given: Answer) -> None:
    """Let the node give these, one after the other; the last one again and again."""
    node.asked = []
    node.answer = staticmethod(lambda _: given[min(len(node.asked), len(given)) - 1])
