"""The search index: what a client of Elasticsearch does, in memory.

A search shows documents as they were at the last refresh. A write under a sequence number that is not the document's
any more is a conflict.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple, Self

from elastic_transport import ConnectionTimeout

from ownership.domain.event import folded
from simulation.scheduler import Scheduler

STORE = "index"


class Stored(NamedTuple):
    """A document under one id."""

    source: Mapping[str, Any]
    seq_no: int
    at: int
    """When it was written, by the index's own count of writes and refreshes."""


def _lost() -> BaseException:
    return ConnectionTimeout("no answer")


@dataclass
class Index:
    """The documents of one index."""

    scheduler: Scheduler
    documents: dict[str, Stored] = field(default_factory=dict)
    visible: dict[str, Stored] = field(default_factory=dict)
    """As the last refresh shows them."""
    seq_no: int = 0
    at: int = 0
    """Writes and refreshes so far."""
    shown_at: dict[str, int] = field(default_factory=dict)
    """By batch, when a refresh has shown its document for the first time."""
    refreshed_at: dict[str, int] = field(default_factory=dict)
    """By actor, when it has refreshed last."""

    # -- what the world does -------------------------------------------------------------------------------

    def put(self, batch_id: str, source: Mapping[str, Any]) -> None:
        """Write a document whatever is there, as the LMS does."""
        self.seq_no += 1
        self.at += 1
        self.documents[batch_id] = Stored(source, self.seq_no, self.at)

    def remove(self, batch_id: str) -> None:
        """Delete a document whatever is there."""
        self.seq_no += 1
        self.documents.pop(batch_id, None)

    def show(self) -> None:
        """Refresh."""
        self.visible = dict(self.documents)
        self.at += 1
        self.shown_at = dict.fromkeys(self.visible, self.at) | self.shown_at

    # -- the client ----------------------------------------------------------------------------------------

    def options(self, **_: Any) -> Self:
        """The same client."""
        return self

    @property
    def indices(self) -> Any:
        """The client's calls about indices."""
        return SimpleNamespace(refresh=self._refresh)

    def _refresh(self, **_: Any) -> Any:
        def refresh() -> None:
            self.show()
            # Not in `show`: the LMS shows what it writes within a call of the job's.
            if actor := self.scheduler.current:
                self.refreshed_at[actor.name] = self.at

        self.scheduler.call(STORE, "refresh", refresh, _lost)
        return {"_shards": {"failed": 0}}

    def search_shards(self, **_: Any) -> Any:
        """One copy of one shard."""
        return {"shards": [[{"shard": 0, "node": "n1", "state": "STARTED"}]]}

    def search(self, *, query: Mapping[str, Any], size: int, **_: Any) -> Any:
        """The documents that match, all on one page."""
        return self.scheduler.call(
            STORE, _told(query), lambda: self._search(query, size), _lost, told=_hits_told
        )

    def _search(self, query: Mapping[str, Any], size: int) -> Any:
        hits = [
            {"_id": i, "_source": dict(d.source), "_seq_no": d.seq_no, "_primary_term": 1}
            for i, d in sorted(self.visible.items())
            if matches(query, i, d.source)
        ]
        if len(hits) > size:
            raise ValueError("more hits than a simulated search has")
        return {
            "timed_out": False,
            "_shards": {"failed": 0},
            "hits": {"total": {"value": len(hits)}, "hits": hits},
        }

    def delete(self, *, id: str, if_seq_no: int, **_: Any) -> Any:  # noqa: A002  # the client's name
        """Delete a document that is as it was read; else nothing."""

        def effect() -> None:
            found = self.documents.get(id)
            if found and found.seq_no == if_seq_no:
                self.remove(id)

        self.scheduler.call(STORE, f"delete {id}", effect, _lost)

    def streaming_bulk(
        self, _client: Any, actions: Iterable[Mapping[str, Any]], **_: Any
    ) -> Iterator[tuple[bool, Mapping[str, Any]]]:
        """As the client's helper: each item's outcome."""
        todo = list(actions)
        names = " ".join(f"{a['_id']}" for a in todo)
        yield from self.scheduler.call(
            STORE, f"write {names}", lambda: [self._write(a) for a in todo], _lost, told=_items_told
        )

    def _write(self, action: Mapping[str, Any]) -> tuple[bool, Mapping[str, Any]]:
        own_id, there = action["_id"], self.documents.get(action["_id"])
        if action["_op_type"] == "create":
            refused = there is not None
            source = action["_source"]
        else:
            refused = there is None or there.seq_no != action["if_seq_no"]
            source = json.loads(action["_source"])
        if refused:
            return False, {
                "index": {"_id": own_id, "status": 409, "error": {"type": "conflict", "reason": ""}}
            }
        self.put(own_id, source)
        return True, {"index": {"_id": own_id, "status": 200, "_seq_no": self.seq_no, "_primary_term": 1}}


def matches(query: Mapping[str, Any], own_id: str, source: Mapping[str, Any]) -> bool:
    """True if a document matches a query of the forms that the job writes."""
    ((kind, body),) = query.items()
    if kind == "bool":
        return all(matches(q, own_id, source) for q in body.get("filter", ())) and (
            "should" not in body or any(matches(q, own_id, source) for q in body["should"])
        )
    ((name, wanted),) = body.items()
    if name == "_id":
        return own_id in wanted
    value = source.get(name.removesuffix(".raw"))
    values = value if isinstance(value, list) else [value]
    if name.endswith(".raw"):
        return any(isinstance(v, str) and folded(v) in wanted for v in values)
    return any(v in wanted for v in values)


def _told(query: Mapping[str, Any]) -> str:
    first = query["bool"].get("filter", [{}])[0].get("terms", {})
    return "read" if "_id" in first else "search"


def _hits_told(answer: Any) -> str:
    return "; ".join(
        f"{h['_id']} {h['_source'].get('createdBy')} {','.join(h['_source'].get('mentors') or ())} @{h['_seq_no']}"
        for h in answer["hits"]["hits"]
    )


def _items_told(items: Iterable[tuple[bool, Any]]) -> str:
    return " ".join("written" if ok else "conflict" for ok, _ in items)
