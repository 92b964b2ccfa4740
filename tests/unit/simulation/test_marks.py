"""Deaths are put into the line of the crash-point table to which they belong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulation.marks import CRASH_POINTS, MARKS, crash_points
from simulation.scheduler import Fate, Line


def died(task: str, *calls: str) -> list[str]:
    """The marks of a task that dies after its last call."""
    parted = [call.split(" ", 1) for call in calls]
    lines = [Line(0, f"run-1.{task}#1", n, store, what, "", "") for n, (store, what) in enumerate(parted, 1)]
    return list(crash_points([*lines[:-1], lines[-1]._replace(fate=Fate.DIES_AFTER)]))


@pytest.mark.parametrize(
    ("task", "calls", "point"),
    [
        ("pull", ["kafka consume 0"], "nothing of a message"),
        ("pull", ["kafka consume 0", "kafka dead letter x"], "a dead letter, not its message"),
        ("pull", ["kafka consume 0", "ledger Arrivals.store"], "events and offset, not committed to Kafka"),
        ("pull", ["kafka consume 0", "ledger Arrivals.store", "kafka commit"], "accepted, not claimed"),
        (
            "pull",
            ["ledger Arrivals.store", "kafka commit", "ledger Queue.claim m0#1"],
            "claimed, no slices handed on",
        ),
        ("pull", ["ledger Queue.take_over"], "taken over by an order, not written"),
        ("lookup[0]", ["ledger Events.decide"], "verdict, or part of the plan"),
        ("update[0]", ["ledger Changes.record"], "image, row not changed"),
        ("update[0]", ["ledger Changes.record", "rows b0 applied"], "row changed, image without outcome"),
        (
            "update[1]",
            ["ledger Changes.record", "ledger Changes.settle_images"],
            "rows changed, documents not",
        ),
        ("reindex[0]", ["index write b0"], "documents changed, not committed"),
        (
            "reindex[0]",
            ["index write b0", "ledger Events.complete"],
            "a phase committed, claims not released",
        ),
    ],
)
def test_a_death_belongs_to_a_line_of_the_table(task: str, calls: list[str], point: str) -> None:
    assert died(task, *calls) == [f"crash: {point}"]


def test_every_line_of_the_table_has_a_mark() -> None:
    page = (Path(__file__).parents[3] / "docs" / "architecture.md").read_text()
    table = page.partition("| written so far |")[2].partition("\n\n")[0]
    lines = re.findall(r"^\| (?!---)(.+?) \|", table, re.MULTILINE)
    # The first and the last line have two marks each: of a message and its dead letter, of rows and of documents.
    assert len(CRASH_POINTS) == len(lines) + 2
    assert set(CRASH_POINTS) < set(MARKS)
