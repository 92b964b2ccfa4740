"""Secured servers: certificates; Kafka, Cassandra and PostgreSQL that ask for a login; gates before the others."""

from __future__ import annotations

import asyncio
import datetime
import http.client
import ipaddress
import json
import re
import shlex
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID

from local.servers import cassandra, kafka, postgres
from local.servers.layout import Layout
from local.servers.ports import HOST
from local.servers.processes import Server, await_condition
from local.servers.releases import Releases

PASSWORD = "s3cret-Pa55word"  # noqa: S105  # of servers that live for a test; looked for in every message
STORES_PASSWORD = "of-the-stores"  # noqa: S105  # the same, of their key stores
DOCS = Path(__file__).parents[3] / "docs"
SECURITY, LEDGER_PAGE = ((DOCS / name).read_text() for name in ("security.md", "ledger.md"))


# --- what the page says


def documented(heading: str, page: str = SECURITY) -> list[str]:
    """The indented lines of a section of the page, each a statement, a command or a document."""
    found = re.search(rf"(?ms)^#+ {re.escape(heading)}\n(.*?)(?=^##+ |\Z)", page)
    assert found, heading
    return [line.strip() for line in found[1].splitlines() if line.startswith("    ")]


def documented_connections(files: Path) -> dict[str, dict[str, Any]]:
    """The connections of the page by their variable, with passwords and files that there are."""
    found = re.findall(r"(?m)^    (AIRFLOW_CONN_\w+)='(.*)'$", SECURITY)
    return {
        name: json.loads(value.replace("<password>", PASSWORD).replace("/etc/airflow/tls", str(files)))
        for name, value in found
    }


def documented_statements(heading: str, page: str = SECURITY) -> list[str]:
    """The CQL or SQL of a section."""
    lines = [line for line in documented(heading, page) if line.endswith(";")]
    assert lines
    return [line.rstrip(";").replace("<password>", PASSWORD) for line in lines]


def documented_acls() -> list[AclBinding]:
    """What the commands of the page would add."""
    found = []
    for command in documented("ACLs on Kafka"):
        words = shlex.split(command)
        options = list(pairwise(words))
        (principal,) = (value for name, value in options if name == "--allow-principal")
        ((kind, name),) = ((n, v) for n, v in options if n in ("--topic", "--group"))
        found += [
            AclBinding(
                ResourceType[kind.removeprefix("--").upper()],
                name,
                ResourcePatternType.LITERAL,
                principal,
                "*",
                AclOperation[value.upper()],
                AclPermissionType.ALLOW,
            )
            for option, value in options
            if option == "--operation"
        ]
    return found


# --- certificates


class Authority:
    """Signs certificates, and writes them as PEM files and as key stores."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(Encoding.PEM))
        self.trust = directory / f"{name}.p12"
        self.trust.write_bytes(
            pkcs12.serialize_java_truststore(
                [pkcs12.PKCS12Certificate(self._certificate, b"ca")],
                BestAvailableEncryption(STORES_PASSWORD.encode()),
            )
        )

    def issue(self, file: str, name: str) -> Path:
        """`file`.pem, .key and .p12 for `name`, valid for this machine's own address; the PEM file is returned."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._signed(subject, key, x509.BasicConstraints(ca=False, path_length=None))
        pem = self.directory / f"{file}.pem"
        pem.write_bytes(certificate.public_bytes(Encoding.PEM))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        pem.with_suffix(".key").write_bytes(private)
        pem.with_suffix(".key").chmod(0o600)
        pem.with_suffix(".p12").write_bytes(
            pkcs12.serialize_key_and_certificates(
                b"own",
                key,
                certificate,
                [self._certificate],
                BestAvailableEncryption(STORES_PASSWORD.encode()),
            )
        )
        return pem

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, constraints: x509.BasicConstraints
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.IPAddress(ipaddress.ip_address(HOST)), x509.DNSName("localhost")]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(constraints, critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )


# --- Kafka, Cassandra and PostgreSQL


