"""Elasticsearch 7 (production's version) and 9 (the current line): one node, HTTP, no security."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path
from string import Template

from local.servers import java
from local.servers.layout import Layout
from local.servers.ports import HOST
from local.servers.processes import Server

DEFAULT_VERSION = 7
_HERE = Path(__file__).parent
_VERSIONS = (7, 9)
_NETTY_9 = "transport-netty4"


def version_from_environment() -> int:
    """The major version that ELASTICSEARCH_VERSION asks for. Raises ValueError for any other version."""
    asked = os.environ.get("ELASTICSEARCH_VERSION") or str(DEFAULT_VERSION)
    if asked not in {str(version) for version in _VERSIONS}:
        raise ValueError(f"ELASTICSEARCH_VERSION={asked} is not known here; set it to 7 or 9.")
    return int(asked)


def server(layout: Layout, version: int = DEFAULT_VERSION) -> Server:
    """Elasticsearch with its data below `layout`; downloads its jars when they are missing."""
    folder = _HERE / str(version)
    name = f"elasticsearch{version}"  # the versions cannot read each other's data
    directory = layout.data(name)
    port, transport_port = layout.port(name), layout.port(f"{name}-transport")
    jars = java.jars(folder)
    modules = [jar for jar in jars if version == 9 and jar.name.startswith(("netty-", _NETTY_9))]
    class_path = os.pathsep.join(str(jar) for jar in jars if jar not in modules)

    def prepare() -> None:
        configuration = directory / "config"
        configuration.mkdir(exist_ok=True)
        template = Template((_HERE / "elasticsearch.yml").read_text())
        (configuration / "elasticsearch.yml").write_text(
            template.substitute(port=port, transport_port=transport_port, directory=directory)
        )
        (configuration / "log4j2.properties").write_text((_HERE / "log4j2.properties").read_text())
        if modules:
            _lay_out_modules(directory, folder, modules)

    runtime = java.runtime_17() if version == 7 else java.runtime_21()
    return Server(
        name="elasticsearch",
        command=(
            str(runtime),
            "-Xms512m",
            "-Xmx512m",
            *(
                ()
                if version == 7
                else ("-XX:+IgnoreUnrecognizedVMOptions", "--enable-native-access=ALL-UNNAMED")
            ),
            f"-Des.path.home={directory}",
            "-Des.networkaddress.cache.ttl=60",
            "-Djna.nosys=true",
            f"-Djava.io.tmpdir={directory}",
            "-Dlog4j.shutdownHookEnabled=false",
            "-Dlog4j2.disable.jmx=true",
            "-Dlog4j2.formatMsgNoLookups=true",
            "-cp",
            class_path,
            "groovy.ui.GroovyMain",
            str(folder / "node.groovy"),
            str(directory),
        ),
        directory=directory,
        log_file=layout.log(name),
        pid_file=layout.pid(name),
        address=f"http://{HOST}:{port}",
        answers=lambda: _answers(port),
        prepare=prepare,
        ports=(port, transport_port),
    )


def _lay_out_modules(directory: Path, folder: Path, modules: list[Path]) -> None:
    """Lay out the HTTP transport of Elasticsearch 9 as a module: a folder with a descriptor and the jars."""
    module = directory / "modules" / _NETTY_9
    module.mkdir(parents=True, exist_ok=True)
    (directory / "plugins").mkdir(exist_ok=True)
    (module / "plugin-descriptor.properties").write_text((folder / "transport-netty4.properties").read_text())
    for jar in modules:
        link = module / jar.name
        link.unlink(missing_ok=True)
        link.symlink_to(jar)


def _answers(port: int) -> bool:
    """Whether the node is up and all shards that can be assigned are assigned."""
    url = f"http://{HOST}:{port}/_cluster/health?wait_for_status=yellow&timeout=1s"
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
