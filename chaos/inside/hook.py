"""Changes the job's modules as a process imports them. The product knows nothing of it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from chaos.inside import clocks, guards, recorder

FOLDER = Path(__file__).resolve().parent
SHARED, WITHOUT = "CHAOS_SHARED", "CHAOS_WITHOUT"
"""Environment variables: the folder that the suite and the processes share, and the guard that is taken out, if one is."""

Change = Callable[[ModuleType], None]


def environment(shared: Path, without: str | None, python_path: str) -> dict[str, str]:
    """The environment of a process that records into the folder `shared`, and works without a guard."""
    folders = [python_path, str(FOLDER), str(FOLDER.parents[1])]
    return {
        "PYTHONPATH": os.pathsep.join(folders),
        SHARED: str(shared),
        **({WITHOUT: without} if without else {}),
    }


def install() -> None:
    """Change each module when it is imported, as the environment asks for."""
    shared = Path(os.environ[SHARED])
    changes: dict[str, list[Change]] = {"ownership.domain.clock": [partial(clocks.make_clocks_jump, shared)]}
    if without := os.environ.get(WITHOUT):
        module, change = guards.GUARDS[without]
        changes[module] = [change]
    for module, record in recorder.CHANGES.items():
        changes.setdefault(module, []).append(partial(record, recorder.Recorder(shared)))
    sys.meta_path.insert(0, _Finder(changes))


class _Finder(MetaPathFinder):
    """Finds the modules that are to be changed as everybody does, and changes them when they have been run."""

    def __init__(self, changes: Mapping[str, Sequence[Change]]) -> None:
        self._changes = dict(changes)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        changes = self._changes.pop(fullname, None)
        spec = importlib.util.find_spec(fullname) if changes else None
        if not changes or spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_change(module: ModuleType) -> None:
            run(module)
            for change in changes:
                change(module)

        spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec
