"""The search server: a node of Elasticsearch or OpenSearch, alone or of several; HTTP, no security."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

from local.servers import java
from local.servers.layout import Layout
from local.servers.nodes import ONLY, Node, nodes
from local.servers.processes import Server

_HERE = Path(__file__).parent
_NETTY_MODULE = "transport-netty4"
_WITH_DOCUMENTS = 2
SOON_GIVEN_UP: Final[Mapping[str, str]] = {
    "cluster.fault_detection.follower_check.timeout": "3s",
    "cluster.fault_detection.leader_check.timeout": "3s",
    "cluster.publish.timeout": "10s",
}
"""So that the others give a frozen node up after three checks, and a new master waits no half minute for a frozen one."""


@dataclass(frozen=True)
class Release:
    """What differs between the releases; their jars are in the lock file of the folder with their name."""

    java: int
    product: str
    """Names the root package and the settings file."""
    properties: str
    """Prefix of its system properties."""
    plugins: tuple[str, ...] = ()
    """Classes below the root package; without any, the HTTP transport is laid out as a module."""


RELEASES: Final[Mapping[str, Release]] = {
    "elasticsearch710": Release(
        17, "elasticsearch", "es", ("transport.Netty4Plugin", "index.reindex.ReindexPlugin")
    ),
    "elasticsearch717": Release(
        17, "elasticsearch", "es", ("transport.Netty4Plugin", "reindex.ReindexPlugin")
    ),
    "elasticsearch9": Release(21, "elasticsearch", "es"),
    "opensearch2": Release(
        17, "opensearch", "opensearch", ("transport.Netty4Plugin", "index.reindex.ReindexPlugin")
    ),
    "opensearch3": Release(
        21,
        "opensearch",
        "opensearch",
        ("transport.Netty4ModulePlugin", "index.reindex.ReindexModulePlugin"),
    ),
}
"""By the values of SEARCH_SERVER."""


def server(layout: Layout, name: str, *, node: Node = ONLY) -> Server:
    """The release `name` with its data below `layout`; downloads its jars when they are missing.

    Several nodes know each other from the start. The third holds no documents: it is there so that most of the nodes
    that elect a master remain when one is lost.
    """
    release = RELEASES[name]
    folder = _HERE / name
    own_name = node.named(name)
    directory = layout.data(own_name)  # the releases cannot read each other's data
    port, transport_port = layout.port(name), layout.port(f"{name}-transport")
    jars = java.jars(folder)
    modules = [jar for jar in jars if not release.plugins and jar.name.startswith(("netty-", _NETTY_MODULE))]
    class_path = os.pathsep.join(str(jar) for jar in jars if jar not in modules)

    def prepare() -> None:
        configuration = directory / "config"
        configuration.mkdir(exist_ok=True)
        template = Template((_HERE / "settings.yml").read_text())
        (configuration / f"{release.product}.yml").write_text(
            template.substitute(
                name=own_name,
                host=node.host,
                port=port,
                transport_port=transport_port,
                directory=directory,
                discovery=_discovery(node, name, transport_port),
            )
        )
        (configuration / "log4j2.properties").write_text((_HERE / "log4j2.properties").read_text())
        if modules:
            _lay_out_module(directory, folder, modules)

    script = (folder if modules else _HERE) / "node.groovy"
    heap = "512m" if node.alone else "192m" if votes_only(node) else "384m"
    return Server(
        name=own_name,
        command=(
            str(java.runtime(release.java)),
            f"-Xms{heap}",
            f"-Xmx{heap}",
            *(("--enable-native-access=ALL-UNNAMED",) if release.java >= 21 else ()),
            f"-D{release.properties}.path.home={directory}",
            f"-D{release.properties}.networkaddress.cache.ttl=60",
            "-Djna.nosys=true",
            f"-Djava.io.tmpdir={directory}",
            "-Dlog4j.shutdownHookEnabled=false",
            "-Dlog4j2.disable.jmx=true",
            "-Dlog4j2.formatMsgNoLookups=true",
            "-cp",
            class_path,
            "groovy.ui.GroovyMain",
            str(script),
            str(directory),
            f"org.{release.product}",
            *release.plugins,
        ),
        directory=directory,
        log_file=layout.log(own_name),
        pid_file=layout.pid(own_name),
        address=f"http://{node.host}:{port}",
        answers=lambda: _answers(node.host, port),
        prepare=prepare,
        ports=(port, transport_port),
    )


def votes_only(node: Node) -> bool:
    """Whether the node holds no documents."""
    return node.number > _WITH_DOCUMENTS


def _discovery(node: Node, name: str, transport_port: int) -> str:
    """The settings by which nodes find each other, as YAML (JSON is valid YAML)."""
    if node.alone:
        return "discovery.type: single-node"
    settings = {
        "discovery.seed_hosts": [f"{host}:{transport_port}" for host in node.hosts],
        "cluster.initial_master_nodes": [each.named(name) for each in nodes(node.of)],
        **SOON_GIVEN_UP,
        **({"node.roles": ["master"]} if votes_only(node) else {}),
    }
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in settings.items())


def _lay_out_module(directory: Path, folder: Path, jars: list[Path]) -> None:
    """Lay out the HTTP transport of Elasticsearch 9 as a module: a folder with a descriptor and the jars."""
    module = directory / "modules" / _NETTY_MODULE
    module.mkdir(parents=True, exist_ok=True)
    (directory / "plugins").mkdir(exist_ok=True)
    (module / "plugin-descriptor.properties").write_text((folder / f"{_NETTY_MODULE}.properties").read_text())
    for jar in jars:
        link = module / jar.name
        link.unlink(missing_ok=True)
        link.symlink_to(jar)


def _answers(host: str, port: int) -> bool:
    """Whether the node is up and all shards that can be assigned are assigned."""
    url = f"http://{host}:{port}/_cluster/health?wait_for_status=yellow&timeout=1s"
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
