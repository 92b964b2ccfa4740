from __future__ import annotations

import pytest
from cassandra.metadata import Murmur3Token
from hypothesis import given
from hypothesis import strategies as st

from ownership.ring import MAX_TOKEN, MIN_TOKEN, token_range

cuts = st.integers(1, 5000)
tokens = st.one_of(
    st.integers(MIN_TOKEN, MAX_TOKEN), st.sampled_from([MIN_TOKEN, MIN_TOKEN + 1, -1, 0, 1, MAX_TOKEN])
)


@given(cuts, tokens)
def test_every_token_is_in_exactly_one_range(of: int, token: int) -> None:
    near = (token - MIN_TOKEN) * of // (MAX_TOKEN - MIN_TOKEN)
    some = {n for n in range(near - 2, near + 3) if 0 <= n < of} | {0, of - 1}
    assert sum(token_range(n, of).holds(token) for n in some) == 1
    others = range(0, of, max(1, of // 50))
    assert not any(token_range(n, of).holds(token) for n in others if n not in some)


@given(cuts, st.data())
def test_ranges_follow_each_other_from_the_smallest_token_to_the_largest(
    of: int, data: st.DataObject
) -> None:
    assert (token_range(0, of).after, token_range(of - 1, of).upto) == (MIN_TOKEN, MAX_TOKEN)
    n = data.draw(st.integers(0, of - 1))
    assert n == of - 1 or token_range(n, of).upto == token_range(n + 1, of).after
    width = token_range(n, of).upto - token_range(n, of).after
    assert abs(width - (MAX_TOKEN - MIN_TOKEN) // of) <= 1


@given(cuts, st.text(min_size=1))
def test_a_course_is_in_the_range_of_its_token(of: int, course: str) -> None:
    token = Murmur3Token.hash_fn(course.encode(errors="replace"))
    assert sum(token_range(n, of).holds(token) for n in range(of)) == 1


@given(st.integers(-3, 3), st.integers(-3, 3))
def test_there_is_no_range_outside_the_ring(number: int, of: int) -> None:
    if 0 <= number < of:
        assert token_range(number, of).first == (number == 0)
        return
    with pytest.raises(ValueError, match="no range"):
        token_range(number, of)