@dataclass(frozen=True)
class Kafka:
    """A broker whose plain listener is the administrator's; the others are for who may."""

    server: Server
    plain: str
    scram_tls: str
    scram: str
    certificate: str
    oauth: str
    """Takes any unsecured token: whoever has one is who it says."""

    def allow(self, bindings: list[AclBinding]) -> None:
        """Add ACLs."""
        self._ask(lambda admin: admin.create_acls(bindings, request_timeout=20))

    def forbid(self, binding: AclBinding) -> None:
        """Remove one."""
        wanted = AclBindingFilter(
            binding.restype,
            binding.name,
            binding.resource_pattern_type,
            binding.principal,
            binding.host,
            binding.operation,
            binding.permission_type,
        )
        (removed,) = self._ask(lambda admin: admin.delete_acls([wanted], request_timeout=20))
        assert removed == [binding]

    def add_user(self, name: str, password: str) -> None:
        """A login with SCRAM."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        user = UserScramCredentialUpsertion(name, info, password.encode())
        self._ask(lambda admin: admin.alter_user_scram_credentials([user], request_timeout=20))

    def _ask(self, question: Callable[[AdminClient], Mapping[Any, Future[Any]]]) -> list[Any]:
        admin = AdminClient({"bootstrap.servers": self.plain, "socket.timeout.ms": 10_000})
        return [answer.result(timeout=20) for answer in question(admin).values()]


def secured_kafka(layout: Layout, authority: Authority) -> Kafka:
    """A broker, not started."""
    ports = {name: layout.port(f"kafka-{name.lower()}") for name in ("SASL_SSL", "SASL_PLAINTEXT", "SSL")}
    release = Releases().kafka
    ports |= {"PLAINTEXT": layout.port(release), "OAUTH": layout.port("kafka-oauth")}
    listeners = [f"{name}://{HOST}:{port}" for name, port in ports.items()]
    oauth = "org.apache.kafka.common.security.oauthbearer"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    more = {
        "listeners": ",".join([*listeners, f"CONTROLLER://{HOST}:{layout.port(f'{release}-controller')}"]),
        "advertised.listeners": ",".join(listeners),
        "listener.security.protocol.map": ",".join(f"{n}:{n}" for n in ports if n != "OAUTH")
        + ",OAUTH:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": scram,
        "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": scram,
        "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
        # A session ends with its token.
        "listener.name.oauth.oauthbearer.connections.max.reauth.ms": 3_600_000,
        "listener.name.oauth.oauthbearer.sasl.jaas.config": f"{oauth}.OAuthBearerLoginModule required "
        'unsecuredLoginStringClaim_sub="broker";',
        "listener.name.oauth.oauthbearer.sasl.server.callback.handler.class": f"{oauth}.internals.unsecured."
        "OAuthBearerUnsecuredValidatorCallbackHandler",
        "listener.name.ssl.ssl.client.auth": "required",
        "ssl.principal.mapping.rules": "RULE:^CN=(.*?)$/$1/",
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": authority.directory / "server.p12",
        "ssl.keystore.password": STORES_PASSWORD,
        "ssl.truststore.type": "PKCS12",
        "ssl.truststore.location": authority.trust,
        "ssl.truststore.password": STORES_PASSWORD,
    }
    return Kafka(
        kafka.server(layout, release, more),
        *(f"{HOST}:{ports[name]}" for name in ("PLAINTEXT", "SASL_SSL", "SASL_PLAINTEXT", "SSL", "OAUTH")),
    )


def secured_cassandra(layout: Layout, authority: Authority, tls: ssl.SSLContext) -> Server:
    """A node, not started."""
    more = {
        "authenticator": "PasswordAuthenticator",
        "authorizer": "CassandraAuthorizer",
        "role_manager": "CassandraRoleManager",
        # A grant counts at once.
        "permissions_validity": "0ms",
        "roles_validity": "0ms",
        "client_encryption_options": {
            "enabled": True,
            "optional": False,
            "require_client_auth": True,
            "store_type": "PKCS12",
            "keystore": str(authority.directory / "server.p12"),
            "keystore_password": STORES_PASSWORD,
            "truststore": str(authority.trust),
            "truststore_password": STORES_PASSWORD,
        },
    }
    return cassandra.server(layout, Releases().rows, more, tls)


@dataclass(frozen=True)
class Postgres:
    """A server whose administrator comes through the socket, and everybody else by the rules of `admit`."""

    server: Server
    access: Path
    """Its pg_hba.conf."""

    @property
    def port(self) -> int:
        """Where it listens, without TLS: its build has none."""
        return self.server.ports[0]

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Rows of a statement of the administrator."""
        with psycopg.connect(
            host=self.server.address, user="postgres", dbname=database, autocommit=True
        ) as administrator:
            done = administrator.execute(statement.encode())
            return done.fetchall() if done.description else []

    def admit(self, *rules: str) -> None:
        """Let these in, and nobody else. They count from now on."""
        loaded = "SELECT pg_conf_load_time()"
        before = self.execute(loaded)
        self.access.write_text("\n".join(["local all all trust", *rules, ""]))
        self.execute("SELECT pg_reload_conf()")
        await_condition(lambda: self.execute(loaded) != before, timeout_s=10, what="the server's new rules")


