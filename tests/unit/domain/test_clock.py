"""Times in words."""

from __future__ import annotations

import pytest

from ownership.domain.clock import duration


@pytest.mark.parametrize(
    ("ms", "words"),
    [(-5, "0.0 s"), (0, "0.0 s"), (2840, "2.8 s"), (11_000, "11 s"), (119_400, "119 s"), (120_000, "2 min"),
     (300_000, "5 min"), (7_140_000, "119 min"), (3 * 3_600_000, "3 h"), (72 * 3_600_000, "3 days")],
)  # fmt: skip
def test_a_time_span_is_given_in_the_unit_that_fits(ms: int, words: str) -> None:
    assert duration(ms) == words
