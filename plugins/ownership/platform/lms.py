"""The LMS's batch search: which live batches the index shows for some users."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal

from more_itertools import chunked
from pydantic import BaseModel, Field, ValidationError

from ownership.domain.errors import Unavailable
from ownership.domain.plan import LIVE_STATUSES, BatchId
from ownership.platform.http_service import Answer, Service
from ownership.platform.search_documents import NAMES, OWNERS, Hit, batch_named, course_key, users_named

PAGE = 5000
"""Two pages are all that the service shows: see `WINDOW`. Each page is sorted from the first hit on."""
WINDOW = 10_000
"""The service cuts offset + limit down to this. It does not ask Elasticsearch to count further (Sunbird-Lern
lms-service): a count of 10,000 may mean more."""
USERS_PER_SEARCH = 500


class _Response(BaseModel):
    count: Annotated[int, Field(strict=True, ge=0)]
    content: list[dict[str, Any]] | None = None


class _Result(BaseModel):
    response: _Response


class _Found(BaseModel):
    """The answer to a search."""

    code: Annotated[Literal["OK"] | None, Field(alias="responseCode")] = None
    result: _Result


class IncompleteAnswer(Exception):
    """The service does not show every hit with its batch: the caller asks the index itself."""


class BatchSearch:
    """Searches live batches by creator and mentor through the LMS."""

    def __init__(self, service: Service, search_path: str) -> None:
        self._service = service
        self._path = search_path

    def live_batches(self, user_ids: Collection[str]) -> list[Hit]:
        """Every live batch whose document names one of `user_ids` as creator or mentor.

        :raises IncompleteAnswer: if the users have more batches than the service pages through, its pages show some
            twice and so miss others, or a document names no batch.
        :raises Unavailable: on an outage or an answer out of contract.
        """
        found: dict[BatchId, frozenset[str]] = {}
        for asked in chunked(sorted(user_ids), USERS_PER_SEARCH):
            for field in ("createdBy", "mentors"):
                for users, batch in self._pages({field: asked, "status": list(LIVE_STATUSES)}):
                    found[batch] = found.get(batch, frozenset()) | users
        return [Hit(users, batch) for batch, users in found.items()]

    def _pages(self, filters: dict[str, Any]) -> Iterator[Hit]:
        offset, total = 0, 1
        shown: set[BatchId] = set()
        while offset < total:
            answer = self._service.call(
                "POST",
                self._path,
                {
                    "request": {
                        "filters": filters,
                        "fields": [*NAMES, "courseId", *OWNERS],
                        "limit": PAGE,
                        "offset": offset,
                        "sort_by": {"createdDate": "desc"},
                    }
                },
            )
            total, content = self._content(answer)
            if total >= WINDOW:
                raise IncompleteAnswer
            if not content and offset < total:
                raise Unavailable(self._service.name, f"counts {total} batches but shows {offset}")
            hits = [_hit(document) for document in content]
            shown.update(batch for _, batch in hits)
            yield from hits
            offset += len(content)
        # Batches of the same date have no fixed order, and new batches shift the others to the next page.
        if len(shown) < total:
            raise IncompleteAnswer

    def _content(self, answer: Answer) -> tuple[int, list[dict[str, Any]]]:
        try:
            found = _Found.model_validate(answer.body).result.response
        except ValidationError:
            found = None
        # An empty result may leave its list out; a positive count may not.
        if answer.status != 200 or found is None or (found.content is None and found.count):
            raise Unavailable(self._service.name, f"HTTP {answer.status} without count and content")
        return found.count, found.content or []


def _hit(document: dict[str, Any]) -> Hit:
    batch = batch_named(document)
    if batch is None:
        raise IncompleteAnswer
    # A document that names no course belongs to no row; the plan will say that it is gone.
    return Hit(users_named(document), BatchId(course_key(document.get("courseId")), batch))
