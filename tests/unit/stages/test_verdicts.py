"""The verdict on a transfer, by what User-Org says of its two users."""

from __future__ import annotations

from typing import Any

import pytest

from ownership.domain.errors import Unavailable
from ownership.domain.settings import Settings
from ownership.domain.states import Decision
from ownership.ledger.events import Verdict
from ownership.platform.user_org import Lookup, Refusal, Standing, User
from ownership.stages.verdicts import by_answers

WORDS = "UOS_USRRED0006: User account has been blocked ."
A, B = User("a", "Org"), User("b", "oRG")
OUT = Unavailable("User-Org", "HTTP 503")


def refused(user: str, standing: Standing, words: str = WORDS) -> Refusal:
    return Refusal(user, standing, words)


def judged(giver: Lookup, receiver: Lookup, **settings: Any) -> Verdict | Unavailable:
    return by_answers(giver, receiver, "org", Settings.model_validate(settings))


def test_both_users_of_the_organisation_are_valid() -> None:
    assert judged(A, B) == Verdict(Decision.VALID)


@pytest.mark.parametrize(
    ("giver", "receiver", "reason"),
    [
        pytest.param(refused("a", Standing.UNKNOWN), B, "user 'a' is unknown to User-Org", id="an unknown giver"),
        pytest.param(A, refused("b", Standing.UNKNOWN), "user 'b' is unknown to User-Org", id="an unknown receiver"),
        pytest.param(
            A, refused("b", Standing.DELETED), f"user 'b' is deleted or blocked in User-Org ({WORDS})", id="deleted"
        ),
        pytest.param(
            refused("a", Standing.DELETED), refused("b", Standing.DELETED),
            f"user 'b' is deleted or blocked in User-Org ({WORDS})", id="both deleted",
        ),
        pytest.param(
            refused("a", Standing.REFUSED, "UOS_USRRED0028: odd"), B,
            "User-Org refuses user 'a': UOS_USRRED0028: odd", id="another word",
        ),
        pytest.param(
            A, User("b", "another"), "user 'b' belongs to another organisation than the event's", id="an organisation"
        ),
        pytest.param(
            refused("a", Standing.DELETED), User("b", "another"),
            "user 'b' belongs to another organisation than the event's", id="deleted, to another organisation",
        ),
        pytest.param(OUT, refused("b", Standing.UNKNOWN), "user 'b' is unknown to User-Org", id="beside an outage"),
    ],
)  # fmt: skip
def test_a_word_against_a_user_is_a_verdict_with_its_reason(
    giver: Lookup, receiver: Lookup, reason: str
) -> None:
    assert judged(giver, receiver) == Verdict(Decision.INVALID, reason)


@pytest.mark.parametrize(
    ("giver", "receiver"), [(OUT, B), (A, OUT), (refused("a", Standing.DELETED), OUT), (OUT, OUT)]
)
def test_an_outage_decides_nothing(giver: Lookup, receiver: Lookup) -> None:
    assert judged(giver, receiver) is OUT


def test_a_deleted_giver_is_carried_out_or_skipped_as_the_setting_says() -> None:
    giver = refused("a", Standing.DELETED)
    assert judged(giver, B) == Verdict(Decision.GIVER_DELETED, WORDS)
    assert judged(giver, B, **{"transfer.deleted.givers": "skip"}) == Verdict(
        Decision.INVALID,
        f"user 'a' is deleted or blocked in User-Org ({WORDS}); transfer.deleted.givers = skip",
    )