def secured_postgres(layout: Layout) -> Postgres:
    """A server, not started, that admits its administrator only."""
    plain = postgres.server(layout)
    access = Path(plain.command[plain.command.index("-D") + 1]) / "pg_hba.conf"

    def prepare() -> None:
        plain.prepare()
        access.write_text("local all all trust\n")

    # As an administrator leaves it; what the local server has otherwise only makes tests quick.
    durable = ("-c", "synchronous_commit=on")
    return Postgres(replace(plain, command=(*plain.command, *durable), prepare=prepare), access)


# --- gates


class Gate(ThreadingHTTPServer):
    """TLS, and a look at who asks, before a plain HTTP server. `calls` are those that were let through."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, behind: str, tls: ssl.SSLContext, allowed: Mapping[str, str]) -> None:
        """`allowed`: a header and the value that it must have."""
        super().__init__((HOST, 0), _Passing)
        self.behind = urlsplit(behind).netloc
        self.allowed = dict(allowed)
        self.calls: list[tuple[str, str]] = []
        self._tls = tls

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        """A connection; its thread shakes hands, so that nobody waits for somebody else's."""
        plain, address = super().get_request()
        return self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not trust the gate, or shows no certificate, is none of its errors."""


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: Gate

    def setup(self) -> None:
        # What is written in two parts would wait for the other side's acknowledgement of the first.
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if any(self.headers.get(name) != value for name, value in self.server.allowed.items()):
            refusal = {
                "error": {"type": "security_exception", "reason": "unable to authenticate"},
                "status": 401,
            }
            self._answer(401, [("Content-Type", "application/json")], json.dumps(refusal).encode())
            return
        self.server.calls.append((self.command, self.path.partition("?")[0]))
        behind = http.client.HTTPConnection(self.server.behind, timeout=30)
        try:
            headers = {n: v for n, v in self.headers.items() if n.lower() not in ("host", "authorization")}
            behind.request(self.command, self.path, body, headers)
            answer = behind.getresponse()
            kept = [
                (n, v)
                for n, v in answer.getheaders()
                if n.lower() not in ("content-length", "transfer-encoding", "connection")
            ]
            self._answer(answer.status, kept, answer.read())
        finally:
            behind.close()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _pass  # noqa: N815  # the base class calls them so

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        pass


def server_context(authority: Authority, *, client_certificate: bool) -> ssl.SSLContext:
    """For a gate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(authority.directory / "server.pem", authority.directory / "server.key")
    if client_certificate:
        made.load_verify_locations(authority.file)
        made.verify_mode = ssl.CERT_REQUIRED
    return made


@contextmanager
def opened_gate(
    behind: str, authority: Authority, allowed: Mapping[str, str], *, client_certificate: bool = False
) -> Iterator[Gate]:
    """A gate that stands open for who may pass."""
    gate = Gate(behind, server_context(authority, client_certificate=client_certificate), allowed)
    thread = threading.Thread(target=gate.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield gate
    finally:
        gate.shutdown()
        gate.server_close()
        thread.join(10)


_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104
"""What a client of PostgreSQL asks for before it says who it is."""


class PostgresGate:
    """TLS before a PostgreSQL that has none: as pgbouncer with `client_tls_sslmode = require`, in pgbouncer's words."""

    def __init__(self, behind: int, tls: ssl.SSLContext) -> None:
        self.port = 0
        self.sessions = 0
        """Those that were let through."""
        self._behind = behind
        self._tls = tls

    @contextmanager
    def opened(self) -> Iterator[Self]:
        """It stands open meanwhile."""
        with ThreadPoolExecutor(1) as pool:
            ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
            ended = pool.submit(asyncio.run, self._serve(ready))
            loop, over = ready.result(10)
            try:
                yield self
            finally:
                loop.call_soon_threadsafe(over.set)
                ended.result(10)

    async def _serve(self, ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        # A client that does not trust the gate, or shows no certificate, is none of its errors.
        loop.set_exception_handler(lambda *_: None)
        async with await asyncio.start_server(self._pass, HOST, 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            ready.set_result((loop, over))
            await over.wait()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError), closing(writer):
            code = 0
            while code != _SSL_REQUEST:
                _, code = struct.unpack("!II", await reader.readexactly(8))
                if code not in (_SSL_REQUEST, _GSS_REQUEST):
                    fields = b"SFATAL\0VFATAL\0C08P01\0MSSL required\0\0"
                    writer.write(b"E" + struct.pack("!I", len(fields) + 4) + fields)
                    return
                writer.write(b"S" if code == _SSL_REQUEST else b"N")
            await writer.start_tls(self._tls)
            to_server, from_server = (await asyncio.open_connection(HOST, self._behind))[::-1]
            self.sessions += 1
            with closing(to_server):
                await asyncio.wait(
                    [
                        asyncio.ensure_future(_pump(reader, to_server)),
                        asyncio.ensure_future(_pump(from_server, writer)),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await source.read(65_536):
            target.write(part)
            await target.drain()
