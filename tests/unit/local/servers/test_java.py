"""A jar on its way: the network away for a moment, for good, and another content than the lock's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jgo.maven
import pytest
import stamina

from local.servers import java
from local.servers.java import TRIES, Jar

CONTENT = b"a jar"
JAR = Jar("org.example", "thing", "1", "", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    with stamina.set_testing(True, attempts=TRIES, cap=True):
        yield


def served(monkeypatch: pytest.MonkeyPatch, content: bytes = CONTENT, *, failures: int = 0) -> list[int]:
    """A repository that cannot be reached the first times; the number of each try."""
    tries: list[int] = []

    def context(repo_cache: Path, timeout: float) -> Any:
        def resolve() -> Path:
            tries.append(len(tries) + 1)
            if len(tries) <= failures:
                raise OSError("Temporary failure in name resolution")
            got = repo_cache / "got.jar"
            got.write_bytes(content)
            return got

        versioned = SimpleNamespace(artifact=lambda *_: SimpleNamespace(resolve=resolve))
        return SimpleNamespace(project=lambda *_: SimpleNamespace(at_version=lambda _: versioned))

    monkeypatch.setattr(jgo.maven, "MavenContext", context)
    return tries


def test_a_network_that_is_away_for_a_moment_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tries = served(monkeypatch, failures=TRIES - 1)
    java._download(JAR, tmp_path / "thing.jar")
    assert (tmp_path / "thing.jar").read_bytes() == CONTENT
    assert len(tries) == TRIES


def test_a_repository_out_of_reach_ends_it_with_the_jar_s_name_and_nothing_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tries = served(monkeypatch, failures=TRIES)
    with pytest.raises(RuntimeError, match=r"thing-1\.jar could not be downloaded.*name resolution"):
        java._download(JAR, tmp_path / "thing.jar")
    assert len(tries) == TRIES
    assert list(tmp_path.iterdir()) == []


def test_another_content_than_the_lock_s_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served(monkeypatch, b"something else")
    with pytest.raises(RuntimeError, match="serves another thing-1"):
        java._download(JAR, tmp_path / "thing.jar")
    assert list(tmp_path.iterdir()) == []
