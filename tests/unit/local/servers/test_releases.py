"""Which servers the environment asks for."""

from __future__ import annotations

import pytest

from local.paths import REPOSITORY
from local.servers.java import LOCK_FILE
from local.servers.releases import KNOWN, Releases


def test_without_variables_it_is_the_default_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KNOWN:
        monkeypatch.delenv(f"{name.upper()}_SERVER", raising=False)
    assert Releases.from_environment() == Releases("elasticsearch717", "cassandra5", "kafka4")


@pytest.mark.parametrize(("part", "known"), KNOWN.items())
def test_every_release_can_be_asked_for_and_has_a_lock_file(
    monkeypatch: pytest.MonkeyPatch, part: str, known: dict[str, object]
) -> None:
    for name in known:
        monkeypatch.setenv(f"{part.upper()}_SERVER", name)
        assert getattr(Releases.from_environment(), part) == name
        assert list((REPOSITORY / "local" / "servers").glob(f"*/{name}/{LOCK_FILE}"))


@pytest.mark.parametrize(("part", "known"), KNOWN.items())
def test_an_unknown_release_is_refused_with_the_list(
    monkeypatch: pytest.MonkeyPatch, part: str, known: dict[str, object]
) -> None:
    monkeypatch.setenv(f"{part.upper()}_SERVER", "solr")
    with pytest.raises(ValueError, match="_SERVER=solr is not known here") as refused:
        Releases.from_environment()
    assert all(name in str(refused.value) for name in known)
