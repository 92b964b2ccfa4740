"""TLS by the options of a Connection. A server is verified unless the Connection says otherwise."""

from __future__ import annotations

import ssl
from typing import NamedTuple

import certifi

from ownership.domain.errors import SettingsError


class File(NamedTuple):
    """A PEM file that a Connection names, and the field that names it."""

    field: str
    path: str


def context(
    conn_id: str,
    *,
    ca: File | None = None,
    certificate: File | None = None,
    key: File | None = None,
    verify: bool = True,
    check_hostname: bool = True,
) -> ssl.SSLContext:
    """A client's context: the authorities to trust (`ca`, else the public ones), and the job's own certificate.

    :raises SettingsError: if a file is missing or holds something else, naming the field.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # TLS 1.2 or newer; trusts no authority yet
    made.check_hostname = verify and check_hostname
    if not verify:
        made.verify_mode = ssl.CERT_NONE
    trusted = ca or File("", certifi.where())
    try:
        made.load_verify_locations(trusted.path)
    except (OSError, ValueError) as e:
        raise _unusable(conn_id, trusted, "certificates", e) from None
    if certificate:
        try:
            # An empty password, or OpenSSL would ask the terminal for that of an encrypted key.
            made.load_cert_chain(certificate.path, key.path if key else None, password="")
        except (OSError, ValueError) as e:
            raise _unusable(conn_id, certificate, "a certificate with its key, unencrypted", e) from None
    elif key:
        raise SettingsError(f"Connection '{conn_id}' has {key.field} without a certificate: set both.")
    return made


def _unusable(conn_id: str, file: File, what: str, error: Exception) -> SettingsError:
    # OpenSSL's text does not help, and the system's repeats the path.
    reason = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
    return SettingsError(
        f"Connection '{conn_id}': {file.field} names '{file.path}', which cannot be used "
        f"({reason or type(error).__name__}). It must be a PEM file of {what}, readable on every worker."
    )
