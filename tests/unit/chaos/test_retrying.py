"""What the platform's producers and the LMS try again while a server is down."""

from __future__ import annotations

import pytest
from elasticsearch.helpers import BulkIndexError

from chaos.retrying import retried


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(BulkIndexError("1 document(s) failed to index.", []), id="an index that is read-only"),
        pytest.param(ConnectionResetError(), id="a server that was killed"),
    ],
)
def test_what_a_fault_refuses_is_tried_again(refusal: Exception) -> None:
    answers: list[Exception | int] = [refusal, 7]

    def ask() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retried(ask) == 7


def test_an_error_of_the_suite_itself_is_raised_at_once() -> None:
    answers = [KeyError("mid"), 7]

    def ask() -> object:
        raise answers.pop(0)  # type: ignore[misc]  # only the first is asked for

    with pytest.raises(KeyError):
        retried(ask)
    assert len(answers) == 1
