"""Imports in a real PostgreSQL: rows beside their events, started once, removed when they are too old."""

from __future__ import annotations

import pytest

from ownership.domain.clock import now
from ownership.domain.imports import Import, ImportNotReady, ImportState, RowState, Step, mid_of
from ownership.domain.transfer_files import FileRow, RowError
from ownership.ledger import months
from ownership.ledger.database import Database
from ownership.ledger.imports import Imports, failed_rows
from ownership.ledger.months import remove_old
from tests.harness import execute

GOOD = [FileRow(n, f"a{n}", "b", "O", "left", 2) for n in (2, 3, 4)]
WRONG = FileRow(5, "", "b", "O", error=RowError("from_user", "is empty"))


def import_of(name: str) -> Import:
    return Import(name, "an-admin", now(), "leavers.csv", "0" * 64, 4, 1, ("O",))


def event(
    ledger: Database, mid: str, state: str, moved: int | None = None, reason: str | None = None
) -> None:
    """The event that a run has brought, in this state now."""
    counts = "{}" if moved is None else f'{{"moved": {moved}}}'
    ended = "now()" if state in ("completed", "rehearsed", "skipped") else "NULL"
    completed = "now()" if state == "completed" else "NULL"
    execute(
        ledger,
        "INSERT INTO event (mid, order_ms, kafka_partition, kafka_offset, from_user, to_user, source_user, "
        "target_user, origin, topic, kafka_ms, state, counts, reason, ended_at, completed_at) VALUES (:mid, 1, -1, 0, "
        f"'a', 'b', 'a', 'b', 'manual', 't', 1, :state, CAST(:counts AS jsonb), :reason, {ended}, {completed}) "
        "ON CONFLICT (mid) DO UPDATE SET state = excluded.state, counts = excluded.counts, "
        "reason = excluded.reason, ended_at = excluded.ended_at, completed_at = excluded.completed_at",
        mid=mid, state=state, counts=counts, reason=reason,
    )  # fmt: skip


def states(imports: Imports, name: str) -> list[RowState]:
    return [r.state for r in imports.rows(name)]


def test_an_import_goes_from_its_dry_runs_to_its_proof(ledger: Database) -> None:
    imports = Imports(ledger)
    new = import_of("one")
    assert imports.create(new, [*GOOD, WRONG])
    assert imports.get("one") == new
    assert [r.row for r in imports.rows("one")] == [*GOOD, WRONG]
    assert imports.missing("one", Step.CHECK, 0) == GOOD
    assert imports.missing("one", Step.CHECK, 1) == []
    assert imports.missing_blocks("one", Step.CHECK) == [0]
    assert imports.missing("one", Step.GO, 0) == []
    assert imports.missing_blocks("one", Step.GO) == []
    assert imports.progress("one").state is ImportState.CHECKING

    event(ledger, "import:one:2:check", "rehearsed", 3)
    event(ledger, "import:one:3:check", "planned")
    assert states(imports, "one") == [RowState.READY, *[RowState.CHECKING] * 2, RowState.WRONG]
    assert imports.missing("one", Step.CHECK, 0) == GOOD[2:]
    with pytest.raises(ImportNotReady, match="2 rows are still being checked"):
        imports.start("one", "an-admin", only_good=True)

    event(ledger, "import:one:3:check", "rehearsed", 4)
    event(ledger, "import:one:4:check", "skipped", reason="no such user")
    progress = imports.progress("one")
    assert (progress.state, progress.would_move, progress.failures) == (ImportState.CHECKED, 7, 2)
    assert [r.failure().error for r in imports.rows("one", 3)] == [RowError("", "no such user"), WRONG.error]
    with pytest.raises(ImportNotReady, match="2 rows cannot be carried out"):
        imports.start("one", "an-admin", only_good=False)

    imports.start("one", "an-admin", only_good=True)
    imports.start("one", "somebody-else", only_good=True)  # pressed again
    started = imports.get("one")
    assert started is not None
    assert started.started_by == "an-admin"
    assert imports.missing("one", Step.GO, 0) == GOOD[:2]
    assert [r.transfer_mid for r in imports.rows("one")] == [
        *(mid_of("one", n, Step.GO) for n in (2, 3)),
        None,
        None,
    ]
    assert imports.progress("one").state is ImportState.STARTED

    event(ledger, "import:one:2", "completed", 3)
    event(ledger, "import:one:3", "failed", reason="Cassandra is away")
    progress = imports.progress("one")
    assert (progress.state, progress.moved) == (ImportState.DONE, 3)
    assert states(imports, "one") == [RowState.DONE, RowState.FAILED, RowState.REFUSED, RowState.WRONG]
    assert imports.rows("one", 2, limit=1)[0].failure().error == RowError("", "Cassandra is away")


