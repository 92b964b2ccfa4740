"""Which hosts differ from the others, and which workers were never heard of."""

from __future__ import annotations

from typing import Any

from ownership.domain.clock import HOUR_MS, MINUTE_MS
from ownership.domain.installation import Host, HostKind, Tries, differences, recent, unheard

NOW = 100 * HOUR_MS


def host(name: str, kind: HostKind = HostKind.WORKER, **given: Any) -> Host:
    fields = {"traits": {}, "since_ms": NOW - HOUR_MS, "seen_at_ms": NOW, "clock_ahead_ms": 0, "tries": {}}
    return Host(kind, name, **{**fields, **given})


def names(found: dict[str, dict[str, list[Host]]]) -> dict[str, dict[str, list[str]]]:
    return {t: {v: [h.name for h in having] for v, having in values.items()} for t, values in found.items()}


def test_hosts_that_have_everything_in_common_do_not_differ() -> None:
    assert differences([]) == {}
    assert differences([host("w1", traits={"kafka": "a"}), host("w2", traits={"kafka": "a"})]) == {}


def test_hosts_that_have_another_value_at_the_same_time_differ() -> None:
    hosts = [
        host("w1", traits={"kafka": "a", "lms": "x"}),
        host("w2", traits={"kafka": "b", "lms": "x"}),
        host("t1", HostKind.TRIGGERER, traits={"kafka": "a"}),
    ]
    assert names(differences(hosts)) == {"kafka": {"a": ["w1", "t1"], "b": ["w2"]}}


def test_what_only_some_have_is_compared_among_these() -> None:
    hosts = [host("w1", traits={"kafka": "a"}), host("api", HostKind.API_SERVER, traits={"secret": "1"})]
    assert differences(hosts) == {}


def test_a_host_that_was_heard_before_all_changed_does_not_differ() -> None:
    before = host("w1", traits={"kafka": "a"}, seen_at_ms=NOW - 30 * MINUTE_MS)
    after = host("w2", traits={"kafka": "b"}, since_ms=NOW - 20 * MINUTE_MS)
    assert differences([before, after]) == {}


def test_while_all_change_one_is_before_the_other() -> None:
    before = host("w1", traits={"kafka": "a"})
    assert differences([before, host("w2", traits={"kafka": "b"}, since_ms=NOW - MINUTE_MS)]) == {}
    assert differences([before, host("w2", traits={"kafka": "b"}, since_ms=NOW - MINUTE_MS - 1)])


def test_a_host_that_is_silent_for_an_hour_is_gone_by_the_ledgers_own_clock() -> None:
    hosts = [host("w1"), host("w2", seen_at_ms=NOW - HOUR_MS)]
    assert [h.name for h in recent(hosts)] == ["w1"]
    assert recent([]) == []


def api(tries: dict[str, Tries], **given: Any) -> Host:
    return host("api", HostKind.API_SERVER, tries=tries, **given)


def test_a_worker_on_which_tries_ended_and_that_never_reported_is_unheard() -> None:
    seen = {"w1": Tries(3, 1), "w2": Tries(0, 2), "w3": Tries(1, 0)}
    assert unheard([host("w1"), api(seen)]) == {"w2": Tries(0, 2), "w3": Tries(1, 0)}


def test_one_failed_try_says_nothing_and_a_report_of_long_ago_is_a_report() -> None:
    heard = host("w2", seen_at_ms=NOW - 20 * HOUR_MS)
    assert unheard([host("w1"), heard, api({"w2": Tries(0, 9), "w3": Tries(0, 1)})]) == {}


def test_what_an_api_server_saw_that_is_gone_counts_no_longer() -> None:
    assert unheard([host("w1"), api({"w2": Tries(0, 9)}, seen_at_ms=NOW - HOUR_MS)]) == {}


def test_a_triggerer_of_the_same_name_is_no_report_of_a_worker() -> None:
    assert unheard([host("h", HostKind.TRIGGERER), api({"h": Tries(0, 2)})]) == {"h": Tries(0, 2)}
