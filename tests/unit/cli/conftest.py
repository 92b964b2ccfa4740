"""The API with a user who may do everything."""

from __future__ import annotations

import pytest

from tests.unit.page.api.service import Service, opened_service


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    """It and its Airflow, to look at."""
    return opened_service(monkeypatch)
