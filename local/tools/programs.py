"""The programs that some tests look through or send to, brought once: `make tools`.

Debian's Chromium shows pages; `promtool` and `prometheus` read the rules of `deploy/observability`; `statsd_exporter`
and an OpenTelemetry collector take what Airflow sends; `pgbouncer` stands between the job and its ledger. All but
Chromium lie in `.local/tools` and need no root. What cannot be had here is told in a sentence and fails nothing: its
tests are skipped, and say the same.
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
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from local.paths import STATE

FOLDER: Final = STATE / "tools"
WHY: Final = "missing.json"
"""Beside the tools: why those that are missing are, as `make tools` found it the last time."""

STATSD_EXPORTER: Final = "v0.31.0"
COLLECTOR: Final = "v0.165.0"
_CONTRIB = "github.com/open-telemetry/opentelemetry-collector-contrib"
COMPONENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "receivers": ("go.opentelemetry.io/collector/receiver/otlpreceiver",),
    "processors": tuple(
        f"{_CONTRIB}/processor/{name}processor"
        for name in ("resource", "deltatocumulative", "metricstransform")
    ),
    "exporters": (f"{_CONTRIB}/exporter/prometheusexporter",),
}
"""What `deploy/observability/collector.yml` needs of a collector."""


_WITH_ITS_LIBRARIES = """\
#!/bin/sh
here=$(dirname "$0")
LD_LIBRARY_PATH=$(echo "$here"/usr/lib/*-linux-gnu*) exec "$here"/usr/sbin/pgbouncer "$@"
"""


class MissingError(Exception):
    """A tool cannot be had here; the text says why."""


class Tool(NamedTuple):
    """A program, where it lies (below the tools' folder, unless the path is absolute), and how it gets there."""

    name: str
    path: str
    bring: Callable[[Path], None]
    """Put it into this folder, at `path`, or where it has its place.

    :raises MissingError: if it cannot.
    """


def run(*command: str, seconds: float, folder: Path | None = None, **environment: str) -> str:
    """Run a command and all that it starts, for so long at most. Returns what it says.

    :raises MissingError: with its last line, if it fails or takes longer.
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
            told, _ = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise MissingError(f"`{' '.join(command[:3])}` took longer than {seconds:.0f} s") from None
    if child.returncode:
        last = (told.strip() or "it says nothing").splitlines()[-1]
        raise MissingError(f"`{' '.join(command[:3])}` failed: {last}")
    return told


def program(name: str, package: str) -> str:
    """The path of a program that does the bringing.

    :raises MissingError: if it is not there.
    """
    found = shutil.which(name) or shutil.which(name, path="/usr/local/go/bin")
    if found is None:
        raise MissingError(f"there is no {package}")
    return found


def install_chromium(folder: Path) -> None:  # noqa: ARG001  # Debian's package has a place of its own
    """Debian's package, for which one has to be root."""
    apt = program("apt-get", "apt-get")
    if os.geteuid():
        raise MissingError("as root, apt-get install chromium")
    run(apt, "-qq", "update", seconds=60)
    run(apt, "-qq", "install", "--yes", "chromium", seconds=300, DEBIAN_FRONTEND="noninteractive")


def bring_prometheus(folder: Path) -> None:
    """Debian's package, unpacked and not installed."""
    unpack(folder / "prometheus", "prometheus")


def bring_pgbouncer(folder: Path) -> None:
    """Debian's package with the libraries that few machines have, and a script that starts it with them."""
    target = folder / "pgbouncer"
    told = run(program("apt-cache", "apt-cache"), "depends", "pgbouncer", seconds=60)
    libraries = re.findall(r"Depends: (lib(?:c-ares|event)\S*)", told)
    unpack(target, "pgbouncer", *libraries)
    script = target / "pgbouncer"
    script.write_text(_WITH_ITS_LIBRARIES)
    script.chmod(0o755)
    try:
        run(str(script), "--version", seconds=20)
    except MissingError:
        script.unlink()  # so that the next `make tools` tries again
        raise


def unpack(target: Path, *packages: str) -> None:
    """Unpack Debian's packages into a folder, without installing them."""
    apt, dpkg = program("apt-get", "apt-get"), program("dpkg-deb", "dpkg-deb")
    with tempfile.TemporaryDirectory() as scratch:
        # Root has its lists of packages; anybody else takes them as they are.
        if os.geteuid() == 0:
            with suppress(MissingError):
                run(apt, "-qq", "update", seconds=60)
        run(apt, "-qq", "download", *packages, seconds=60, folder=Path(scratch))
        for package in Path(scratch).glob("*.deb"):
            run(dpkg, "-x", str(package), str(target), seconds=60)


def bring_statsd_exporter(folder: Path) -> None:
    """Compiled from its source."""
    module = f"github.com/prometheus/statsd_exporter@{STATSD_EXPORTER}"
    run(
        program("go", "Go"),
        "install",
        module,
        seconds=400,
        GOBIN=str(folder / f"statsd_exporter-{STATSD_EXPORTER}"),
    )


def manifest(output: Path) -> str:
    """What the collector's builder is to build, as YAML (of which JSON is a part)."""
    return json.dumps(
        {
            "dist": {"name": "otelcol", "output_path": str(output)},
            **{
                kind: [{"gomod": f"{m} {COLLECTOR}"} for m in modules] for kind, modules in COMPONENTS.items()
            },
        }
    )


def bring_collector(folder: Path) -> None:
    """Built by its makers' own builder, with no more components than are needed."""
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
        Tool("statsd_exporter", f"statsd_exporter-{STATSD_EXPORTER}/statsd_exporter", bring_statsd_exporter),
        Tool("pgbouncer", "pgbouncer/pgbouncer", bring_pgbouncer),
        Tool("otelcol", f"otelcol-{COLLECTOR}/otelcol", bring_collector),
    )
}


def found(name: str, folder: Path = FOLDER) -> Path | None:
    """Where a tool is, or None."""
    path = folder / TOOLS[name].path
    return path if os.access(path, os.X_OK) else None


def why_missing(name: str, folder: Path = FOLDER) -> str | None:
    """Why `make tools` could not bring a tool; None if it was never asked to, or could."""
    try:
        told: dict[str, str] = json.loads((folder / WHY).read_text())
    except (OSError, ValueError):
        return None
    return told.get(name)


def brought(tool: Tool, folder: Path) -> Path:
    """Where a tool is, after it was brought if it was missing.

    :raises MissingError: if it cannot be had.
    """
    path = folder / tool.path
    if not path.exists():
        try:
            tool.bring(folder)
        except (OSError, ValueError) as e:
            raise MissingError(str(e)) from None
    if not os.access(path, os.X_OK):
        raise MissingError(f"what was brought has no {tool.name}")
    return path


def bring(tools: Mapping[str, Tool], folder: Path) -> dict[str, str]:
    """Bring what is missing, and return why what still is cannot be had."""
    folder.mkdir(parents=True, exist_ok=True)
    missing: dict[str, str] = {}
    for tool in tools.values():
        try:
            print(f"{tool.name}: {brought(tool, folder)}")
        except MissingError as e:
            missing[tool.name] = str(e)
            print(f"{tool.name} cannot be had here, so its tests are skipped: {e}.")
    (folder / WHY).write_text(json.dumps(missing, indent=1) + "\n")
    return missing


def main(folder: Path = FOLDER) -> int:
    """Bring everything; never a reason to fail."""
    bring(TOOLS, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
