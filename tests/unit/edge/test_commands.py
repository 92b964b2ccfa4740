"""The options of the commands that operators run in Airflow's environment."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ownership.edge import rehearsals, topics


@pytest.mark.parametrize(
    ("main", "option", "value"),
    [
        *((topics.main, "--retention-days", value) for value in ("nan", "inf", "-3", "0", "1e30")),
        *((topics.main, "--partitions", value) for value in ("0", "-5", "99999999999")),
        *((topics.main, "--replication", value) for value in ("0", "99999999")),
        *((rehearsals.main, "--hours", value) for value in ("nan", "inf", "-5", "1e12")),
    ],
)
def test_an_option_out_of_bounds_is_wrong_usage(
    main: Callable[[list[str]], int], option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([f"{option}={value}"])
    assert ended.value.code == 2
    assert f"argument {option}: is not a " in capsys.readouterr().err
