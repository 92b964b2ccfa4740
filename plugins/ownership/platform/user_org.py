"""User-Org: who is a user, of which organisation, and whether the account is deleted or blocked."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import quote

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from ownership.domain.errors import Unavailable
from ownership.domain.event import folded
from ownership.domain.text import one_line
from ownership.platform.http_service import CONCURRENT, Answer, Envelope, Service
from ownership.platform.name_search import (
    MAX_NAME,
    NOTHING,
    FoundNames,
    Named,
    fitting,
    full_name,
    name_words,
)

ACCOUNT_BLOCKED: Final = "0006"
"""Number of the error for a deleted or blocked account. What stands before it is the operation's, by release."""
UNDER_WAY: Final = 4 * CONCURRENT
"""Users that are asked for at once, most of them in the pool's queue."""
STRAGGLER_SECONDS: Final = 5.0
"""How long answers that are there wait for the next one, at least: of a slow service three times its longest pause."""
SEARCH_PATH: Final = "/private/user/v1/search"
"""User-Org's search, which needs no token, as the read."""
_WORDS_KEPT = 300
_ONE_USER_ONLY: Final = (
    "this user only, others are answered; have the record of this user mended in User-Org, then the event "
    "completes by itself, or abandon the event"
)


class User(NamedTuple):
    """A user that User-Org knows."""

    user_id: str
    organisation_id: str


class Standing(StrEnum):
    """What User-Org says of a user whom it does not show."""

    UNKNOWN = "unknown"
    DELETED = "deleted"
    """Deleted or blocked: User-Org does not tell the two apart."""
    REFUSED = "refused"
    """Anything else: the words say what."""


class Refusal(NamedTuple):
    """The service's own word that it does not show a user."""

    user_id: str
    standing: Standing
    words: str


Lookup = User | Refusal | Unavailable


class _Response(BaseModel):
    identifier: str
    organisation: str | None = Field(None, alias="rootOrgId")
    is_deleted: Any = Field(None, alias="isDeleted")


class _Found(Envelope[_Response]):
    """The answer for a user who is shown."""

    code: Literal["OK"] | None = Field(None, alias="responseCode")


class _Person(BaseModel):
    identifier: str
    first: str | None = Field(None, alias="firstName")
    last: str | None = Field(None, alias="lastName")
    organisation: str | None = Field(None, alias="rootOrgId")

    @property
    def named(self) -> Named:
        """As it is shown."""
        return Named(self.identifier, full_name(self.first, self.last), (self.organisation or "").strip())


class _Candidates(BaseModel):
    """What a search for users finds."""

    count: int
    content: list[_Person]


def _word(value: Any) -> str | None:
    """A code or text as releases write it, which may be a number; of anything else nothing is to be read."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


_Word = Annotated[str | None, BeforeValidator(_word)]


class _Params(BaseModel):
    err: _Word = None
    status: _Word = None
    errmsg: _Word = None


class _Refused(BaseModel):
    """The platform's envelope of an error."""

    code: str = Field(alias="responseCode")
    params: _Params | None = None


_ABOUT_THE_REQUEST: Final = ("CLIENTERROR", "RESOURCENOTFOUND")
"""Classes of the service's errors that say something about the user; the others are about the service."""


def same_id(one: str, other: str) -> bool:
    """Ids of the platform differ in more than case."""
    return folded(one) == folded(other)


