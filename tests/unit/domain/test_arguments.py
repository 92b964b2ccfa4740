from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from ownership.domain.arguments import above_zero, whole, words


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "1e10", "0", "-1", "soon", ""])
def test_what_is_no_number_above_zero_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is not a number above 0, 1,000,000,000 at most"):
        above_zero(text)
    assert above_zero(" 0.5 ") == 0.5


@pytest.mark.parametrize("text", ["0", "4", "-1", "1.5", "x", "", "9" * 5000])
def test_what_is_no_whole_number_of_a_range_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is not a whole number from 1 to 3"):
        whole(3)(text)
    assert whole(3)("3") == 3


@pytest.mark.parametrize("text", ["", " \t"])
def test_a_text_that_is_blank_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is empty"):
        words(text)
    assert words(" a ") == " a "
