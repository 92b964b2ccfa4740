from __future__ import annotations

from pathlib import Path

import pytest
from airflow._shared.module_loading import find_path_from_directory

# Airflow's own use of pathspec.
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")

ROOT = Path(__file__).parents[3]
PLUGINS = ROOT / "plugins"


def found_in(folder: Path) -> list[str]:
    """Python files that Airflow's plugin manager would execute."""
    files = find_path_from_directory(str(folder), ".airflowignore", "glob")
    return sorted(Path(f).relative_to(folder).as_posix() for f in files if f.endswith(".py"))


def test_airflow_executes_only_the_plugins_entry() -> None:
    assert found_in(PLUGINS) == ["ownership_plugin.py"]


def test_without_the_guard_it_would_execute_every_module(tmp_path: Path) -> None:
    for file in PLUGINS.rglob("*.py"):
        copy = tmp_path / file.relative_to(PLUGINS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.touch()
    assert len(found_in(tmp_path)) > 20


def test_the_entry_is_small_because_every_task_executes_it() -> None:
    assert len((PLUGINS / "ownership_plugin.py").read_text().splitlines()) <= 25


def test_no_package_name_is_used_both_in_dags_and_plugins() -> None:
    names = [
        {p.stem for p in (ROOT / d).iterdir() if p.name[0] not in "._"} - {"__pycache__"}
        for d in ("dags", "plugins")
    ]
    assert not names[0] & names[1]