class Users:
    """Reads users from User-Org."""

    def __init__(self, service: Service, read_path: str) -> None:
        self._service = service
        self.answered = 0
        """Answers so far that said something about a user."""
        self._path = read_path if read_path.endswith("/") else f"{read_path}/"

    def read(self, user_id: str) -> User | Refusal:
        """Look one user up.

        :raises Unavailable: on anything but the service's own word about the user: an outage is no absence.
        """
        answer = self._service.call("GET", f"{self._path}{quote(user_id, safe='')}?identifier,rootOrgId")
        if 400 <= answer.status < 500 and (refusal := _refusal(user_id, answer)):
            return refusal
        if answer.status != 200:
            raise self._unavailable(f"HTTP {answer.status} that names no user and organisation")
        try:
            response = _Found.model_validate(answer.body, strict=True).result.response
        except ValidationError:
            raise self._unavailable("HTTP 200 that is not OK, or names no user and organisation") from None
        if not same_id(response.identifier, user_id):
            raise self._unavailable("answers with another user than the one asked for")
        if str(response.is_deleted).lower() == "true":  # today's release refuses such an account instead
            return Refusal(user_id, Standing.DELETED, "isDeleted: true")
        organisation = (response.organisation or "").strip()
        if not organisation:
            raise self._unavailable(f"shows no rootOrgId for user {user_id!r}: {_ONE_USER_ONLY}")
        return User(user_id, organisation)

    def names(self, user_ids: Collection[str]) -> dict[str, Named]:
        """The names of those users for whom there is an answer; empty for one whom the service does not show."""
        with ThreadPoolExecutor(CONCURRENT) as pool:
            found = zip(user_ids, pool.map(self._name, user_ids), strict=True)
            return {user_id: named for user_id, named in found if named is not None}

    def _name(self, user_id: str) -> Named | None:
        try:
            answer = self._service.call(
                "GET", f"{self._path}{quote(user_id, safe='')}?identifier,firstName,lastName,rootOrgId"
            )
            person = Envelope[_Person].model_validate(answer.body).result.response
        except Unavailable:
            return None
        except ValidationError:
            person = None
        if person is None or not same_id(person.identifier, user_id):
            return Named(user_id, "", "")
        return person.named._replace(name=person.named.name[:MAX_NAME])

    def named(self, text: str, organisations: Collection[str] | None, *, limit: int) -> FoundNames:
        """Users in whose first and last names each word of `text` is a part, of these organisations (None: of all).

        :raises Unavailable: on an outage or an answer out of contract.
        """
        words = name_words(text)
        if not words or (organisations is not None and not organisations):
            return NOTHING
        answer = self._service.call("POST", SEARCH_PATH, _search_for(words, organisations, limit))
        try:
            found = Envelope[_Candidates].model_validate(answer.body).result.response
        except ValidationError:
            found = None
        if answer.status != 200 or found is None:
            raise self._unavailable(f"HTTP {answer.status} to a search for users, without count and content")
        shown = [person.named for person in found.content[:limit]]
        return fitting(shown, found.count, words, organisations)

    def read_all(self, user_ids: Collection[str]) -> Iterator[tuple[str, Lookup]]:
        """Look many users up concurrently, as their answers come; an outage is the result of the users it concerns.

        Once there are answers, a user who gives none holds the others up for about `STRAGGLER_SECONDS`.
        """
        if not user_ids:
            return
        failed: dict[str, Unavailable] = {}
        others = 0
        for user_id, found in self._as_they_come(sorted(user_ids)):
            if isinstance(found, Unavailable):
                failed[user_id] = found
                continue
            others += 1
            self.answered += 1
            yield user_id, found
        for user_id, why in failed.items():
            yield user_id, self._for_this_user_only(user_id, why) if others >= len(failed) else why

    def _as_they_come(self, user_ids: Collection[str]) -> Iterator[tuple[str, Lookup]]:
        pool = ThreadPoolExecutor(CONCURRENT)
        todo = iter(user_ids)
        waiting: dict[Future[Lookup], str] = {}
        answered, longest_pause, last = False, 0.0, time.monotonic()
        try:
            while True:
                # A few at a time: to wait for thousands of them costs a look at each, for every answer.
                waiting |= {pool.submit(self._read, u): u for u in islice(todo, UNDER_WAY - len(waiting))}
                if not waiting:
                    return
                patience = max(STRAGGLER_SECONDS, 3 * longest_pause) if answered else None
                done = wait(waiting, patience, FIRST_COMPLETED).done
                if not done:
                    break
                longest_pause, last = max(longest_pause, time.monotonic() - last), time.monotonic()
                for future in done:
                    found = future.result()
                    answered = answered or not isinstance(found, Unavailable)
                    yield waiting.pop(future), found
            for user_id in (*waiting.values(), *todo):
                yield user_id, self._unavailable("no answer for long after the others'")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, user_id: str) -> Lookup:
        try:
            return self.read(user_id)
        except Unavailable as e:
            return e

    def _for_this_user_only(self, user_id: str, why: Unavailable) -> Unavailable:
        if _ONE_USER_ONLY in why.reason:
            return why
        return self._unavailable(f"{why.reason} for user {user_id!r}: {_ONE_USER_ONLY}")

    def _unavailable(self, reason: str) -> Unavailable:
        return Unavailable(self._service.name, reason)


def _search_for(words: Collection[str], organisations: Collection[str] | None, limit: int) -> dict[str, Any]:
    return {
        "request": {
            "query": " + ".join(words),
            "queryFields": ["firstName", "lastName"],
            "filters": {} if organisations is None else {"rootOrgId": sorted(organisations)},
            # Without `organisations` the service logs an error for each user.
            "fields": ["identifier", "firstName", "lastName", "rootOrgId", "organisations"],
            "limit": limit,
        }
    }


def _refusal(user_id: str, answer: Answer) -> Refusal | None:
    """What a 4xx says of the user, None if it is not the service's own word: a proxy's has no such envelope."""
    try:
        said = _Refused.model_validate(answer.body, strict=True)
    except ValidationError:
        return None
    params = said.params or _Params()
    code, err, status = map(_plain, (said.code, params.err, params.status))
    if code not in _ABOUT_THE_REQUEST:
        return None
    words = one_line(": ".join(filter(None, (params.err, params.errmsg))) or code, _WORDS_KEPT)
    if err.endswith(ACCOUNT_BLOCKED) or "ACCOUNTBLOCKED" in f"{err} {status}":
        return Refusal(user_id, Standing.DELETED, words)
    if (answer.status == 404 and code == "RESOURCENOTFOUND") or "USERNOTFOUND" in f"{err} {status}":
        return Refusal(user_id, Standing.UNKNOWN, words)
    return Refusal(user_id, Standing.REFUSED, words) if err else None


def _plain(word: Any) -> str:
    """A code as it is compared: releases spell them differently."""
    return str(word or "").upper().replace("_", "").replace(" ", "")
