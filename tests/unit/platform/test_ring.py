from __future__ import annotations

import pytest
from cassandra.metadata import Murmur3Token
from hypothesis import given
from hypothesis import strategies as st

from ownership.platform.ring import MAX_TOKEN, MIN_TOKEN, range_of, token, token_range

cuts = st.integers(1, 4096)
tokens = st.one_of(
    st.integers(MIN_TOKEN, MAX_TOKEN), st.sampled_from([MIN_TOKEN, MIN_TOKEN + 1, -1, 0, 1, MAX_TOKEN])
)


@given(cuts, tokens)
def test_every_token_is_in_exactly_one_range(of: int, at: int) -> None:
    near = (at - MIN_TOKEN) * of // (MAX_TOKEN - MIN_TOKEN)
    some = {n for n in range(near - 2, near + 3) if 0 <= n < of} | {0, of - 1}
    assert sum(token_range(n, of).holds(at) for n in some) == 1
    others = range(0, of, max(1, of // 50))
    assert not any(token_range(n, of).holds(at) for n in others if n not in some)


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
    course = course.encode(errors="replace").decode()
    assert Murmur3Token.from_key(course.encode()).value == token(course)
    assert sum(token_range(n, of).holds(token(course)) for n in range(of)) == 1


@given(st.integers(-3, 3), st.integers(-3, 3))
def test_there_is_no_range_outside_the_ring(number: int, of: int) -> None:
    if 0 <= number < of:
        assert token_range(number, of).first == (number == 0)
        return
    with pytest.raises(ValueError, match="no range"):
        token_range(number, of)


@given(cuts, st.one_of(st.text(), st.sampled_from(["do_1", ""])))
def test_the_number_of_a_course_s_range_is_reckoned_as_the_ranges_are_cut(of: int, course: str) -> None:
    course = course.encode(errors="replace").decode()
    assert token_range(range_of(course, of), of).holds(token(course))


@given(cuts, tokens)
def test_the_number_is_right_at_every_edge(of: int, at: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ownership.platform.ring.token", lambda _: at)
        assert token_range(range_of("c", of), of).holds(at)


@given(cuts, st.data())
def test_what_a_range_has_is_in_one_of_its_halves(of: int, data: st.DataObject) -> None:
    whole = token_range(data.draw(st.integers(0, of - 1)), of)
    lower, upper = whole.halves
    edges = (
        whole.after,
        whole.after + 1,
        lower.upto - 1,
        lower.upto,
        lower.upto + 1,
        whole.upto,
        whole.upto + 1,
    )
    at = data.draw(st.one_of(st.sampled_from(edges), st.integers(whole.after, whole.upto)))
    assert lower.holds(at) + upper.holds(at) == whole.holds(at)
