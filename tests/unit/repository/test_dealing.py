"""Each worker of the tests has work until the end, and one Airflow is enough as long as there is other work."""

from __future__ import annotations

import pytest

from local.paths import REPOSITORY
from tests.dealing import LONGEST, WORTH_AN_AIRFLOW, next_file

SHORT = [f"tests/e2e/test_{n}.py" for n in range(WORTH_AN_AIRFLOW - 1)]
PAGE, WINDOWS = (f"tests/e2e/test_{name}.py" for name in ("page", "windows"))
ORDER, LANES = "tests/integration/stages/test_order.py", "tests/unit/domain/test_lanes.py"
WITH_AIRFLOW = [*SHORT, PAGE, WINDOWS]
ALL = [*WITH_AIRFLOW, ORDER, LANES]


@pytest.mark.parametrize(
    ("waiting", "has_airflow", "others_have", "file"),
    [
        pytest.param(ALL, False, False, PAGE, id="the first worker begins with Airflow"),
        pytest.param(ALL, True, False, PAGE, id="and goes on with it"),
        pytest.param(ALL, False, True, ORDER, id="the other one has everything else"),
        pytest.param([ORDER, LANES], True, False, ORDER, id="whoever is done with Airflow helps"),
        pytest.param(WITH_AIRFLOW, False, True, WINDOWS, id="whoever is done with the rest helps"),
        pytest.param(SHORT, False, True, None, id="but starts no Airflow for little"),
    ],
)
def test_a_worker_runs_next(
    waiting: list[str], *, has_airflow: bool, others_have: bool, file: str | None
) -> None:
    assert next_file(waiting, has_airflow=has_airflow, others_have=others_have) == file


def test_the_longest_files_are_there() -> None:
    assert [file for file in LONGEST if not (REPOSITORY / file).is_file()] == []
