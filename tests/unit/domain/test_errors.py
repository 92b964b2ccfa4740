from __future__ import annotations

import inspect
import re

import pytest

from ownership.domain import errors
from ownership.domain.conf import ConfError
from ownership.domain.errors import OwnershipError, Permanent, Poison, TakenOver, Transient, Unavailable
from ownership.domain.text import MAX_LINE

CLASSES = {name: c for name, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, Exception)}


def drawn() -> dict[str, str]:
    """Parent by class, as the module's docstring draws the tree."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if not (match := re.match(r"([│├└─ ]*)([A-Z]\w+)(?:  |$)", line.removeprefix("    "))):
            continue
        depth = len(match[1])
        above = [a for a in above if a[0] < depth]
        parents[match[2]] = above[-1][1] if above else "Exception"
        above.append((depth, match[2]))
    return parents


def test_the_tree_is_as_it_is_drawn() -> None:
    assert drawn() == {name: c.__mro__[1].__name__ for name, c in CLASSES.items()}


def test_no_error_is_both_permanent_and_transient() -> None:
    kinds = (Permanent, Transient, Poison, TakenOver)
    for c in CLASSES.values():
        assert sum(issubclass(c, k) for k in kinds) == (c is not OwnershipError)


def test_a_conf_that_cannot_be_carried_out_is_permanent() -> None:
    assert issubclass(ConfError, Permanent)


@pytest.mark.parametrize("reason", ["HTTP 503", OSError("gone")])
def test_an_outage_says_which_part_and_why(reason: object) -> None:
    error = Unavailable("Cassandra", reason)
    assert error.part == "Cassandra"
    assert str(error) == f"Cassandra unavailable: {reason}"


@pytest.mark.parametrize("kind", [OwnershipError, ConfError, Poison])
def test_an_error_is_one_line_that_every_store_takes_whatever_was_said(kind: type[OwnershipError]) -> None:
    said = str(kind("a\nb\x00c\ud800d\x1b[31m\u202e" + "x" * 10_000))
    assert said.startswith("a b\ufffdc\ufffdd\ufffd[31m\ufffdx")
    assert said.isprintable()
    assert len(said) == MAX_LINE
    said.encode("utf-8")


def test_an_outage_is_one_line_too() -> None:
    assert str(Unavailable("LMS", ValueError("a\r\nb"))) == "LMS unavailable: a  b"
    assert str(OwnershipError()) == ""
