"""A document that the index refuses is its own event's matter."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ownership.domain.plan import BatchId, Document, Row
from ownership.platform.search_index import RefusedDocument, Written
from ownership.stages.reindex import _sync_wave, _unproven

GOOD, STALE, BAD, NEW = (BatchId("c", b) for b in ("good", "stale", "bad", "new"))
P1, P2 = SimpleNamespace(key="1"), SimpleNamespace(key="2")
BOOK: Any = SimpleNamespace(is_up_to_date=lambda _: True, phases_of=lambda row: [P2] if row.id == BAD else [])
ROWS = {i: Row(i, "b", (), 1) for i in (GOOD, STALE, BAD, NEW)}


def document(i: BatchId, created_by: str, own_id: str | None = None) -> Document:
    return Document(i.batch_id, created_by, (), 1, 1, "c", own_id)


def parts(written: list[Any]) -> Any:
    """A good, a stale and a refused document; one batch has none, one has two."""
    found = {
        "good": (document(GOOD, "b"), document(GOOD, "a", "own")),
        "stale": (document(STALE, "a"),),
        "bad": (document(BAD, "a"),),
    }

    def write(updates: Any, creates: Any) -> Written:
        written.extend([[d.document_id for d, *_ in updates], list(creates)])
        return Written({"own": (7, 1)}, [RefusedDocument("bad", "bad", "no")])

    return SimpleNamespace(
        index=SimpleNamespace(get=lambda _: found, write=write),
        rows=SimpleNamespace(
            read=lambda ids: {i: ROWS[i] for i in ids}, read_whole=lambda ids: dict.fromkeys(ids, "row")
        ),
        changes=SimpleNamespace(
            planned=lambda mids: {(m, i) for m, i in (("m1", GOOD), ("m1", STALE), ("m2", BAD)) if m in mids}
        ),
    )


def test_every_document_that_differs_is_written_and_only_what_the_index_took_needs_no_other_pass() -> None:
    written: list[Any] = []
    created, refused = set[BatchId](), dict[BatchId, str]()
    done = _sync_wave(parts(written), BOOK, [GOOD, STALE, BAD, NEW], created, refused)
    assert written == [["own", "stale", "bad"], ["row"]]
    assert done.in_line == {"good": (GOOD, (1, 1)), "own": (GOOD, (7, 1))}
    assert (done.doubtful, created) == ({STALE, NEW}, {NEW})
    assert refused == {BAD: "the index refuses document bad: no"}


def test_only_the_phase_of_a_refused_document_is_not_proven() -> None:
    claimed: Any = SimpleNamespace(
        book=SimpleNamespace(phases=[P1, P2], phases_of=lambda _: []),
        mids_with_plans=lambda ps: {f"m{p.key}" for p in ps},
    )
    assert _unproven(parts([]), claimed, set(), {}, {BAD: "refused"}) == {"2": "incomplete: refused"}
    assert _unproven(parts([]), claimed, set(), {}, {}) == {}
    both = _unproven(parts([]), claimed, {STALE}, {}, {BAD: "refused"})
    assert both.keys() == {"1", "2"}
    assert both["2"] == "incomplete: refused"
    # What belongs to no phase in particular is everybody's.
    assert _unproven(parts([]), claimed, {NEW}, {}, {}).keys() == {"1", "2"}
