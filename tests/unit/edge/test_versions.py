"""DAG files by git, the plugin by image, runs that began before: either it works, or it is said which side is old."""

from __future__ import annotations

import ast
import importlib
import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG

from ownership.domain import contracts
from ownership.domain.contracts import CONTRACT, Phase, Pulled, Slice, Work, read
from ownership.domain.errors import VersionError
from ownership.domain.queue import ClaimedEvent
from ownership.edge import flow, operators, tasks, triggers, versions
from ownership.edge.operators import PullTransferEvents
from ownership.edge.versions import INTERFACE, missing
from tests.unit.replay import transfers

ROOT = Path(__file__).parents[3]
(FIRST,) = (ClaimedEvent(t, 7) for t in transfers("ab"))
SLICE = Slice(label="a → b", run_id="r", events=(FIRST,)).model_dump(mode="json")
WORK = Work(label="a → b", run_id="r", phases=(Phase(events=(FIRST,), moves={}),)).model_dump(mode="json")
STAGES: list[Any] = [
    pytest.param(tasks.lookup, SLICE, id="lookup"),
    pytest.param(tasks.update, WORK, id="update"),
    pytest.param(tasks.reindex, WORK, id="reindex"),
]

PARSE = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import importlib, pathlib
for file in sorted(pathlib.Path(sys.argv[2]).glob("*.py")):
    try:
        importlib.import_module(file.stem)
    except Exception as e:
        print(f"{file.stem}: {type(e).__name__}: {e}")
"""


# --- DAG files and the plugin -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def last_commit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`dags` and `plugins` as the commit before has them."""
    packed = subprocess.run(
        ("git", "archive", "HEAD~1", "dags", "plugins"),
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=60,
    )
    if packed.returncode:
        pytest.skip(f"the commit before is not here: {packed.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def parsed(tmp_path: Path) -> Callable[[Path, Path], list[str]]:
    """Imports DAG files beside a plugin in a fresh process. Returns the errors."""

    def parse(plugins: Path, dags: Path) -> list[str]:
        ours = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | {"PYTHONPATH": ""}
        done = subprocess.run(
            (sys.executable, "-c", PARSE, str(plugins), str(dags)),
            env={**ours, "AIRFLOW_HOME": str(tmp_path)}, cwd=tmp_path,
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if re.match(r"\w+: \w*Error: ", line)]

    return parse


def test_the_last_commit_s_dags_run_on_this_plugin(last_commit: Path, parsed: Any) -> None:
    assert parsed(ROOT / "plugins", last_commit / "dags") == []


def test_these_dags_run_on_the_last_commit_s_plugin_or_it_says_that_it_is_old(
    last_commit: Path, parsed: Any
) -> None:
    if not (last_commit / "plugins/ownership/edge/versions.py").exists():
        pytest.skip("the plugin of the commit before has no version")
    wrong = parsed(last_commit / "plugins", ROOT / "dags")
    assert [line for line in wrong if "The plugin is older than its DAGs" not in line] == []


def test_a_dag_that_asks_for_what_the_plugin_lacks_is_reported_that_the_plugin_is_old(
    tmp_path: Path, parsed: Any
) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "newer.py").write_text("from ownership.edge.flow import carry_out, carry_out_well\n")
    (sentence,) = parsed(ROOT / "plugins", dags)
    assert sentence == (
        "newer: ImportError: The plugin is older than its DAGs: it has no 'carry_out_well'. Deploy the image of the "
        "DAGs' commit."
    )


def asked_by_dags() -> set[str]:
    """The plugin's modules of which DAG files use names, also inside their tasks."""
    imports = [
        (node.module or "", {f"{node.module}.{alias.name}" for alias in node.names})
        for file in (ROOT / "dags").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
    ]
    files = {
        ".".join(f.relative_to(ROOT / "plugins").with_suffix("").parts) for f in ROOT.glob("plugins/**/*.py")
    }
    return {m for module, names in imports for m in (names & files or {module} & files)}


