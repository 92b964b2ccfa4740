"""What this host tells the ledger of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache

from airflow.sdk.api.client import get_hostname
from airflow.sdk.configuration import conf

from ownership.domain.installation import HostKind, Tries
from ownership.edge.versions import INTERFACE
from ownership.ledger.database import Database
from ownership.ledger.hosts import Hosts
from ownership.ledger.schema import REVISION

PLUGIN = "plugin"
"""The trait by which two versions of the plugin are known."""
SIGNS_TOKENS = "[api_auth] jwt_secret"
ROUNDS = 200_000
"""Of the digest of a secret, 0.1 s: a weak one is not to be found by trying."""


def report(
    database: Database, kind: HostKind, traits: Mapping[str, str], tries: Mapping[str, Tries] | None = None
) -> None:
    """Report this host by the name that Airflow gives it in task instances, with the plugin's version."""
    plugin = f"interface {INTERFACE}, schema {REVISION}"
    Hosts(database).report(kind, get_hostname(), {PLUGIN: plugin, **traits}, tries)


def token_secret() -> dict[str, str]:
    """By option, a digest of what this process signs the tokens of logins and tasks with; none where a key file does.

    One that was not set is a random one of this process.
    """
    from airflow.api_fastapi.auth.tokens import get_signing_key  # a worker has no need of it

    if conf.get("api_auth", "jwt_private_key_path", fallback=None):
        return {}
    return {SIGNS_TOKENS: digest(SIGNS_TOKENS, get_signing_key("api_auth", "jwt_secret"))}


@cache
def digest(name: str, secret: str) -> str:
    """A short digest of a secret: it shows whether two are the same, and too little to tell a guess from another."""
    return hashlib.pbkdf2_hmac("sha256", secret.encode(), name.encode(), ROUNDS).hex()[:8]
