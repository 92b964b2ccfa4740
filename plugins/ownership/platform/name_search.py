"""Looks for a part of a name in a service of the platform: what the search for users and the one for courses share."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple, Protocol

from ownership.domain.event import folded
from ownership.domain.text import printable

MIN_PART: Final = 2
"""Fewest characters of a part of a name that is searched for."""
MAX_NAME: Final = 200
"""Most characters of a name that is shown."""


class Named(NamedTuple):
    """A user or a course found by name."""

    id: str
    name: str
    organisation_id: str


class FoundNames(NamedTuple):
    """What fits, and whether the service has more than was asked for. True if there is any."""

    hits: list[Named]
    more: bool

    def __bool__(self) -> bool:
        return bool(self.hits or self.more)


NOTHING: Final = FoundNames([], more=False)


class NameSearch(Protocol):
    """A service that can be searched by name."""

    def named(self, text: str, organisations: Collection[str] | None, *, limit: int) -> FoundNames:
        """What has `text` in its name, of these organisations (None: of all).

        :raises Unavailable: on an outage or an answer out of contract.
        """
        ...


def name_words(text: str) -> list[str]:
    """The words of a part of a name, folded; none if it is too short to be searched for.

    Other characters are operators of the services' query languages.
    """
    words = [w for w in re.split(r"[\s!-/:-@\[-`{-~]+", folded(text)) if w]
    return words if sum(map(len, words)) >= MIN_PART else []


def full_name(*parts: str | None) -> str:
    """A name of its parts, without control characters."""
    return printable(" ".join(p.strip() for p in parts if p)).strip()


def fitting(
    shown: Sequence[Named], count: int, parts: Collection[str], organisations: Collection[str] | None
) -> FoundNames:
    """Of what a service shows of the `count` that it has found, what has all `parts` (folded) in its name.

    The service's index may match less strictly, and a right must not hang on how it filters.
    """
    hits = [
        n._replace(name=n.name[:MAX_NAME])
        for n in shown
        if all(p in folded(n.name) for p in parts)
        and (organisations is None or n.organisation_id in organisations)
    ]
    return FoundNames(hits, more=count > len(shown))
