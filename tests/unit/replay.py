"""The plain meaning of transfers, one after the other, and random small worlds to hold the code against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hypothesis import strategies as st

from ownership.domain.event import OrderKey, Transfer
from ownership.domain.plan import BatchId, Given, Row

USERS = "abcde"
"""Folded, as all keys of maps and sets are."""
STRANGERS = "xy"
users = st.sampled_from(USERS)


def transfer(n: int, from_user: str, to_user: str) -> Transfer:
    """The n-th event."""
    return Transfer(OrderKey(1000 + n, n % 2, n, f"m{n:02}"), from_user, to_user)


def transfers(*pairs: str) -> list[Transfer]:
    """`transfers("ab", "bc")`: a -> b, then b -> c."""
    return [transfer(n, pair[0], pair[1]) for n, pair in enumerate(pairs)]


def events(limit: int = 7, *, proper: bool = False) -> st.SearchStrategy[list[Transfer]]:
    """Random events in key order; `proper` ones have two different users."""
    pairs = [a + b for a in USERS for b in USERS if a != b or not proper]
    return st.lists(st.sampled_from(pairs), max_size=limit).map(lambda chosen: transfers(*chosen))


def row(created_by: str | None, mentors: str | Sequence[str] = "", status: int | None = 1, n: int = 0) -> Row:
    """A row of `course_batch`."""
    return Row(BatchId("course", f"batch-{n}"), created_by, tuple(mentors), status)


rows = st.builds(
    row,
    st.sampled_from([*USERS, "x", None]),
    st.lists(st.sampled_from(USERS + STRANGERS), max_size=6),
)


def in_any_case(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """The same one-letter users, each time in a random case."""
    return st.builds(lambda user, upper: user.upper() if upper else user, strategy, st.booleans())


mixed_events = st.lists(st.tuples(*[in_any_case(users)] * 2), max_size=7).map(
    lambda pairs: [transfer(n, *pair) for n, pair in enumerate(pairs)]
)
"""Random events that spell the same users in random case."""

mixed_rows = st.builds(
    row,
    st.one_of(st.none(), in_any_case(st.sampled_from(USERS + STRANGERS))),
    st.lists(in_any_case(st.sampled_from(USERS + STRANGERS)), max_size=6),
)
"""Random rows that spell the same users in random case."""


def folded_event(event: Transfer) -> Transfer:
    """The event with its users in lower case."""
    return event._replace(from_user=event.from_user.lower(), to_user=event.to_user.lower())


def folded_row(r: Row) -> Row:
    """The row with its users in lower case."""
    return r._replace(
        created_by=r.created_by and r.created_by.lower(), mentors=tuple(m.lower() for m in r.mentors)
    )


def one_transfer(event: Transfer, before: Row) -> Row:
    """What a single transfer does to a row: the definition that everything else must agree with."""
    creator = event.to_user if before.created_by == event.from_user else before.created_by
    if event.from_user == event.to_user or event.from_user not in before.mentors:
        return before._replace(created_by=creator)
    mentors: list[str] = []
    for m in before.mentors:
        new = event.to_user if m == event.from_user else m
        if new not in mentors:
            mentors.append(new)
    return before._replace(created_by=creator, mentors=tuple(mentors))


def replay(todo: Iterable[Transfer], before: Row) -> Row:
    """All transfers, one after the other."""
    for event in sorted(todo):
        before = one_transfer(event, before)
    return before


def without_repeats(r: Row) -> Row:
    """The row with each mentor once."""
    return r._replace(mentors=tuple(dict.fromkeys(r.mentors)))


some_users = st.frozensets(st.sampled_from(USERS), max_size=2)
gifts = st.builds(Given, some_users, some_users, some_users)
"""What later transfers may have given of a batch."""
