"""Histories of rows and claims: what the recorder's lines say, and which of them cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from chaos.histories import Row, Rows, Verdict, Writes, judge, take
from chaos.inside import clocks, guards, hook, recorder
from local.paths import REPOSITORY

A, B, OUTSIDER = ["a", [], 1], ["b", [], 1], ["lms", [], 1]
ROWS = {"batch": Row("a", (), 1)}
MIDS = {1: "event"}


def judged(*lines: dict[str, Any], edits: Rows | None = None) -> Verdict:
    return judge(lines, ROWS, edits or defaultdict(list), MIDS)


def seen(value: list[Any] | None, begin: int) -> dict[str, Any]:
    return {"kind": "read", "begin": begin, "end": begin + 1, "rows": {"batch": value}}


def swap(before: list[Any], after: list[Any], begin: int, *, applied: bool | None) -> list[dict[str, Any]]:
    op = f"s{begin}"
    lines: list[dict[str, Any]] = [
        {"kind": "set", "op": op, "begin": begin, "changes": [["batch", before, after]]}
    ]
    return lines if applied is None else [*lines, {"op": op, "end": begin + 5, "applied": applied}]


def transaction(begin: int, *steps: tuple[str, Any], committed: bool = True) -> list[dict[str, Any]]:
    op = f"t{begin}"
    numbered = [[what, begin + 1 + n, of] for n, (what, of) in enumerate(steps)]
    line = {"kind": "queue", "op": op, "begin": begin, "steps": numbered}
    return [line, {"op": op, "end": begin + 9}] if committed else [line]


def claim(
    begin: int, run: str, token: int, was: tuple[int, str | None, int] = (0, None, 0), ms: int = 0
) -> list[dict[str, Any]]:
    looked = {"run": run, "ms": ms, "rows": [["event", *was]]}
    columns = {"fencing_token": token, "holder": run, "lease_expires_at": ms + 100}
    return transaction(begin, ("looked", looked), ("set", {"ids": [1], "columns": columns}))


def commit(begin: int, token: int, *, holds: bool, committed: bool = True) -> list[dict[str, Any]]:
    lock = ("lock", {"event": [token, 1 if holds else None]})
    return transaction(begin, lock, *([("remove", [1])] if holds else []), committed=committed)


def fence(begin: int, token: int, *, holds: bool) -> list[dict[str, Any]]:
    return transaction(begin, ("fence", {"event": [token, holds]}))


def test_a_transfer_of_a_row_is_linearizable():
    verdict = judged(seen(A, 0), *swap(A, B, 10, applied=True), seen(B, 20))
    assert (verdict.operations, verdict.unknown, verdict.violations) == (3, 0, [])


def test_a_try_of_which_the_answer_is_lost_may_be_seen_later():
    verdict = judged(*swap(A, B, 0, applied=None), seen(A, 10), *swap(A, B, 20, applied=False), seen(B, 30))
    assert (verdict.unknown, verdict.violations) == (1, [])


@pytest.mark.parametrize("columns", [{"createdby": "lms"}, {"mentors": ["lms"]}, {"status": 2}, None])
def test_a_swap_that_overlooks_an_edit_is_found(
    columns: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("time.monotonic_ns", iter((10, 12)).__next__)
    lms = Writes()
    with lms.plainly("batch", columns):
        pass
    assert judged(seen(A, 0), *swap(A, B, 20, applied=True), edits=lms.operations).violations
    assert not judged(seen(A, 0), *swap(A, B, 20, applied=False), edits=lms.operations).violations


def test_an_edit_that_failed_may_have_taken_effect():
    lms = Writes()
    with pytest.raises(OSError, match="away"), lms.plainly("batch", {"createdby": "lms"}):
        raise OSError("away")
    assert not judged(seen(A, 0), edits=lms.operations).violations
    (edit,) = lms.operations["batch"]
    assert (edit.end, edit.after(ROWS["batch"])) == (None, Row("lms", (), 1))


def test_a_batch_of_several_rows_that_was_refused_says_nothing_about_one_of_them():
    changes = [["batch", A, B], ["other", A, B]]
    assert not judged(
        {"kind": "set", "op": "s", "begin": 0, "changes": changes}, {"op": "s", "end": 1, "applied": False}
    ).violations


def test_claims_that_follow_one_another_are_linearizable():
    verdict = judged(
        *claim(0, "one", 1),
        *fence(10, 1, holds=True),
        *claim(20, "two", 2, was=(1, "one", 100), ms=200),
        *fence(30, 1, holds=False),
        *commit(40, 1, holds=False),
        *commit(50, 2, holds=True),
        *fence(60, 2, holds=False),
    )
    assert verdict.violations == []


def test_a_commit_of_which_the_answer_is_lost_may_have_taken_effect():
    begun = claim(0, "one", 1), commit(10, 1, holds=True, committed=False)
    for holds in (True, False):
        assert not judged(*begun[0], *begun[1], *fence(30, 1, holds=holds)).violations
    assert judged(*begun[0], *begun[1], *fence(30, 1, holds=False), *fence(50, 1, holds=True)).violations


def test_a_renewed_and_a_released_lease_are_seen_by_the_next_claim():
    lock = ("lock", {"event": [1, 1]})
    renew = transaction(20, lock, ("set", {"ids": [1], "columns": {"lease_expires_at": 500}}))
    let_go = {"ids": [1], "columns": {"holder": None, "lease_expires_at": None}}
    release = transaction(40, lock, ("set", let_go))
    lines = [*claim(0, "one", 1), *renew, *release]
    assert not judged(*lines, *claim(60, "two", 2, was=(1, None, 0))).violations
    assert judged(*lines, *claim(60, "two", 2, was=(1, "one", 500), ms=600)).violations


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([*claim(0, "one", 1), *claim(3, "two", 1)], id="two claims with one token"),
        pytest.param(
            [*claim(0, "one", 1), *claim(20, "two", 2, (1, "one", 100), 200), *commit(40, 1, holds=True)],
            id="a commit under an old token",
        ),
        pytest.param(
            [*claim(0, "one", 1), *commit(20, 1, holds=True), *claim(40, "two", 2, (1, "one", 100), 200)],
            id="an event that is final is seen in the queue",
        ),
        pytest.param(
            [*claim(0, "one", 1), *claim(20, "two", 2, (1, "one", 100), 50)], id="taken while its lease lives"
        ),
        pytest.param([*claim(0, "one", 1), *fence(20, 1, holds=False)], id="lost although nobody took it"),
    ],
)
def test_what_no_queue_can_answer_is_found(lines: list[dict[str, Any]]):
    assert judged(*lines).violations


def test_lines_are_taken_once(tmp_path: Path):
    recorder.Recorder(tmp_path).write(kind="read", begin=1, end=2, rows={})
    assert take(tmp_path) == [{"kind": "read", "begin": 1, "end": 2, "rows": {}}]
    assert take(tmp_path) == []


LOOK = """
import json
from importlib import import_module
import ownership.ledger.database, ownership.ledger.events, ownership.ledger.queue
from ownership.platform import cassandra, course_batches
from ownership.platform.course_batches import CourseBatches
from ownership.domain.plan import BatchId, Row

