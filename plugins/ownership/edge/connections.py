"""Connections, read and checked. Errors name the field, and never show a secret."""

from __future__ import annotations

import json
import math
import os
import re
import ssl
from typing import Any, Self
from urllib.parse import urlsplit

from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError, ErrorType

from ownership.domain.errors import MissingConnection, SettingsError
from ownership.domain.text import one_line
from ownership.edge import tls
from ownership.platform.http_service import Endpoint, holds_login

KAFKA = "kafka_default"
CASSANDRA = "cassandra_default"
ELASTICSEARCH = "elasticsearch_default"
LMS = "lms_default"
USERORG = "userorg_default"
CONTENT = "content_search_default"
"""Optional: only people's questions about a course's name need it."""
PLATFORM = (KAFKA, CASSANDRA, ELASTICSEARCH, LMS, USERORG)

SERVICE_OPTIONS = ("verify", "cert", "headers")
"""Extra of an HTTP connection."""

_LEADS_TO: dict[str, str] = {}


def read_as_airflow_s_commands_do() -> None:
    """Let this process, a command in a shell, read the Connections and Variables that are in Airflow's database.

    Airflow's SDK reads them from the environment and the secrets backend alone, unless the process says that it is no
    task's (`_AIRFLOW_PROCESS_CONTEXT`, which `airflow connections get` sets as well).
    """
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")


def connection(conn_id: str) -> Connection:
    """An Airflow Connection.

    :raises MissingConnection: if there is none.
    :raises SettingsError: if it cannot be read.
    """
    try:
        found = BaseHook.get_connection(conn_id)
    except Exception as e:  # noqa: BLE001  # a backend of secrets may raise any class
        variable = f"AIRFLOW_CONN_{conn_id.upper()}"
        missing = _is_missing(e)
        # Airflow reports a variable that it cannot parse as not defined.
        if missing and os.environ.get(variable):
            raise SettingsError(
                f"Connection '{conn_id}' cannot be read: {variable} must be one whole JSON object, or a URI."
            ) from None
        if missing:
            raise MissingConnection(
                f"Connection '{conn_id}' is missing: add it under Admin → Connections, or set {variable}."
            ) from None
        # Of what cannot be parsed, an error may show all, with the password; the API server's own words do not.
        words = (
            str(e)
            if isinstance(e, AirflowRuntimeError)
            else f"{type(e).__name__}; is it whole JSON, or a URI?"
        )
        raise SettingsError(f"Connection '{conn_id}' cannot be read: {words}") from None
    if conn_id in PLATFORM:
        _LEADS_TO[conn_id] = _address(conn_id, found)
    return found


def leads_to() -> dict[str, str]:
    """Where the Connections to the platform lead that this process has read: hosts and ports, by id.

    The ledger's own is none of them: a host that reaches another ledger reports there.
    """
    return dict(_LEADS_TO)


def _address(conn_id: str, conn: Connection) -> str:
    """The hosts and the port of a connection, without scheme, login and path."""
    given = conn.host
    if conn_id == KAFKA:
        extra = conn.extra_dejson
        given = extra.get("bootstrap.servers") if isinstance(extra, dict) else None
    hosts = [re.sub(r"^.*://|/.*$", "", h.strip()).rpartition("@")[2] for h in str(given or "").split(",")]
    return one_line(", ".join(sorted(hosts)) + (f":{conn.port}" if conn.port else ""), 200)


def _is_missing(error: Exception) -> bool:
    if isinstance(error, AirflowRuntimeError):
        return error.error.error is ErrorType.CONNECTION_NOT_FOUND
    return isinstance(error, AirflowNotFoundException)


