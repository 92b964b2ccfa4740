"""Cassandra: one node, no remote management port."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from string import Template

from local.servers import java
from local.servers.layout import Layout
from local.servers.ports import HOST
from local.servers.processes import Server

_HERE = Path(__file__).parent
_OPTIONS_REQUEST = bytes.fromhex("040000000500000000")  # CQL v4, stream 0, OPTIONS, no body
_SUPPORTED = 0x06
QUICK: Mapping[str, object] = {"commitlog_sync": "periodic", "commitlog_sync_period": "10000ms"}
"""A write is acknowledged before it is on disk, Cassandra's default."""
DURABLE: Mapping[str, object] = {"commitlog_sync": "batch", "commitlog_sync_period": None}
"""An acknowledged write survives `kill`, as in production it survives the loss of one of three replicas."""


def server(
    layout: Layout, more: Mapping[str, object] | None = None, tls: ssl.SSLContext | None = None
) -> Server:
    """Cassandra with its data below `layout`; downloads its jars when they are missing.

    `more` are further settings of `cassandra.yaml`. If they require TLS of clients, `tls` is used to probe the port.
    After `kill` the writes of the last 0.1 s may be lost (the interval of the commit log's marks), unless the
    settings include `DURABLE`.
    """
    name = "cassandra"
    directory = layout.data(name)
    port, storage_port = layout.port(name), layout.port("cassandra-storage")
    configuration = directory / "cassandra.yaml"

    def prepare() -> None:
        template = Template((_HERE / "cassandra.yaml").read_text())
        text = template.substitute(port=port, storage_port=storage_port, directory=directory)
        settings = {**QUICK, **(more or {})}
        text += "".join(
            f"{key}: {json.dumps(value)}\n" for key, value in settings.items() if value is not None
        )
        configuration.touch(mode=0o600)  # it may hold passwords
        configuration.write_text(text)

    command = (
        str(java.runtime_17()),
        "-Xms768m",
        "-Xmx768m",
        f"@{_HERE / 'java17.args'}",
        f"-Dcassandra.config={configuration.as_uri()}",
        f"-Dcassandra.storagedir={directory}",
        f"-Dlogback.configurationFile={_HERE / 'logback.xml'}",
        f"-Djava.io.tmpdir={directory}",  # native libraries are unpacked there and deleted at the end
        "-Dcassandra.superuser_setup_delay_ms=0",  # with logins required: no other node can have created the superuser
        "-cp",
        java.class_path(_HERE),
        "org.apache.cassandra.service.CassandraDaemon",
    )
    return Server(
        name=name,
        command=command,
        directory=directory,
        log_file=layout.log(name),
        pid_file=layout.pid(name),
        address=f"{HOST}:{port}",
        answers=lambda: _answers(port, tls),
        prepare=prepare,
        ports=(port, storage_port),
    )


def _answers(port: int, tls: ssl.SSLContext | None) -> bool:
    """Whether the native protocol answers; its port opens last."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as plain:
            plain.settimeout(2)
            with tls.wrap_socket(plain) if tls else plain as connection:
                connection.sendall(_OPTIONS_REQUEST)
                answer = connection.recv(9)
    except OSError:
        return False
    return len(answer) >= 5 and answer[4] == _SUPPORTED