def test_a_row_that_was_left_out_is_a_failure_though_its_dry_run_succeeds_later(ledger: Database) -> None:
    """The job tries a failed dry run again by itself; nothing would carry the row out."""
    imports = Imports(ledger)
    imports.create(import_of("one"), GOOD)
    event(ledger, "import:one:2:check", "rehearsed", 3)
    event(ledger, "import:one:3:check", "failed", reason="Cassandra is away")
    event(ledger, "import:one:4:check", "failed", reason="Cassandra is away")
    imports.start("one", "an-admin", only_good=True)
    event(ledger, "import:one:2", "completed", 3)
    event(ledger, "import:one:3:check", "rehearsed", 4)
    event(ledger, "import:one:4:check", "planned")
    assert states(imports, "one") == [RowState.DONE, RowState.REFUSED, RowState.REFUSED]
    progress = imports.progress("one")
    assert (progress.state, progress.failures) == (ImportState.DONE, 2)
    failed = list(failed_rows(imports, "one"))
    assert [r.failure()._replace(error=None) for r in failed] == GOOD[1:]
    assert {r.failure().error for r in failed} == {RowError("", "was left out: its dry run had failed")}


def test_a_row_whose_dry_run_found_no_batch_says_none(ledger: Database) -> None:
    imports = Imports(ledger)
    imports.create(import_of("one"), GOOD)
    event(ledger, "import:one:2:check", "rehearsed")
    event(ledger, "import:one:3:check", "planned")
    assert [r.would_move for r in imports.rows("one")] == [0, None, None]


def test_an_import_is_written_once(ledger: Database) -> None:
    imports = Imports(ledger)
    assert imports.create(import_of("one"), GOOD)
    assert not imports.create(import_of("one")._replace(file_digest="1" * 64), [WRONG])
    assert [r.row for r in imports.rows("one")] == GOOD
    assert imports.get("two") is None


def test_imports_are_listed_the_newest_first_a_page_at_a_time(ledger: Database) -> None:
    imports = Imports(ledger)
    for name in ("one", "two", "three"):
        imports.create(import_of(name), GOOD)
    first = imports.newest(2)
    assert [i.id for i in first] == ["three", "two"]
    assert [i.id for i in imports.newest(2, first[-1])] == ["one"]


def test_imports_go_when_the_retention_is_over(ledger: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    imports = Imports(ledger)
    for name in ("old", "new"):
        imports.create(import_of(name), GOOD)
    execute(ledger, "UPDATE import SET created_at = now() - interval '401 days' WHERE id = 'old'")
    monkeypatch.setattr(months, "ROWS_PER_DELETE", 2)
    assert remove_old(ledger, 400).imports == 1
    assert [i.id for i in imports.newest(10)] == ["new"]
    assert execute(ledger, "SELECT DISTINCT import_id FROM import_row") == [("new",)]


@pytest.mark.parametrize("mid", ["import:old:3:check", "import:old:3"])
def test_an_import_stays_as_long_as_an_event_that_it_brought(ledger: Database, mid: str) -> None:
    """Events go by whole months, and those that are not final later still."""
    imports = Imports(ledger)
    imports.create(import_of("old"), GOOD)
    execute(ledger, "UPDATE import SET created_at = now() - interval '401 days'")
    execute(ledger, "UPDATE import_row SET transfer_mid = 'import:old:3' WHERE number = 3")
    event(ledger, mid, "completed")
    assert remove_old(ledger, 400).imports == 0
    assert [r.row for r in imports.rows("old")] == GOOD
    execute(ledger, "DELETE FROM event")
    assert remove_old(ledger, 400).imports == 1
