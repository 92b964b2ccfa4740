"""Kafka: one KRaft node, broker and controller in one process."""

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
from local.servers.ports import HOST
from local.servers.processes import Server

_HERE = Path(__file__).parent
RELEASES: Final[Mapping[str, int]] = {"kafka3": 17, "kafka4": 17}
"""Java by the values of KAFKA_SERVER."""


def server(layout: Layout, name: str, more: Mapping[str, object] | None = None) -> Server:
    """The release `name` with its data below `layout`; downloads its jars when they are missing.

    `more` are further properties of the broker; they override those of `server.properties`.
    """
    directory = layout.data(name)
    port, controller_port = layout.port(name), layout.port(f"{name}-controller")
    logging = f"-Dlog4j2.configurationFile={_HERE / 'log4j2.properties'}"
    class_path = java.class_path(_HERE / name)
    run_java = (str(java.runtime(RELEASES[name])), "-Xmx512m", logging, "-cp", class_path)
    properties = directory / "server.properties"

    def prepare() -> None:
        template = Template((_HERE / "server.properties").read_text())
        text = template.substitute(port=port, controller_port=controller_port, log_dir=directory / "data")
        # The last value of a repeated property counts.
        text += "".join(f"\n{key}={value}" for key, value in (more or {}).items())
        properties.touch(mode=0o600)  # it may hold passwords
        properties.write_text(text)
        if not (directory / "data" / "meta.properties").exists():
            cluster = ("-t", cluster_id(directory), "-c", str(properties))
            format_storage = ("kafka.tools.StorageTool", "format", *cluster)
            done = subprocess.run(
                (*run_java, *format_storage), capture_output=True, text=True, timeout=120, check=False
            )
            if done.returncode != 0:
                raise RuntimeError(f"Kafka's storage could not be formatted: {done.stdout}{done.stderr}")

    return Server(
        name=name,
        command=(*run_java, "kafka.Kafka", str(properties)),
        directory=directory,
        log_file=layout.log(name),
        pid_file=layout.pid(name),
        address=f"{HOST}:{port}",
        answers=lambda: _answers(port),
        prepare=prepare,
        ports=(port, controller_port),
    )


def cluster_id(directory: Path) -> str:
    """A cluster id of 16 bytes, always the same for a directory.

    Its first bit is zero: Kafka's command line would take an id that begins with "-" for an option.
    """
    digest = hashlib.sha256(str(directory).encode()).digest()[:16]
    return base64.urlsafe_b64encode(bytes((digest[0] & 0x7F, *digest[1:]))).decode().rstrip("=")


def _answers(port: int) -> bool:
    """Whether the broker answers a metadata request and is registered. Bare protocol: a client would log each failure."""
    body = struct.pack(">hhih4si", 3, 1, 1, 4, b"look", 0)  # Metadata v1, correlation 1, client id, no topics
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.settimeout(2)
            connection.sendall(struct.pack(">i", len(body)) + body)
            answer = connection.recv(4096)
    except OSError:
        return False
    brokers = struct.unpack(">i", answer[8:12])[0] if len(answer) >= 12 else 0
    return brokers > 0
