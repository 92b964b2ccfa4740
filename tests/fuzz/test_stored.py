"""The stand-in of the ledger refuses what PostgreSQL would refuse."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from ownership.domain.event import Identifier, LedgerId, folded
from ownership.ledger.schema import event
from tests.fuzz.stored import check_row

ROW: dict[str, Any] = {
    "mid": "LP.1.a", "order_ms": 1, "kafka_partition": 0, "kafka_offset": 7, "from_user": "A", "to_user": "b",
    "source_user": "a", "target_user": "b", "organisation_id": "org", "origin": "kafka", "topic": "in", "kafka_ms": 1,
    "ets": 1, "options": {"roles": ["created"]}, "requested_by": None, "state": "received",
}  # fmt: skip


def test_a_row_that_postgresql_takes_is_taken() -> None:
    check_row(event, ROW)


@pytest.mark.parametrize("letter", ["x", "É", "Ⱥ", "अ", "😀"])
def test_the_longest_ids_that_an_event_may_have_fit_into_every_index(letter: str) -> None:
    user, mid = longest(Identifier, letter), longest(LedgerId, letter)
    small = folded(user)
    check_row(
        event,
        ROW
        | {"from_user": user, "to_user": user, "source_user": small, "target_user": small}
        | {"mid": mid, "organisation_id": user, "request_id": user, "state": "awaiting_approval"},
    )


def longest(kind: Any, letter: str) -> str:
    """The longest text of this letter that is an id of the kind."""
    for n in range(400, 0, -1):
        with suppress(ValidationError):
            return str(TypeAdapter(kind).validate_python(letter * n))
    raise AssertionError(letter)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"mid": "a\x00b"}, id="NUL in a text"),
        pytest.param({"mid": "a\ud800b"}, id="half a surrogate pair in a text"),
        pytest.param({"mid": 7}, id="a number for a text"),
        pytest.param({"mid": None}, id="null where there must be a value"),
        pytest.param({"kafka_partition": 2**31}, id="an integer of 33 bits"),
        pytest.param({"kafka_offset": 2**63}, id="a bigint of 65 bits"),
        pytest.param({"kafka_ms": 1.5}, id="a fraction for a bigint"),
        pytest.param({"options": {"a": "\x00"}}, id="NUL in jsonb"),
        pytest.param({"options": {"a\ud800": 1}}, id="half a surrogate pair in jsonb"),
        pytest.param({"options": {"a": float("nan")}}, id="NaN in jsonb"),
        pytest.param({"source_user": "x" * 2700}, id="an entry that is too long for its index"),
        pytest.param({"users": "x"}, id="a column that there is not"),
    ],
)
def test_a_row_that_postgresql_refuses_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  # of the driver, of Python, or the stand-in's own
        check_row(event, {**ROW, **wrong})
