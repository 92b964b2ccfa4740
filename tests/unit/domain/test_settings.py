from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ownership.domain.errors import SettingsError
from ownership.domain.settings import VARIABLE, Settings
from ownership.edge.hooks import load_settings
from tests.unit.domain.test_event import json_values

PARALLELISM = "user.ownership.transfer.parallelism"
KNOWN = sorted(f.alias or name for name, f in Settings.model_fields.items())


def parse(**values: Any) -> Settings:
    return Settings.parse(json.dumps(values))


@pytest.mark.parametrize("text", [None, "", "  \n", "{}"])
def test_nothing_set_means_the_names_and_defaults_that_operators_know(text: str | None) -> None:
    s = Settings.parse(text)
    assert s.input_topic == "dev.user.ownership.transfer"
    assert s.failed_topic == "dev.user.ownership.transfer.failed"
    assert s.group_id == "dev-user-ownership-transfer-group"
    assert (s.keyspace, s.course_batch_table) == ("sunbird_courses", "course_batch")
    assert s.batch_write_size == 10
    assert (s.user_read_api, s.batch_search_api) == ("/private/user/v1/read/", "/v1/course/batch/search")
    assert (s.parallelism, s.max_mapped, s.retention_days) == (0, 0, 400)
    assert s.lms_base_path is None
    assert s.userorg_base_path is None


def test_the_old_jobs_names_are_the_settings_names() -> None:
    assert {
        "env",
        "kafka.input.topic",
        "kafka.groupId",
        "lms-cassandra.keyspace",
        "lms-cassandra.course_batch.table",
        "threshold.batch.write.size",
        "service.lms.basePath",
        "service.userorg.basePath",
        "user_read_api",
        "batch_search_api",
        "user.ownership.transfer.parallelism",
        "ledger.retention.days",
    } <= set(KNOWN)


def test_names_follow_from_the_installation() -> None:
    s = parse(env="prod-1")
    assert s.input_topic == "prod-1.user.ownership.transfer"
    assert s.failed_topic == "prod-1.user.ownership.transfer.failed"
    assert s.group_id == "prod-1-user-ownership-transfer-group"


def test_what_is_set_wins_over_what_follows() -> None:
    s = parse(**{"env": "prod", "kafka.input.topic": "other"})
    assert (s.input_topic, s.failed_topic) == ("other", "prod.user.ownership.transfer.failed")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        pytest.param({"kafka.input.topik": "x"}, "'kafka.input.topik'", id="a typing error"),
        pytest.param({"keyspace": "x"}, "'keyspace'", id="a name of the code's own"),
        pytest.param({"b": 1, "a": 2}, "settings 'a', 'b'", id="two"),
        pytest.param({"ENV": "x"}, "'ENV'", id="upper case"),
    ],
)
def test_an_unknown_setting_is_named_with_those_that_are_known(values: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(**values)
    assert named in str(caught.value)
    assert all(k in str(caught.value) for k in KNOWN)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        pytest.param({"env": "a b"}, "env", id="env with a blank"),
        pytest.param({"env": 7}, "env", id="env a number"),
        pytest.param({"env": ""}, "env", id="env empty"),
        pytest.param({"kafka.input.topic": "a/b"}, "kafka.input.topic", id="no topic name"),
        pytest.param({"lms-cassandra.keyspace": "x; DROP"}, "lms-cassandra.keyspace", id="no keyspace name"),
        pytest.param({"lms-cassandra.course_batch.table": "1x"}, "course_batch.table", id="no table name"),
        pytest.param({"es.course_batch.index": "*"}, "es.course_batch.index", id="an index pattern"),
        pytest.param({"threshold.batch.write.size": 0}, "threshold.batch.write.size", id="too small"),
        pytest.param({"threshold.batch.write.size": 101}, "threshold.batch.write.size", id="too large"),
        pytest.param({"max_events": "many"}, "max_events", id="no number"),
        pytest.param({"max_mapped": 1.5}, "max_mapped", id="a fraction"),
        pytest.param(
            {"approval.batches": True}, "approval.batches: is true or false", id="true for a number"
        ),
        pytest.param({"max_mapped": False}, "max_mapped: is true or false", id="false for a number"),
        pytest.param(
            {"kafka.failed.topic": "dev.user.ownership.transfer"},
            "kafka.failed.topic: is the topic of the events",
            id="dead letters among the events",
        ),
        pytest.param(
            {"kafka.input.topic": "in", "kafka.failed.topic": "in"},
            "kafka.failed.topic: is the topic of the events",
            id="one topic for both",
        ),
        pytest.param({"service.lms.basePath": "localhost:9000"}, "service.lms.basePath", id="no scheme"),
        pytest.param({"service.lms.basePath": "http://h/?x=1"}, "service.lms.basePath", id="a query"),
        pytest.param({"service.lms.basePath": "http://["}, "service.lms.basePath", id="half an IPv6 address"),
        pytest.param({"service.lms.basePath": "http://h:99999"}, "service.lms.basePath", id="no port"),
        pytest.param({"service.lms.basePath": "http://h:0"}, "service.lms.basePath", id="port 0"),
        pytest.param({"service.lms.basePath": "http://h:x"}, "service.lms.basePath", id="a port in letters"),
        pytest.param({"service.lms.basePath": "http://:80"}, "service.lms.basePath", id="no host"),
        pytest.param({"service.lms.basePath": "http://a..b"}, "service.lms.basePath", id="half a host"),
        pytest.param(
            {"service.lms.basePath": "http://" + "a" * 64}, "service.lms.basePath", id="a long label"
        ),
        pytest.param({"service.lms.basePath": "http://h\x00"}, "service.lms.basePath", id="NUL in a host"),
        pytest.param(
            {"service.lms.basePath": "http://\u00fcber"}, "punycode", id="letters that a URL has not"
        ),
        pytest.param({"service.lms.basePath": "http://u:s3cret@h"}, "into the Connection", id="a login"),
        pytest.param({"kafka.input.topic": ".."}, "kafka.input.topic", id="two dots for a topic"),
        pytest.param({"kafka.groupId": "."}, "kafka.groupId", id="a dot for a group"),
        pytest.param({"user_read_api": "private/"}, "user_read_api", id="a path without a slash"),
        pytest.param({"user_read_api": "/x?y"}, "user_read_api", id="a path with a query"),
        pytest.param({"ledger.retention.days": None}, "ledger.retention.days", id="null"),
    ],
)
def test_a_wrong_value_is_named_and_the_message_says_where_to_set_it(
    values: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(**values)
    assert named in str(caught.value)
    assert f"Airflow Variable '{VARIABLE}'" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://lms:9000/base",
        "https://lms.example.org",
        "http://10.0.0.1:80/",
        "http://[::1]:9000",
        "http://my_host.:1",
    ],
)
def test_an_address_that_can_be_connected_to_is_taken(url: str) -> None:
    assert parse(**{"service.lms.basePath": url}).lms_base_path == url


