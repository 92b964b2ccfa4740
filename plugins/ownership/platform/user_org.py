"""User-Org: who is a user, and of which organisation."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple
from urllib.parse import quote

from ownership.domain.errors import Unavailable
from ownership.domain.event import folded
from ownership.platform.http_service import Answer, Service, at, concurrently


class User(NamedTuple):
    """A user that User-Org knows."""

    user_id: str
    organisation_id: str


class Unknown(NamedTuple):
    """A user that User-Org does not know, in its own words."""

    user_id: str


Lookup = User | Unknown | Unavailable


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

    def read(self, user_id: str) -> User | Unknown:
        """Look one user up.

        :raises Unavailable: on anything but the service's own word that it knows or does not
            know the user: an outage is no absence.
        """
        answer = self._service.call("GET", f"{self._path}{quote(user_id, safe='')}?identifier,rootOrgId")
        if _says_unknown(answer):
            return Unknown(user_id)
        identifier = at(answer.body, "result", "response", "identifier")
        organisation = at(answer.body, "result", "response", "rootOrgId")
        if (
            answer.status != 200
            or not isinstance(identifier, str)
            or not isinstance(organisation, str)
            or not organisation
        ):
            raise Unavailable(self._service.name, f"HTTP {answer.status} that names no user and organisation")
        if not same_id(identifier, user_id):
            raise Unavailable(self._service.name, "answers with another user than the one asked for")
        return User(user_id, organisation)

    def read_all(self, user_ids: Collection[str]) -> Iterator[tuple[str, Lookup]]:
        """Look many users up concurrently; an outage is the result of the users it concerns."""
        ids = sorted(user_ids)
        for user_id, found in zip(ids, concurrently(self.read, ids), strict=True):
            self.answered += not isinstance(found, Unavailable)
            yield user_id, found


def _says_unknown(answer: Answer) -> bool:
    """404 RESOURCE_NOT_FOUND, or the older client errors that name a user who is not found.

    A bare 404 (a proxy's, a wrong path's) is not the service's word.
    """
    if answer.status not in (400, 404):
        return False
    if answer.status == 404 and at(answer.body, "responseCode") == "RESOURCE_NOT_FOUND":
        return True
    words = (at(answer.body, "params", name) for name in ("err", "status"))
    return any("USERNOTFOUND" in w.upper().replace("_", "") for w in words if isinstance(w, str))
