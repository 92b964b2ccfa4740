from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import AirflowTaskTimeout
from hypothesis import given
from hypothesis import strategies as st

from ownership.domain.conf import ConfError
from ownership.domain.errors import Incomplete, Permanent, SettingsError, Transient, Unavailable
from ownership.edge.retries import RETRIES, TransferRetries, delay_seconds, seed_of
from ownership.stages.settle import next_try_ms


def context(map_index: int = 0) -> Any:
    return {"ti": SimpleNamespace(run_id="r", task_id="transfer.update_course_batches", map_index=map_index)}


@given(st.text(), st.integers(1, 1000))
def test_a_delay_doubles_from_ten_seconds_to_a_quarter_of_an_hour(seed: str, try_number: int) -> None:
    middle = min(900.0, 10.0 * 2 ** min(try_number - 1, 10))
    assert 0.75 * middle <= delay_seconds(seed, try_number) <= 1.25 * middle


def test_all_retries_together_last_about_an_hour() -> None:
    in_all = [sum(delay_seconds(f"s{n}", t) for t in range(1, RETRIES + 1)) for n in range(100)]
    assert min(in_all) > 40 * 60
    assert max(in_all) < 80 * 60


def test_the_delay_is_known_beforehand() -> None:
    assert delay_seconds("r:t:3", 2) == delay_seconds("r:t:3", 2)


def test_instances_do_not_retry_in_the_same_moment() -> None:
    delays = {round(delay_seconds(seed_of(context(n)), 1), 3) for n in range(50)}
    assert len(delays) > 45
    assert max(delays) - min(delays) > 3


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(Permanent("x"), id="permanent"),
        pytest.param(SettingsError("set it"), id="a setting"),
        pytest.param(ConfError("conf"), id="a conf"),
    ],
)
def test_what_no_retry_helps_fails_at_once(error: Exception) -> None:
    decision = TransferRetries().evaluate(error, 1, 9, context())
    assert decision.action is RetryAction.FAIL
    assert str(error) in str(decision.reason)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(Transient("x"), id="transient"),
        pytest.param(Unavailable("LMS", "HTTP 503"), id="an outage"),
        pytest.param(Incomplete("x"), id="the proof"),
        pytest.param(AirflowTaskTimeout("x"), id="a time-out of the task"),
        pytest.param(ValueError("x"), id="a fault of ours"),
    ],
)
def test_everything_else_is_tried_again_after_its_own_delay(error: BaseException) -> None:
    decision = TransferRetries().evaluate(error, 3, 9, context(5))
    assert decision.action is RetryAction.RETRY
    assert decision.retry_delay is not None
    assert decision.retry_delay.total_seconds() == pytest.approx(
        delay_seconds("r:transfer.update_course_batches:5", 3), abs=1e-5
    )
    assert type(error).__name__ in str(decision.reason)


def test_a_policy_without_context_still_decides() -> None:
    assert TransferRetries().evaluate(Transient("x"), 1, 9).action is RetryAction.RETRY


@given(st.integers(-3, 10_000))
def test_a_failed_event_waits_longer_each_time_but_not_for_ever(attempts: int) -> None:
    middle = min(900_000, 10_000 * 2 ** min(max(attempts - 1, 0), 10))
    assert 0.75 * middle - 1 <= next_try_ms(attempts) <= 1.25 * middle


def test_failed_events_are_not_all_due_at_once() -> None:
    assert len({next_try_ms(1) for _ in range(50)}) > 40
