"""What this host tells the ledger of itself."""

from __future__ import annotations

from collections.abc import Mapping

from airflow.sdk.api.client import get_hostname

from ownership.domain.installation import HostKind, Tries
from ownership.edge.versions import INTERFACE
from ownership.ledger.database import Database
from ownership.ledger.hosts import Hosts
from ownership.ledger.schema import REVISION

PLUGIN = "plugin"
"""The trait by which two versions of the plugin are known."""


def report(
    database: Database, kind: HostKind, traits: Mapping[str, str], tries: Mapping[str, Tries] | None = None
) -> None:
    """Report this host by the name that Airflow gives it in task instances, with the plugin's version."""
    plugin = f"interface {INTERFACE}, schema {REVISION}"
    Hosts(database).report(kind, get_hostname(), {PLUGIN: plugin, **traits}, tries)
