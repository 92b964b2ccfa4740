"""A ledger that is one migration ahead of the worker: what is under way ends, and the next run's first task says so."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from ownership.domain.errors import SettingsError
from ownership.edge.hooks import opened_intake, opened_parts
from ownership.ledger.schema import REVISION
from tests.integration.stages.transfer_world import World


def migrate_ahead(world: World) -> str:
    """What a later version would do: add a column, and note its revision. Returns that."""
    ahead = f"{int(REVISION) + 1:04}"
    with psycopg.connect(world.ledger) as connection:
        connection.execute("ALTER TABLE event ADD COLUMN tenant text NOT NULL DEFAULT 'sunbird'")
        connection.execute("UPDATE alembic_version SET version_num = %s", (ahead,))
    return ahead


def test_a_ledger_that_is_ahead_is_reported_by_the_first_task_and_a_run_under_way_ends(
    own_world: World, environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = own_world.users("old", "new")
    (batch,) = own_world.batches(created_by=old)
    own_world.platform.emit(own_world.event(old, new))
    run = own_world.job.run().pull().lookup()
    ahead = migrate_ahead(own_world)
    assert run.update().reindex().settle().events == {"completed": 1}
    assert own_world.owners(batch) == (new, ())

    monkeypatch.setenv("AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER", f'{{"env": "{own_world.env}"}}')
    own_world.lead_to_ledger(environment, monkeypatch)
    with (
        opened_parts() as parts,
        pytest.raises(
            SettingsError, match=f"The ledger has schema {ahead}, newer than {REVISION} of this version"
        ),
        opened_intake(parts),
    ):
        pass
