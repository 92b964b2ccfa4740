"""Kafka: one KRaft node, alone or of several; broker and controller in one process."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Final

from local.servers import java
from local.servers.layout import Layout
from local.servers.nodes import ONLY, Node
from local.servers.processes import Server

_HERE = Path(__file__).parent
RELEASES: Final[Mapping[str, int]] = {"kafka3": 17, "kafka4": 17}
"""Java by the values of KAFKA_SERVER."""


def server(
    layout: Layout, name: str, more: Mapping[str, object] | None = None, *, node: Node = ONLY
) -> Server:
    """The release `name` with its data below `layout`; downloads its jars when they are missing.

    `more` are further properties of the broker; they override those of `server.properties`.
    """
    own_name = node.named(name)
    directory = layout.data(own_name)
    port, controller_port = layout.port(name), layout.port(f"{name}-controller")
    logging = f"-Dlog4j2.configurationFile={_HERE / 'log4j2.properties'}"
    class_path = java.class_path(_HERE / name)
    run_java = (
        str(java.runtime(RELEASES[name])),
        f"-Xmx{512 if node.alone else 256}m",
        logging,
        "-cp",
        class_path,
    )
    properties = directory / "server.properties"

    def prepare() -> None:
        text = properties_of(node, port, controller_port, directory / "data")
        # The last value of a repeated property counts.
        text += "".join(f"\n{key}={value}" for key, value in (more or {}).items())
        properties.touch(mode=0o600)  # it may hold passwords
        properties.write_text(text)
        if not (directory / "data" / "meta.properties").exists():
            cluster = ("-t", cluster_id(layout.data(name)), "-c", str(properties))
            format_storage = ("kafka.tools.StorageTool", "format", *cluster)
            done = subprocess.run(
                (*run_java, *format_storage), capture_output=True, text=True, timeout=120, check=False
            )
            if done.returncode != 0:
                raise RuntimeError(f"Kafka's storage could not be formatted: {done.stdout}{done.stderr}")

    return Server(
        name=own_name,
        command=(*run_java, "kafka.Kafka", str(properties)),
        directory=directory,
        log_file=layout.log(own_name),
        pid_file=layout.pid(own_name),
        address=f"{node.host}:{port}",
        answers=lambda: _answers(node.host, port),
        prepare=prepare,
        ports=(port, controller_port),
    )


def properties_of(node: Node, port: int, controller_port: int, data: Path) -> str:
    """The text of the node's `server.properties`."""
    template = Template((_HERE / "server.properties").read_text())
    return template.substitute(
        node=node.number,
        host=node.host,
        port=port,
        controller_port=controller_port,
        voters=",".join(f"{n}@{host}:{controller_port}" for n, host in enumerate(node.hosts, 1)),
        copies=min(3, node.of),
        copies_in_sync=min(3, node.of) // 2 + 1,
        log_dir=data,
    )


def cluster_id(directory: Path) -> str:
    """A cluster id of 16 bytes, always the same for a directory.

    Its first bit is zero: Kafka's command line would take an id that begins with "-" for an option.
    """
    digest = hashlib.sha256(str(directory).encode()).digest()[:16]
    return base64.urlsafe_b64encode(bytes((digest[0] & 0x7F, *digest[1:]))).decode().rstrip("=")


def _answers(host: str, port: int) -> bool:
    """Whether the broker answers a metadata request and names itself. Bare protocol: a client would log each failure."""
    body = struct.pack(">hhih4si", 3, 1, 1, 4, b"look", 0)  # Metadata v1, correlation 1, client id, no topics
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            connection.settimeout(2)
            connection.sendall(struct.pack(">i", len(body)) + body)
            answer = connection.recv(4096)
    except OSError:
        return False
    return struct.pack(f">h{len(host)}si", len(host), host.encode(), port) in answer
