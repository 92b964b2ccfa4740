"""Clocks that jump: while the suite asks for it, the clock of each process that runs the job is another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from types import ModuleType

FILE = "clocks"


@contextmanager
def jumped(folder: Path, seconds: float) -> Iterator[None]:
    """The clocks of all processes jump, each by at most so many seconds, and at the end back."""
    file = folder / FILE
    file.write_text(f"{seconds}")
    try:
        yield
    finally:
        file.unlink()


def offset_s(folder: Path) -> float:
    """By how much the clock of this process is wrong."""
    with suppress(FileNotFoundError, ValueError):
        seconds = float((folder / FILE).read_text())
        return Random(os.getpid()).uniform(-seconds, seconds)
    return 0.0


def make_clocks_jump(folder: Path, module: ModuleType) -> None:
    """Let the job's one clock go wrong as the suite asks for it."""
    now, now_ms = module.now, module.now_ms
    vars(module)["now"] = lambda: now() + timedelta(seconds=offset_s(folder))
    vars(module)["now_ms"] = lambda: now_ms() + round(1000 * offset_s(folder))