class Extra:
    """The extra of a connection, or an object inside it."""

    def __init__(self, conn_id: str, values: dict[str, Any], where: str = "extra") -> None:
        self._conn_id = conn_id
        self._where = where
        self.values = values

    @classmethod
    def of(cls, conn_id: str, conn: Connection) -> Self:
        """The extra of `conn`.

        :raises SettingsError: if it is no JSON object, which Airflow itself would ignore.
        """
        try:
            values = json.loads(conn.extra) if conn.extra else {}
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise SettingsError(f"Connection '{conn_id}' has an extra that is no JSON object.")
        return cls(conn_id, conn.extra_dejson)  # this property registers secrets, so that the log masks them

    def only(self, *known: str) -> Self:
        """Itself, if it has no other names than these.

        :raises SettingsError: for another name: an ignored option may be one that should protect.
        """
        if unknown := sorted(set(self.values) - set(known)):
            raise SettingsError(
                f"Connection '{self._conn_id}' has {', '.join(map(repr, unknown))} in its {self._where}, which the "
                f"job does not know; known are {', '.join(known) or 'none'}."
            )
        return self

    def inside(self, name: str) -> Extra | None:
        """The object `name`, None where there is none."""
        values = self.values.get(name)
        if values is None:
            return None
        if not isinstance(values, dict):
            raise self.wrong(name, "an object")
        return Extra(self._conn_id, values, f"{self._where} '{name}'")

    def file(self, name: str) -> tls.File | None:
        """The file that option `name` names."""
        return self.as_file(name, self.values.get(name))

    def as_file(self, name: str, path: Any) -> tls.File | None:
        """The file at `path`, the value of option `name`."""
        if path is None or path == "":
            return None
        if not isinstance(path, str):
            raise self.wrong(name, "the path of a PEM file")
        return tls.File(f"{self._where} '{name}'", path)

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false, also as text."""
        try:
            return {"true": True, "false": False}[str(self.values.get(name, default)).lower()]
        except KeyError:
            raise self.wrong(name, "true or false") from None

    def number(self, name: str, *, default: float) -> float:
        """A number above zero, also as text."""
        try:
            found = float(self.values.get(name, default))
        except (TypeError, ValueError):
            found = 0.0
        if not 0 < found < math.inf:
            raise self.wrong(name, "a number above zero")
        return found

    def context(self, **files_and_flags: Any) -> ssl.SSLContext:
        """`tls.context`, with errors that name this connection."""
        return tls.context(self._conn_id, **files_and_flags)

    def wrong(self, name: str, wanted: str) -> SettingsError:
        """The error for a value."""
        return SettingsError(f"Connection '{self._conn_id}': {self._where} '{name}' must be {wanted}.")

    def without_tls(self, *names: str) -> SettingsError:
        """The error for options that a connection without TLS would ignore."""
        return SettingsError(
            f"Connection '{self._conn_id}' has {', '.join(names)} in its {self._where}, but its schema is not "
            "https: set schema https."
        )


def endpoint(conn_id: str, setting: str = "", override: str | None = None) -> Endpoint:
    """An HTTP service with its login, headers and certificates, from its Connection.

    Extra: ``verify`` (path of a CA's file, or false), ``cert`` (path of a certificate with its key, or a list
    of the two), ``headers`` (an object of texts). With a URL (`override`) from the settings (`setting`) nothing
    of the Connection is used: a secret goes only where it was meant to go.

    :raises SettingsError: naming the field that is wrong.
    """
    if override:
        if holds_login(override):
            raise SettingsError(
                f"Setting '{setting}' holds a login: remove it, and put URL, login and password into "
                f"Connection '{conn_id}'."
            )
        return Endpoint(
            override,
            advice=f"the URL is that of setting '{setting}', for which no login, header or certificate is used; "
            f"those go with the host of Connection '{conn_id}'",
        )
    conn = connection(conn_id)
    if not (host := (conn.host or "").strip()):
        raise SettingsError(f"Connection '{conn_id}' has no host: set it under Admin → Connections.")
    url = url_at(conn_id, conn, host)
    extra = Extra.of(conn_id, conn).only(*SERVICE_OPTIONS)
    headers = _headers(extra)
    if conn.login and "authorization" in map(str.lower, headers):
        raise SettingsError(f"Connection '{conn_id}' has a login and a header Authorization: remove one.")
    return Endpoint(
        url,
        login=(conn.login, conn.password or "") if conn.login else None,
        headers=headers,
        tls=_service_tls(extra, secure=url.lower().startswith("https:")),
        advice=f"is the host of Connection '{conn_id}' right? Are its login and extra ({', '.join(SERVICE_OPTIONS)})?",
    )


def url_at(conn_id: str, conn: Connection, host: str, *, port: int | None = None) -> str:
    """The URL of one host of an HTTP connection. The host may be a URL itself, and have a path behind it.

    `port` is that of a host alone where the connection names none.

    :raises SettingsError: if host and schema (http, unless it says otherwise) make none, or the host holds a login.
    """
    is_url = "://" in host
    scheme = (host.partition("://")[0] if is_url else conn.schema or "http").lower()
    if scheme not in ("http", "https"):
        raise SettingsError(f"Connection '{conn_id}' has schema {scheme!r}; use http or https.")
    if not is_url and host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"  # an IPv6 address, as Airflow takes it out of a URI
    url = host if is_url else f"{scheme}://{host}"
    if holds_login(url):  # URLs appear in logs and messages
        raise SettingsError(
            f"Connection '{conn_id}' has a login in its host: use the fields login and password."
        )
    wanted = conn.port or (None if is_url else port)
    if wanted and not 0 < wanted < 65536:
        raise SettingsError(f"Connection '{conn_id}' has port {wanted}, which is none.")
    try:
        address = urlsplit(url)
        has_port = address.port is not None
    except ValueError as e:
        raise SettingsError(f"Connection '{conn_id}' has a host that is no address: {e}") from None
    if has_port or not wanted:
        return url
    return address._replace(netloc=f"{address.netloc}:{wanted}").geturl()


def _headers(extra: Extra) -> dict[str, str]:
    """The headers, checked here: the client's own error would show their values."""
    found = extra.inside("headers")
    for name, value in found.values.items() if found else ():
        if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
            raise extra.wrong("headers", "an object whose names are those of headers")
        if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", value):
            raise extra.wrong(
                "headers", f"an object of texts of printable ASCII characters, which {name} is not"
            )
    return found.values if found else {}


def _service_tls(extra: Extra, *, secure: bool) -> ssl.SSLContext | None:
    verify = str(extra.values.get("verify", True)).lower()
    ca = None if verify in ("true", "false") else extra.file("verify")
    cert = extra.values.get("cert")
    pair = cert if isinstance(cert, list) and len(cert) == 2 else [cert, None]
    certificate, key = (extra.as_file("cert", path) for path in pair)
    if secure:
        return extra.context(ca=ca, certificate=certificate, key=key, verify=verify != "false")
    if ca or certificate or key:
        raise extra.without_tls("verify or cert")
    return None
