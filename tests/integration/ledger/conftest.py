from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from ownership.ledger.database import Database
from tests.harness import opened_ledger


@pytest.fixture
def ledger(stack: Any) -> Iterator[Database]:
    """A ledger of a test's own."""
    with opened_ledger(stack.addresses.ledger, f"ledger_{uuid.uuid4().hex[:12]}") as database:
        yield database
