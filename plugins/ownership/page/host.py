"""What an API server tells the ledger: of itself, and of the workers that Airflow's database knows."""

from __future__ import annotations

import structlog
from sqlalchemy.exc import SQLAlchemyError

from ownership.domain.clock import now_ms
from ownership.domain.errors import OwnershipError
from ownership.domain.installation import RECENT_MS, HostKind
from ownership.edge.hosts import digest, report, token_secret
from ownership.ledger.database import Database
from ownership.ledger.hosts import Hosts
from ownership.page import airflow_facts

log = structlog.get_logger(__name__)

SIGNS_FORMS = "[api] secret_key"


def report_api_server(database: Database) -> None:
    """Report this host, and on which workers tries ended since workers report, at most an hour ago."""
    try:
        first_ms = Hosts(database).first_worker_ms()
        tries = airflow_facts.tries_by_worker(max(first_ms, now_ms() - RECENT_MS)) if first_ms else {}
    except (OwnershipError, SQLAlchemyError) as e:
        log.warning("this API server cannot be reported", why=str(e))
        return
    secrets = {SIGNS_FORMS: digest(SIGNS_FORMS, airflow_facts.secret_key()), **token_secret()}
    report(database, HostKind.API_SERVER, secrets, tries)
