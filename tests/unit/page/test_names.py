"""Names beside ids: the event's own first, else User-Org's, asked for few at a time and not again for a while."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

import pytest

from ownership.domain.errors import Unavailable
from ownership.domain.event import Transfer
from ownership.domain.organisations import EVERYTHING, VisibleOrganisations
from ownership.page.names import FAILED_S, KEPT_S, MAX_ASKED, Names
from ownership.page.payload import NamePair
from ownership.platform.name_search import Named
from tests.unit.page.rows import key


class UserOrg:
    """User-Org as the page asks it: who has no name here is not answered about."""

    def __init__(self) -> None:
        self.known = {"a": "Ada", "b": "Babbage", "nameless": ""}
        self.asked: list[list[str]] = []
        self.down = False

    def ask(self, question: Callable[[Any], dict[str, Named]]) -> dict[str, Named]:
        if self.down:
            self.asked.append([])
            raise Unavailable("User-Org", "no answer within 2 s")
        return question(self)

    def names(self, user_ids: Collection[str]) -> dict[str, Named]:
        self.asked.append(list(user_ids))
        return {u: Named(u, self.known[u], f"org-{u}") for u in user_ids if u in self.known}


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.user_org = UserOrg()
        self.names = Names(self.user_org, lambda: self.now)  # type: ignore[arg-type]  # it has what is asked of it


@pytest.fixture
def world() -> World:
    return World()


def body(**profiles: dict[str, str]) -> bytes:
    return json.dumps({"edata": profiles}).encode()


def test_a_name_is_asked_for_once_and_again_after_a_few_minutes(world: World) -> None:
    assert world.names.of(["a", "b", "a"], EVERYTHING) == {"a": "Ada", "b": "Babbage"}
    assert world.names.of(["b", "nameless"], EVERYTHING) == {"b": "Babbage", "nameless": ""}
    assert world.names.of(["nameless", "a"], EVERYTHING) == {"nameless": "", "a": "Ada"}
    assert world.user_org.asked == [["a", "b"], ["nameless"]]
    world.now += KEPT_S
    world.names.of(["a"], EVERYTHING)
    assert world.user_org.asked[2:] == [["a"]]


def test_who_is_not_answered_about_is_left_alone_for_a_while(world: World) -> None:
    assert world.names.of(["a", "silent"], EVERYTHING) == {"a": "Ada"}
    world.names.of(["silent"], EVERYTHING)
    assert len(world.user_org.asked) == 1
    world.now += FAILED_S
    world.names.of(["silent"], EVERYTHING)
    assert len(world.user_org.asked) == 2


def test_an_outage_leaves_ids_alone(world: World) -> None:
    world.user_org.down = True
    assert world.names.of(["a"], EVERYTHING) == {}
    assert not any(world.names.of(["a"], EVERYTHING).values())
    assert len(world.user_org.asked) == 1


def test_a_page_asks_for_few_and_memory_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownership.page.names.MAX_KEPT", 30)
    for n in range(5):
        world.names.of((f"{n}-{k}" for k in range(100)), EVERYTHING)
    assert [len(a) for a in world.user_org.asked] == [MAX_ASKED] * 5
    assert len(world.names._kept) == 30


def test_the_event_s_own_names_come_first(world: World) -> None:
    own = Transfer(key("own"), "a", "b")
    half = Transfer(key("half"), "a", "unknown")
    plain = Transfer(key("plain"), "b", "nameless")
    bodies = {
        "own": body(
            fromUserProfile={"firstName": "A.", "lastName": "Lovelace"}, toUserProfile={"userName": "cb"}
        ),
        "half": body(toUserProfile={"firstName": "\u202ereverse"}),
    }
    assert world.names.pairs([own, half, plain], bodies, EVERYTHING) == {
        "own": NamePair("A. Lovelace", "cb"),
        "half": NamePair("Ada", "\ufffdreverse"),
        "plain": NamePair("Babbage", ""),
    }
    assert world.user_org.asked == [["a", "b", "nameless"]]


def test_a_name_of_user_org_s_is_for_those_who_may_see_the_user_s_organisation(world: World) -> None:
    """Whoever starts a dry run may name any user in it."""
    one_s_own = VisibleOrganisations(frozenset({"org-a"}))
    of_nobody = VisibleOrganisations(frozenset())
    for _ in range(2):  # asked for, and kept
        assert world.names.of(["a", "b"], one_s_own) == {"a": "Ada", "b": ""}
        assert world.names.of(["a", "b"], of_nobody) == {"a": "", "b": ""}
        assert world.names.of(["a", "b"], EVERYTHING) == {"a": "Ada", "b": "Babbage"}
    assert world.user_org.asked == [["a", "b"]]
    probe = Transfer(key("probe"), "b", "a")
    own_words = {"probe": body(toUserProfile={"firstName": "A."})}
    assert world.names.pairs([probe], own_words, one_s_own) == {"probe": NamePair("", "A.")}
