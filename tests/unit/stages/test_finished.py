"""What the asset events of finished transfers say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ownership.domain.options import PLAIN, Options
from ownership.ledger.events import EventRow
from ownership.stages import finished
from ownership.stages.finished import extras
from tests.unit.replay import transfer


def event(n: int, pair: str, counts: dict[str, int], options: Options = PLAIN) -> EventRow:
    row = SimpleNamespace(
        mid=f"m{n:02}", transfer=transfer(n, *pair), organisation_id="org", counts=counts, options=options
    )
    return cast("EventRow", row)


def reported(*events: EventRow) -> list[dict[str, Any]]:
    return list(extras("run", events))


def test_a_run_that_finished_nothing_tells_nothing() -> None:
    assert reported() == []


def test_each_transfer_is_reported_with_its_users_and_counts_and_a_batch_of_a_chain_is_counted_once() -> None:
    chain = (
        event(0, "ab", {"moved": 2, "rows": 0}),
        event(1, "bc", {"moved": 2, "rows": 2, "changed_elsewhere": 1}),
    )
    assert reported(*chain) == [
        {
            "run_id": "run", "moved": 2, "transfers": [
                {"mid": "m00", "from_user": "a", "to_user": "b", "organisation_id": "org", "undo_of": None,
                 "moved": 2, "counts": {"moved": 2}},
                {"mid": "m01", "from_user": "b", "to_user": "c", "organisation_id": "org", "undo_of": None,
                 "moved": 2, "counts": {"moved": 2, "changed_elsewhere": 1}},
            ],
        }
    ]  # fmt: skip


def test_an_undo_names_what_it_took_back_and_nothing_to_move_is_none() -> None:
    (said,) = reported(event(0, "ba", {}, Options(undo_of="m9")))
    assert said["moved"] == 0
    assert [(t["undo_of"], t["moved"]) for t in said["transfers"]] == [("m9", 0)]


def test_a_large_run_tells_in_parts_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "PER_EVENT", 2)
    said = reported(*(event(n, "ab", {"moved": 1, "rows": 1}) for n in range(5)))
    assert [(s["moved"], len(s["transfers"])) for s in said] == [(2, 2), (2, 2), (1, 1)]