statement, values = CourseBatches(None, "k", "t", batch_size=1)._update(
    Row(BatchId("c", "b"), "a", (), 1, ()), Row(BatchId("c", "b"), "z", (), 1, ())
)
changed = (
    ownership.ledger.database.Database._once, ownership.ledger.events.lock, ownership.ledger.queue.Queue.claim,
    ownership.ledger.queue._set, cassandra.execute_concurrent, cassandra.Cql._batch, CourseBatches.read,
)
print(json.dumps([statement, values, [f.__module__ for f in changed], ownership.ledger.queue._locked_head.__module__]))
"""


@pytest.mark.parametrize("without", [None, *guards.GUARDS])
def test_a_process_with_the_hook_records_and_works_without_a_guard(tmp_path: Path, without: str | None):
    environment = hook.environment(tmp_path, without, str(REPOSITORY / "plugins"))
    found = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    statement, values, changed, head = json.loads(found.stdout)
    blind = without == "compare-and-set"
    assert statement.endswith(" IF EXISTS" if blind else guards.CONDITION)
    assert values == (["z", "c", "b"] if blind else ["z", "c", "b", "a", None, 1])
    assert set(changed) == {"chaos.inside.recorder"}
    assert (head == "chaos.inside.guards") is (without == "claim-lock")


def test_clocks_jump_while_it_is_asked_for_and_back(tmp_path: Path):
    assert clocks.offset_s(tmp_path) == 0
    with clocks.jumped(tmp_path, 60):
        assert 0 < abs(clocks.offset_s(tmp_path)) <= 60
        assert clocks.offset_s(tmp_path) == clocks.offset_s(tmp_path)
    assert clocks.offset_s(tmp_path) == 0
