"""One farm for all tests of the simulation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simulation.farm import Farm, opened_farm


@pytest.fixture(scope="session")
def farm() -> Iterator[Farm]:
    with opened_farm() as found:
        yield found
