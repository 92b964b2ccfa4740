"""Cassandra: one node, alone or of several; no remote management port."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Final

from local.servers import java
from local.servers.layout import Layout
from local.servers.nodes import ONLY, Node
from local.servers.processes import Server

_HERE = Path(__file__).parent
_OPTIONS_REQUEST = bytes.fromhex("040000000500000000")  # CQL v4, stream 0, OPTIONS, no body
_SUPPORTED = 0x06
_QUICK: Final[Mapping[str, object]] = {
    "commitlog_sync": "periodic",
    "commitlog_sync_period_in_ms": 10_000,
}


@dataclass(frozen=True)
class Release:
    """What differs between the releases; their jars are in the lock file of the folder with their name."""

    java: int
    properties: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    durable: Mapping[str, object] = field(default_factory=lambda: {"commitlog_sync": "batch"})


RELEASES: Final[Mapping[str, Release]] = {
    "cassandra311": Release(
        11,
        settings={"start_rpc": False},
        durable={"commitlog_sync": "batch", "commitlog_sync_batch_window_in_ms": 1},
    ),
    "cassandra41": Release(11),
    "cassandra5": Release(17, properties=("-Djava.security.manager=allow",)),
}
"""By the values of ROWS_SERVER."""


def server(
    layout: Layout,
    name: str,
    more: Mapping[str, object] | None = None,
    tls: ssl.SSLContext | None = None,
    *,
    durable: bool = False,
    node: Node = ONLY,
) -> Server:
    """The release `name` with its data below `layout`; downloads its jars when they are missing.

    `more` are further settings of `cassandra.yaml`. If they require TLS of clients, `tls` is used to probe the port.
    If `durable`, an acknowledged write survives `kill`, as in production it survives the loss of one of three
    replicas. Otherwise, as is Cassandra's default, the writes of the last 0.1 s may be lost (the interval of the
    commit log's marks). Of several nodes, start the first one before the others.
    """
    release = RELEASES[name]
    own_name = node.named(name)
    directory = layout.data(own_name)  # an older release cannot read a newer one's data
    port, storage_port = layout.port(name), layout.port(f"{name}-storage")
    configuration = directory / "cassandra.yaml"

    def prepare() -> None:
        template = Template((_HERE / "cassandra.yaml").read_text())
        text = template.substitute(
            port=port,
            storage_port=storage_port,
            directory=directory,
            host=node.host,
            seeds=",".join(node.hosts),
            memtables_mb=128 if node.alone else 48,
        )
        settings = {
            **release.settings,
            # Each node has its part of the ring from the start, so none has to copy data from another.
            **({} if node.alone else {"auto_bootstrap": False}),
            **(release.durable if durable else _QUICK),
            **(more or {}),
        }
        text += "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())
        configuration.touch(mode=0o600)  # it may hold passwords
        configuration.write_text(text)

    heap = "768m" if node.alone else "320m"
    command = (
        str(java.runtime(release.java)),
        f"-Xms{heap}",
        f"-Xmx{heap}",
        f"@{_HERE / 'java.args'}",
        *release.properties,
        f"-Dcassandra.config={configuration.as_uri()}",
        f"-Dcassandra.storagedir={directory}",
        f"-Dlogback.configurationFile={_HERE / 'logback.xml'}",
        f"-Djava.io.tmpdir={directory}",  # native libraries are unpacked there and deleted at the end
        f"-Dcassandra.initial_token={token(node)}",
        f"-Dcassandra.ring_delay_ms={1 if node.alone else 2000}",
        "-Dcassandra.consistent.rangemovement=false",  # several nodes may join at once
        "-Dcassandra.superuser_setup_delay_ms=0",  # with logins required: no other node can have created the superuser
        "-cp",
        java.class_path(_HERE / name),
        "org.apache.cassandra.service.CassandraDaemon",
    )
    return Server(
        name=own_name,
        command=command,
        directory=directory,
        log_file=layout.log(own_name),
        pid_file=layout.pid(own_name),
        address=f"{node.host}:{port}",
        answers=lambda: _answers(node.host, port, tls),
        prepare=prepare,
        ports=(port, storage_port),
    )


def token(node: Node) -> int:
    """Where the node's part of the ring begins: all nodes have parts of one size."""
    return 0 if node.alone else (node.number - 1) * 2**64 // node.of - 2**63


def _answers(host: str, port: int, tls: ssl.SSLContext | None) -> bool:
    """Whether the native protocol answers; its port opens last."""
    try:
        with socket.create_connection((host, port), timeout=1) as plain:
            plain.settimeout(2)
            with tls.wrap_socket(plain) if tls else plain as connection:
                connection.sendall(_OPTIONS_REQUEST)
                answer = connection.recv(9)
    except OSError:
        return False
    return len(answer) >= 5 and answer[4] == _SUPPORTED
