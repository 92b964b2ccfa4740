"""When a row and its document differ, and which open event explains it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownership.domain.clock import from_ms
from ownership.domain.compare import (
    MISSING,
    STALE_MENTORS,
    STALE_OWNER,
    differences,
    names_any,
    owners_hash,
)
from ownership.domain.event import OrderKey, Transfer
from ownership.domain.options import Options
from ownership.domain.plan import BatchId, Document, Row
from ownership.domain.states import EventState
from ownership.ledger.events import EventRow
from ownership.platform.ring import range_of
from ownership.platform.search_documents import row_key
from ownership.platform.search_index import Seen
from ownership.reconcile.spill import Spill
from ownership.reconcile.transfers import found_by

users = st.one_of(st.none(), st.sampled_from(["a", "A", "b", "İ"]))
mentors = st.lists(st.sampled_from(["a", "A", "b", "m"]), max_size=3).map(tuple)


def row(creator: str | None = "a", mentors: tuple[str, ...] = (), status: int = 1) -> Row:
    return Row(BatchId("c", "b"), creator, mentors, status)


def document(creator: Any = "a", mentors: tuple[Any, ...] = (), course: str | None = "c") -> Document:
    return Document("b", creator, mentors, 1, 1, course)


def event(state: EventState = EventState.RECEIVED, **options: Any) -> EventRow:
    transfer = Transfer(OrderKey(1, 0, 0, "m"), "A", "B")
    return EventRow(transfer, state, "kafka", "topic", 1, from_ms(1), options=Options(**options))


@given(users, mentors, users, mentors)
def test_owners_are_compared_letter_by_letter_and_each_field_by_itself(
    creator: str | None, listed: tuple[str, ...], seen: str | None, shown: tuple[str, ...]
) -> None:
    found = differences(row(creator, listed), document(seen, shown))
    assert (STALE_OWNER in found) == (creator != seen)
    assert (STALE_MENTORS in found) == (listed != shown)
    assert MISSING not in found


@given(users, mentors, users, mentors)
def test_owners_have_the_same_mark_only_if_they_are_the_same(
    creator: str | None, listed: tuple[str, ...], seen: str | None, shown: tuple[str, ...]
) -> None:
    same = (creator, listed) == (seen, shown)
    assert (owners_hash(creator, listed) == owners_hash(seen, list(shown))) == same


def test_no_mentors_have_one_mark_however_they_are_written() -> None:
    empty: tuple[Any, ...] = (None, [], (), "")
    assert len({owners_hash("a", none) for none in empty}) == 1
    assert owners_hash("a", "m") == owners_hash("a", ["m"])
    assert owners_hash({"a": 1}, None) == owners_hash("a", [{}]) == 0


@given(
    st.lists(
        st.tuples(st.text(max_size=5), st.one_of(st.text(max_size=5), st.integers(), st.none())), max_size=60
    )
)
def test_a_spill_gives_back_what_was_put_there_once_whatever_it_is(made: list[tuple[str, Any]]) -> None:
    documents = [Seen(f"{n} {batch}", course, "a", None) for n, (batch, course) in enumerate(made)]
    with pytest.MonkeyPatch.context() as patch, Spill(4, [0, 1, 2, 3]) as spill, Spill(4, [2]) as one:
        patch.setattr("ownership.reconcile.spill.IN_MEMORY", 7)
        for n in range(0, len(documents), 5):
            spill.add(documents[n : n + 5])
            one.add(documents[n : n + 5])
        parts = [spill.take(n) for n in range(4)]
        assert one.take(2) == parts[2]
        assert one.take(1) == {}
        assert not any(spill.take(n) for n in range(4))
    found = {batch: course for part in parts for batch, (course, _) in part.items()}
    assert found == {d.batch_id: row_key(d.course_id) for d in documents}
    assert all(range_of(course, 4) == n for n, part in enumerate(parts) for course, _ in part.values())


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        pytest.param(None, (MISSING,), id="no document"),
        pytest.param(document(course="d"), (MISSING,), id="another course's"),
        pytest.param(document(course=None), (), id="of no course"),
        pytest.param(document(7), (STALE_OWNER,), id="a creator that is a number"),
        pytest.param(document("z", ("a",)), (STALE_OWNER, STALE_MENTORS), id="both"),
    ],
)
def test_a_document_of_any_kind_has_a_name(seen: Document | None, found: tuple[str, ...]) -> None:
    assert differences(row(), seen) == found


@pytest.mark.parametrize(
    ("given", "seen", "found"),
    [
        pytest.param(event(), document("A"), True, id="its search finds the creator"),
        pytest.param(event(), document("z", ("x", "a")), True, id="and a mentor, whatever the case"),
        pytest.param(event(), document("b"), False, id="not the new user's"),
        pytest.param(event(), None, False, id="nor what has no document"),
        pytest.param(
            event(EventState.COMPLETED), document("a"), False, id="a final event finds nothing any more"
        ),
        pytest.param(event(dry_run=True), document("a"), False, id="a dry run mends nothing"),
        pytest.param(event(undo_of="x"), document("a"), False, id="an undo keeps to its plan"),
        pytest.param(event(course_ids=("d",)), document("a"), False, id="another course is asked for"),
        pytest.param(event(roles=("mentored",)), document("a"), False, id="another role"),
        pytest.param(event(statuses=(0,)), document("a"), False, id="another status"),
        pytest.param(event(), document(["a"], ({"a": 1},)), False, id="no user at all"),
    ],
)
def test_an_open_event_explains_what_its_search_will_find(
    given: EventRow, seen: Document | None, found: bool
) -> None:
    assert found_by(given, row("B"), seen) is found


def test_an_event_concerns_the_users_that_row_or_document_name() -> None:
    assert names_any({"a"}, row("A"), None)
    assert names_any({"m"}, row(None), document(7, (None, "M")))
    assert not names_any({"x"}, row("a", ("m",)), document("b"))
