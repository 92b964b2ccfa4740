from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownership.domain.text import printable


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        pytest.param("a\ud83db\udc00", "a\ufffdb\ufffd", id="lone surrogates"),
        pytest.param("\x00\x1b[2J\x7f", "\ufffd\ufffd[2J\ufffd", id="control characters"),
        pytest.param("\u202eabc\u2066\x9b2J", "\ufffdabc\ufffd\ufffd2J", id="the direction of writing"),
        pytest.param("a\r\n\tb", "a   b", id="white space"),
        pytest.param("🙂 क्‍ष ünï", "🙂 क्‍ष ünï", id="whatever else"),
    ],
)
def test_what_a_store_refuses_is_replaced_and_all_else_stays(text: str, kept: str) -> None:
    assert printable(text) == kept


@given(st.text(st.characters()))
def test_a_printable_text_stays_as_it_is_and_has_the_same_length(text: str) -> None:
    kept = printable(text)
    assert (printable(kept), len(kept)) == (kept, len(text))
    assert "\x00" not in kept
    kept.encode()
