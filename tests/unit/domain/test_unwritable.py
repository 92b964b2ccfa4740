"""How rows are named that keep their value for now."""

from __future__ import annotations

import pytest

from ownership.domain.plan import BatchId, Row
from ownership.domain.unwritable import MAX_NAMED, Unwritable, is_partly_changed, sentence
from tests.unit.replay import row

AT_US = 1_795_773_600_000_000


@pytest.mark.parametrize(
    ("until_us", "text"),
    [
        pytest.param(AT_US, "the creator of batch b of course c cannot be overwritten before 2026-11-27 10:00:00 UTC"),
        pytest.param(AT_US * 1000, "the creator of batch b of course c cannot be overwritten before the year 58875"),
        pytest.param(None, "the mentors of batch b of course c cannot be overwritten yet"),
    ],
)  # fmt: skip
def test_a_sentence_names_the_batch_and_when_its_value_can_be_overwritten(
    until_us: int | None, text: str
) -> None:
    found = sentence([Unwritable(BatchId("c", "b"), until_us)])
    assert found == f"written by a clock that is ahead: {text}"


def test_of_many_rows_the_first_few_are_named_and_the_others_counted() -> None:
    rows = [Unwritable(BatchId("c", f"b{n}"), None if n % 2 else AT_US) for n in range(MAX_NAMED + 4)]
    found = sentence(reversed(rows))
    assert [f"batch b{n} " in found for n in range(MAX_NAMED + 4)] == [True] * MAX_NAMED + [False] * 4
    assert found.endswith("; and 4 more")


@pytest.mark.parametrize(
    ("now", "partly"),
    [
        (row("b", "a"), True),
        (row("a", "b"), True),
        (row("a", "a"), False),
        (row("b", "b"), False),
        (row("x", "b"), False),
    ],
)
def test_a_change_of_both_fields_is_partial_if_one_of_them_is_as_it_was(now: Row, partly: bool) -> None:
    assert is_partly_changed(now, row("a", "a"), row("b", "b")) == partly


@pytest.mark.parametrize(
    ("now", "before", "after", "partly"),
    [
        pytest.param("bb", "b", "ab", True, id="longer, and its first element is as it was"),
        pytest.param("ba", "aa", "b", True, id="shorter, and its last element is still there"),
        pytest.param("bxa", "axa", "bx", True, id="shorter, with others between"),
        pytest.param("bxbx", "bx", "axb", False, id="two lists in one"),
        pytest.param("cb", "b", "ab", False, id="another writer's"),
        pytest.param("b", "b", "ab", False, id="as it was"),
        pytest.param("ab", "b", "ab", False, id="as it should be"),
        pytest.param("", "b", "ab", False, id="empty"),
    ],
)
def test_a_change_of_a_list_is_partial_if_some_elements_are_as_they_were(
    now: str, before: str, after: str, partly: bool
) -> None:
    assert is_partly_changed(row("x", now), row("x", before), row("x", after)) == partly
