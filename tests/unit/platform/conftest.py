"""The job's view of an index, without a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ownership.platform.search_index import SearchIndex
from tests.unit.fake_index import Node, fake_index


@pytest.fixture
def fake() -> Iterator[tuple[SearchIndex, type[Node]]]:
    with fake_index() as made:
        yield made


@pytest.fixture
def index(fake: tuple[SearchIndex, type[Node]]) -> SearchIndex:
    return fake[0]


@pytest.fixture
def node(fake: tuple[SearchIndex, type[Node]]) -> type[Node]:
    """The node that answers for the index."""
    return fake[1]
