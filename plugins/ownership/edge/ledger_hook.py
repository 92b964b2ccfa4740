"""The ledger's database from its Connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ownership.domain.errors import SettingsError
from ownership.edge.connections import Extra, connection
from ownership.ledger.database import CONNECTION as LEDGER
from ownership.ledger.database import Database

LEDGER_OPTIONS = (
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcrl",
    "target_session_attrs",
    "connect_timeout",
    "channel_binding",
    "gssencmode",
    "krbsrvname",
)
"""Extra of the ledger's Connection: options of libpq, by its own names."""


def ledger_parameters() -> dict[str, Any]:
    """Libpq's parameters of the ledger's database, from its Connection.

    A host may be several, separated by commas; with ``"target_session_attrs": "read-write"`` the one that takes
    writes is found after a failover.

    :raises SettingsError: naming the field that is missing or wrong.
    """
    conn = connection(LEDGER)
    if conn.conn_type not in ("postgres", "postgresql"):
        raise SettingsError(f"Connection '{LEDGER}' has type {conn.conn_type!r}: its type must be postgres.")
    for field, value in (("host", conn.host), ("schema (the database)", conn.schema), ("login", conn.login)):
        if not value:
            raise SettingsError(f"Connection '{LEDGER}' has no {field}: set it under Admin → Connections.")
    options = Extra.of(LEDGER, conn).only(*LEDGER_OPTIONS)
    # Tried here: libpq's own error names no field.
    ca = None if options.values.get("sslrootcert") == "system" else options.file("sslrootcert")
    certificate, key = options.file("sslcert"), options.file("sslkey")
    if ca or certificate or key:
        options.context(ca=ca, certificate=certificate, key=key)
    if revoked := options.file("sslcrl"):
        options.context(ca=revoked)  # libpq goes on without a list that it cannot read
    given = {n: str(v) for n, v in options.values.items() if v not in (None, "")}
    if "connect_timeout" in given:
        options.number("connect_timeout", default=0)  # the driver takes zero for two minutes
    tls = [name for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl") if name in given]
    if tls and given.get("sslmode", "prefer") in ("allow", "prefer"):
        # libpq's default would go on without TLS where the certificate does not fit.
        raise SettingsError(
            f"Connection '{LEDGER}' has {', '.join(tls)} in its extra without an sslmode that asks for TLS: set "
            "sslmode to verify-full (or verify-ca, require)."
        )
    parameters = {
        # A blank would be a part of the name: the host behind it would be none, and be missed after a failover.
        "host": ",".join(h.strip() for h in (conn.host or "").split(",")),
        "port": str(conn.port or 5432),
        "dbname": conn.schema,
        "user": conn.login,
        "password": conn.password,
        **given,
    }
    return {n: v for n, v in parameters.items() if v is not None}


@contextmanager
def opened_database(*, connections: int = 2) -> Iterator[Database]:
    """The ledger's database, closed at the end. It connects when it is first used.

    :raises SettingsError: if the Connection is missing or wrong.
    """
    database = Database.at(ledger_parameters(), connections=connections)
    try:
        yield database
    finally:
        database.close()
