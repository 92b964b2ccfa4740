"""Names beside the ids of users: the event's own, else User-Org's, which are kept in memory for a few minutes.

Anyone may name any id in a transfer of their organisation. So a person sees User-Org's name of a user only if User-Org
says that the user is of an organisation that is visible to the person. Names are never needed: where User-Org does not
answer, ids stand alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Final

from fastapi import Depends

from ownership.domain.errors import OwnershipError
from ownership.domain.event import Transfer
from ownership.domain.organisations import VisibleOrganisations
from ownership.page import payload
from ownership.page.payload import NamePair
from ownership.page.platform import Asked, process_platform
from ownership.platform.http_service import CONCURRENT
from ownership.platform.name_search import Named
from ownership.platform.user_org import Users

MAX_ASKED: Final = CONCURRENT
"""Users whose names are asked for one page, all at once."""
MAX_KEPT: Final = 10_000
KEPT_S: Final = 300.0
"""A name, or that there is none, is kept this long."""
FAILED_S: Final = 30.0
"""A user for whom there was no answer is not asked about for this long."""


class Names:
    """Names by user id."""

    def __init__(self, users: Asked[Users], clock: Callable[[], float] = time.monotonic) -> None:
        self._users, self._clock = users, clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, Named]] = {}
        """By id until when, and the name; the first was asked for first."""

    def of(self, user_ids: Iterable[str], visible: VisibleOrganisations) -> dict[str, str]:
        """Names by id, of those that are known or can be asked for in a moment; empty is unknown, or not visible."""
        found = self._found(user_ids)
        return {u: n.name if visible.has(n.organisation_id) else "" for u, n in found.items()}

    def _found(self, user_ids: Iterable[str]) -> dict[str, Named]:
        wanted = dict.fromkeys(user_ids)
        found, now = self._known(wanted), self._clock()
        missing = [u for u in wanted if u not in found][:MAX_ASKED]
        if missing:
            # Before the answer: other requests must not ask for the same meanwhile.
            self._keep({u: (now + FAILED_S, Named(u, "", "")) for u in missing})
            try:
                asked = self._users.ask(lambda users: users.names(missing))
            except OwnershipError:
                asked = {}
            self._keep({u: (now + KEPT_S, named) for u, named in asked.items()})
            found |= asked
        return found

    def pairs(
        self, transfers: Iterable[Transfer], bodies: Mapping[str, bytes], visible: VisibleOrganisations
    ) -> dict[str, NamePair]:
        """By mid the names of a transfer's users; `bodies` are the events' messages, which may have them."""
        transfers = list(transfers)
        own = {t.mid: payload.name_pair(bodies.get(t.mid, b"")) for t in transfers}
        users = {t.mid: (t.from_user, t.to_user) for t in transfers}
        nameless = (u for t in transfers for u, n in zip(users[t.mid], own[t.mid], strict=True) if not n)
        asked = self.of(nameless, visible)
        return {
            mid: NamePair(*(n or asked.get(u, "") for u, n in zip(users[mid], names, strict=True)))
            for mid, names in own.items()
        }

    def _known(self, user_ids: Iterable[str]) -> dict[str, Named]:
        now = self._clock()
        with self._lock:
            kept = {u: self._kept[u] for u in user_ids if u in self._kept}
        return {u: named for u, (until, named) in kept.items() if until > now}

    def _keep(self, names: Mapping[str, tuple[float, Named]]) -> None:
        with self._lock:
            for user, name in names.items():
                self._kept.pop(user, None)
                self._kept[user] = name
            while len(self._kept) > MAX_KEPT:
                del self._kept[next(iter(self._kept))]


_NAMES = Names(process_platform().users)


def process_names() -> Names:
    """Of this process."""
    return _NAMES


UserNames = Annotated[Names, Depends(process_names)]