def test_names_that_nobody_knows_are_reported_cut_and_on_one_line() -> None:
    with pytest.raises(SettingsError) as caught:
        parse(**{"x" * 9000: 1, "a\x1b[31m\n": 1, **{f"name{n}": 1 for n in range(50)}})
    assert "and 42 more" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("{", "is not JSON", id="not JSON"),
        pytest.param("env: prod", "is not JSON", id="YAML"),
        pytest.param("[]", "is not a JSON object", id="a list"),
        pytest.param("null", "is not a JSON object", id="null"),
        pytest.param("[" * 100_000, "is not JSON", id="nested too deeply"),
        pytest.param('{"max_events": ' + "9" * 5000 + "}", "is not JSON", id="a number of 5,000 digits"),
    ],
)
def test_a_variable_that_is_no_object_is_refused(text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        Settings.parse(text)


@given(st.text())
def test_any_text_is_settings_or_a_settings_error(text: str) -> None:
    try:
        Settings.parse(text)
    except SettingsError:
        assert text.strip()


@given(st.dictionaries(st.sampled_from(KNOWN) | st.text(), json_values, min_size=1, max_size=4))
def test_any_object_is_settings_or_an_error_that_names_the_unknown(values: dict[str, Any]) -> None:
    unknown = set(values) - set(KNOWN)
    if unknown:
        with pytest.raises(SettingsError) as caught:
            parse(**values)
        assert all(repr(k[:60]) in str(caught.value) for k in unknown)
        return
    with suppress(SettingsError):
        assert parse(**values).input_topic


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings.parse(None).env = "x"  # type: ignore[misc]  # that it is refused is what is tested


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, f in Settings.model_fields.items() if not f.description] == []


@pytest.mark.parametrize(
    ("slots", "given", "max_mapped", "slices"),
    [
        pytest.param("8", {}, 4, 2, id="eight slots"),
        pytest.param("32", {}, 16, 8, id="Airflow's own default"),
        pytest.param("1", {}, 1, 1, id="never less than one"),
        pytest.param("8", {PARALLELISM: 1}, 1, 1, id="as the old job"),
        pytest.param("8", {PARALLELISM: 5}, 5, 5, id="the instances of any run"),
        pytest.param("8", {"max_mapped": 1}, 1, 2, id="always packed"),
        pytest.param("8", {"max_mapped": 1024}, 1024, 2, id="always one per lane"),
        pytest.param("8", {"max_mapped": 3, PARALLELISM: 5}, 3, 5, id="both"),
    ],
)
def test_the_number_of_instances_follows_the_executor_unless_it_is_set(
    monkeypatch: pytest.MonkeyPatch, slots: str, given: dict[str, int], max_mapped: int, slices: int
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", slots)
    monkeypatch.setenv("AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER", json.dumps(given))
    settings = load_settings()
    assert (settings.max_mapped, settings.parallelism) == (max_mapped, slices)


def test_no_more_instances_are_mapped_than_airflow_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "64")
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "3")
    monkeypatch.setenv("AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER", json.dumps({"reconcile.slices": 8}))
    settings = load_settings()
    assert (settings.max_mapped, settings.parallelism, settings.reconcile_slices) == (3, 3, 3)
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "1024")
    settings = load_settings()
    assert (settings.max_mapped, settings.parallelism, settings.reconcile_slices) == (32, 16, 8)
