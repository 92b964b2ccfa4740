"""The LMS's batch search: which live batches the index shows for some users."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Annotated, Any, Literal

from more_itertools import chunked
from pydantic import BaseModel, Field, ValidationError

from ownership.domain.errors import Unavailable
from ownership.domain.plan import LIVE_STATUSES, BatchId
from ownership.platform.http_service import Answer, Envelope, Service
from ownership.platform.search_documents import NAMES, OWNERS, Hit, batch_named, row_key, users_named

PAGE = 5000
"""Two pages are all that the service shows: see `WINDOW`. Each page is sorted from the first hit on."""
WINDOW = 10_000
"""The service cuts offset + limit down to this. It does not ask Elasticsearch to count further (Sunbird-Lern
lms-service): a count of 10,000 may mean more."""
USERS_PER_SEARCH = 500


class _Response(BaseModel):
    count: Annotated[int, Field(strict=True, ge=0)]
    content: list[dict[str, Any]] | None = None


class _Found(Envelope[_Response]):
    """The answer to a search."""

    code: Annotated[Literal["OK"] | None, Field(alias="responseCode")] = None


class IncompleteAnswer(Exception):
    """The service answers, but does not show every hit with its batch: the caller asks the index itself."""


class BatchSearch:
    """Searches live batches by creator and mentor through the LMS."""

    def __init__(self, service: Service, search_path: str) -> None:
        self._service = service
        self._path = search_path

    def live_batches(self, user_ids: Collection[str]) -> list[Hit]:
        """Every live batch whose document names one of `user_ids` as creator or mentor.

        :raises IncompleteAnswer: if the users have more batches than the service pages through, its pages show some
            twice and so miss others, a document names no batch, or it answers for some of the users only.
        :raises Unavailable: on an outage or an answer out of contract.
        """
        found: dict[BatchId, frozenset[str]] = {}
        for asked in chunked(sorted(user_ids), USERS_PER_SEARCH):
            try:
                hits = self._of(asked)
            except Unavailable:
                # One user for whom it is out of order keeps no other's event waiting.
                if self._answers_for_half_of(asked):
                    raise IncompleteAnswer from None
                raise
            for users, batch in hits:
                found[batch] = found.get(batch, frozenset()) | users
        return [Hit(users, batch) for batch, users in found.items()]

    def _of(self, users: list[str]) -> list[Hit]:
        filters = ({field: users, "status": list(LIVE_STATUSES)} for field in ("createdBy", "mentors"))
        return [hit for f in filters for hit in self._pages(f)]

    def _answers_for_half_of(self, users: list[str]) -> bool:
        middle = len(users) // 2
        for half in (users[:middle], users[middle:]) if middle else ():
            with suppress(Unavailable):
                self._of(half)
                return True
        return False

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
    return Hit(users_named(document), BatchId(row_key(document.get("courseId")), batch))
