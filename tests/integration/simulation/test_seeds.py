"""Worlds of fixed seeds end as they must; and the same seed is the same world."""

from __future__ import annotations

import pytest

from simulation.campaign import Report, report_of, run_seeds
from simulation.farm import Farm


def test_fixed_seeds_end_as_they_must(farm: Farm) -> None:
    totals = run_seeds(farm, range(1000, 1040))
    assert totals.failed == []
    assert totals.worlds == 40


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(683, id="a change without an answer is made or ruled out before it is judged"),
        pytest.param(719, id="of two images of one change the one counts that its own process has announced"),
        pytest.param(10135, id="an executed plan moves its batches alone, whatever came late"),
        pytest.param(10807, id="became the creator, was a mentor, before a late event"),
        pytest.param(10858, id="a replaced try records the wave that it had under way"),
        pytest.param(11357, id="a try that is ended lets go of an event that awaits its approval"),
        pytest.param(11744, id="was the creator, became a mentor, before a late event"),
        pytest.param(12234, id="a phase that lost an event to an older try of its run is not begun"),
        pytest.param(12980, id="what was just given is found, though its event is hours old"),
        pytest.param(14935, id="what the LMS shows in the middle of a proof is not the proof's refresh"),
        pytest.param(15267, id="what an abandoned event has given is found by the next one"),
        pytest.param(18007, id="what one phase leads away and back was changed by no event"),
        pytest.param(1000799, id="a late event is credited with what it changed alone"),
        pytest.param(18450, id="a store that does not answer a reconciliation is unavailable"),
        pytest.param(26953, id="a late event and what its batches are passed on to do not go at once"),
        pytest.param(2003830, id="what was merged into a given place is passed on"),
        pytest.param(2004029, id="a plan that was applied passes nothing on"),
        pytest.param(2004156, id="a late event splits a mentor's place again"),
        pytest.param(24039, id="a write whose answer was lost takes effect after its event was abandoned"),
        pytest.param(31486, id="what became of images is judged before their event is abandoned"),
        pytest.param(33309, id="a lost answer's write counts, though a successor saw the row before it"),
        pytest.param(39345, id="a try that froze does not judge the images of its successor"),
        pytest.param(61170, id="a write without an answer to a row that was edited since is in doubt"),
        pytest.param(
            54321, id="a change that was taken back is counted again when a try that froze repeats it"
        ),
        pytest.param(64149, id="what took a change back need not have an outcome yet"),
        pytest.param(52747, id="of two images of one change one counts, though the other's process wakes"),
        pytest.param(50408, id="a lost answer claims no change that a try that froze has counted"),
        pytest.param(45153, id="a try that froze made its change after it was judged, and died"),
        pytest.param(22473, id="a try that froze before it wrote its outcomes writes none to a final event"),
        pytest.param(2000353, id="a change is counted once, though two tries that froze announced it"),
    ],
)
def test_what_a_seed_has_found_stays_mended(farm: Farm, seed: int) -> None:
    assert run_seeds(farm, range(seed, seed + 1)).failed == []


def test_a_seed_is_the_same_world_in_every_process(farm: Farm) -> None:
    seeds = [7, 8, 9]
    played = [list(farm.map(report_of, seeds)) for _ in range(4)]
    assert all(p == played[0] for p in played)
    assert all(isinstance(r, Report) and r.calls > 50 for r in played[0])
