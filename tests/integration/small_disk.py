"""A disk that a test can fill."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A file system of so many bytes that every server may write to."""
    directory = Path(tempfile.mkdtemp(prefix="small-disk-"))
    directory.chmod(0o755)
    mounted = subprocess.run(
        ("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)),
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    try:
        if mounted.returncode:
            pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
        yield directory
    finally:
        if not mounted.returncode:
            subprocess.run(("umount", str(directory)), timeout=10, check=True)
        directory.rmdir()


@contextmanager
def full(directory: Path) -> Iterator[None]:
    """No byte is left in `directory`."""
    filler = directory / "filler"
    with filler.open("wb") as file:
        while (disk := os.statvfs(directory)).f_bavail:
            _extend(file.fileno(), disk.f_bavail * disk.f_frsize)
    try:
        yield
    finally:
        filler.unlink()


def _extend(file: int, size: int) -> None:
    """Add `size` bytes to the file, or nothing when a server has taken some of them meanwhile."""
    try:
        os.posix_fallocate(file, os.fstat(file).st_size, size)
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