def test_every_module_that_dags_ask_for_names_says_that_it_is_old_where_it_lacks_one() -> None:
    modules = asked_by_dags()
    assert {"ownership.edge.flow", "ownership.edge.tasks", "ownership.health.tasks"} < modules
    silent = [m for m in modules if getattr(importlib.import_module(m), "__getattr__", None) is not missing]
    assert silent == []


@pytest.mark.parametrize("module", [flow, operators, triggers])
def test_a_name_of_python_s_own_is_asked_for_without_an_error(module: Any) -> None:
    assert not hasattr(module, "__wrapped__")


@pytest.mark.parametrize(
    ("of_dag", "sentence"),
    [
        pytest.param(INTERFACE + 1, "The plugin is older than its DAGs", id="newer DAGs"),
        pytest.param(INTERFACE - 1, "The DAGs are older than the plugin", id="older DAGs"),
    ],
)
def test_the_first_task_says_which_of_dag_and_plugin_is_old(of_dag: int, sentence: str) -> None:
    with DAG("d", schedule=None):
        first = PullTransferEvents(task_id="pull", interface=of_dag)
    with pytest.raises(VersionError, match=sentence):
        first.execute({})  # type: ignore[typeddict-item]  # it looks at nothing before


def test_the_dags_expect_the_interface_of_the_plugin() -> None:
    expected = [re.findall(r"interface=(\d+)", file.read_text()) for file in (ROOT / "dags").glob("*.py")]
    assert [n for numbers in expected for n in numbers] == [str(versions.INTERFACE)] * 2


# --- what one task hands to the next ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "work"), STAGES)
def test_what_an_older_run_hands_on_is_read_by_a_new_task(stage: Any, work: dict[str, Any]) -> None:
    kind = Slice if stage is tasks.lookup else Work
    before = {k: v for k, v in work.items() if k != "contract"}  # of before it had a number
    assert read(kind, before).model_dump(mode="json") == {**work, "contract": CONTRACT}


@pytest.mark.parametrize(("stage", "work"), STAGES)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param({"contract": CONTRACT + 1}, "This worker is older than the run", id="a newer run"),
        pytest.param({"contract": CONTRACT - 1}, "The run is older than this worker", id="an older run"),
        pytest.param(
            {"tenant": "x"},
            r"different versions: .* cannot be read \(tenant\)",
            id="a field without a number",
        ),
        pytest.param({"label": None}, r"different versions: .* cannot be read \(label\)", id="another type"),
    ],
)
def test_a_task_says_which_of_run_and_worker_is_old(
    stage: Any, work: dict[str, Any], change: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = {"ti": SimpleNamespace(try_number=1, max_tries=2, run_id="r")}
    monkeypatch.setattr(tasks, "get_current_context", lambda: context)
    with pytest.raises(VersionError, match=sentence):
        stage({**work, **change})


def test_the_last_task_frees_what_a_run_of_another_version_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[str] = []
    queue = SimpleNamespace(release_all=released.append)

    class Opened:
        def __enter__(self) -> Any:
            return SimpleNamespace(queue=queue)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(tasks, "opened_parts", Opened)
    monkeypatch.setattr(tasks, "get_current_context", lambda: {"ti": SimpleNamespace(run_id="r")})
    pulled = Pulled().model_dump(mode="json", exclude={"slices"})
    summary = tasks.settle([{**SLICE, "contract": CONTRACT + 1}], pulled)
    assert released == ["r"]
    assert summary["failures"]["pull_transfer_events"].startswith("This worker is older than the run")


def test_every_hand_over_carries_its_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contracts, "CONTRACT", 7)
    assert {SLICE["contract"], WORK["contract"], Pulled().model_dump()["contract"]} == {CONTRACT}
    with pytest.raises(VersionError, match=rf"contract {CONTRACT}, the worker's is 7"):
        read(Slice, SLICE)
