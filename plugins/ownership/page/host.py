"""What an API server tells the ledger: of itself, and of the workers that Airflow's database knows."""

from __future__ import annotations

import hashlib
from functools import cache

import structlog
from sqlalchemy.exc import SQLAlchemyError

from ownership.domain.clock import now_ms
from ownership.domain.errors import OwnershipError
from ownership.domain.installation import RECENT_MS, HostKind
from ownership.edge.hosts import report
from ownership.ledger.database import Database
from ownership.ledger.hosts import Hosts
from ownership.page import airflow_facts

log = structlog.get_logger(__name__)

ROUNDS = 200_000
"""Of the digest of a secret, 0.1 s: a weak one is not to be found by trying."""


def report_api_server(database: Database) -> None:
    """Report this host, and on which workers tries ended since workers report, at most an hour ago."""
    try:
        first_ms = Hosts(database).first_worker_ms()
        tries = airflow_facts.tries_by_worker(max(first_ms, now_ms() - RECENT_MS)) if first_ms else {}
    except (OwnershipError, SQLAlchemyError) as e:
        log.warning("this API server cannot be reported", why=str(e))
        return
    secrets = {name: digest(name, secret) for name, secret in airflow_facts.signing_secrets().items()}
    report(database, HostKind.API_SERVER, secrets, tries)


@cache
def digest(name: str, secret: str) -> str:
    """A short digest of a secret: it shows whether two are the same, and too little to tell a guess from another."""
    return hashlib.pbkdf2_hmac("sha256", secret.encode(), name.encode(), ROUNDS).hex()[:8]
