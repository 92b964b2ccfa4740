"""Any conf is transfers and orders that can be queued, or a ConfError; any Variable is settings or a SettingsError."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
from hypothesis import note
from pydantic import TypeAdapter

from ownership.domain.conf import KNOWN, Orders, Undo, manual_events, orders, undo_order
from ownership.domain.contracts import Slice
from ownership.domain.errors import SettingsError
from ownership.domain.event import LedgerId, TransferEvent, parse_event
from ownership.domain.options import Options, Request
from ownership.domain.queue import ClaimedEvent
from ownership.domain.settings import Settings
from tests.fuzz.effort import Random, count, fuzzed
from tests.fuzz.near_valid import conf, settings_text, undo
from tests.fuzz.stored import Binding, Broker, inbox

AT = 1_767_225_601_000
SETTING_NAMES = [f.alias or name for name, f in Settings.model_fields.items()]
LEDGER_ID = TypeAdapter(LedgerId)


def judged(what: str, read: Callable[[], Any]) -> Any:
    """What `read` makes of something; None if it is refused, by the error that is meant for it."""
    try:
        return read()
    except SettingsError as e:
        said = str(e)
        said.encode("utf-8")
        assert said.isprintable(), said
        assert len(said) <= 3000, len(said)
        count(what, f"{type(e).__name__}: {kind_of(said)}")
        return None


def kind_of(said: str) -> str:
    """The error without what differs from one to the next."""
    return " ".join(re.sub(r"\[\d+\]|'.*'|\b\d+\b", "…", re.split(r"; |, |\.\s", said)[0]).split()[:5])[:60]


def as_text(event: TransferEvent) -> str:
    return json.dumps(event.model_dump(), sort_keys=True)


def check_requests(requests: list[Request]) -> None:
    """They can be stored and read again, options included, and cross to the next task."""
    ledger = Binding()
    done = inbox(ledger, Broker()).accept_manual(requests, run_id="manual__1", at_ms=AT)
    assert len(done.received) == len(requests)
    bodies = {p["event_id"]: p["body"] for p in ledger.of("payload")}
    assert [q["holder"] for q in ledger.of("queue")] == ["manual__1"] * len(requests)
    rows = {row["mid"]: (row, bodies[n]) for n, row in enumerate(ledger.of("event"), 1)}
    for r in requests:
        row, body = rows[r.event.mid]
        # As text: a NaN in what is for people equals nothing.
        assert as_text(parse_event(body)) == as_text(r.event)
        assert Options.of(row["options"]) == r.options
        assert LEDGER_ID.validate_python(row["mid"])
    work = Slice(label="l", run_id="r", events=tuple([ClaimedEvent(t, 1) for t in done.received]))
    crossing = json.dumps(work.model_dump(mode="json"), allow_nan=False)
    assert "\\u0000" not in crossing
    assert Slice.model_validate(json.loads(crossing)) == work


def check_orders(found: Orders) -> None:
    """Times can be turned into milliseconds, texts can be stored."""
    for order in found:
        if order is None:
            continue
        # What a mend gives is checked as the event that it makes.
        order.model_dump_json(exclude={"dead_letters": {"merge_patch"}}).encode("utf-8")
        for at in (getattr(order, "since", None), getattr(order, "until", None)):
            assert at is None or -(2**63) < int(at.timestamp() * 1000) < 2**63


@fuzzed(0.3)
def test_a_conf_is_transfers_and_orders_or_an_error_that_names_the_field(random: Random) -> None:
    given = conf(random)
    note(repr(given)[:2000])
    requests = judged("confs", lambda: manual_events(given, run_id="manual__1", at_ms=AT, by="admin"))
    parsed = None if requests is None else judged("confs", lambda: orders(given))
    if requests is None or parsed is None:
        return
    assert set(given) <= set(KNOWN)
    check_requests(requests)
    check_orders(parsed)
    ordered = [name for name, order in parsed._asdict().items() if order]
    count("confs", f"{min(len(requests), 3)} transfers, {', '.join(ordered) or 'no order'}")


@fuzzed(0.1)
def test_a_conf_of_undo_is_an_order_or_an_error_that_names_the_field(random: Random) -> None:
    given = undo(random)
    note(repr(given)[:2000])
    parsed = judged("confs of undo", lambda: undo_order(given))
    if parsed is None:
        return
    assert isinstance(parsed.undo, Undo)
    check_orders(parsed)
    count("confs of undo", "accepted")


@fuzzed(0.2)
def test_a_variable_is_settings_that_can_be_used_or_an_error_that_names_the_setting(random: Random) -> None:
    text = settings_text(random)
    note(text[:2000])
    s = judged("settings", lambda: Settings.parse(text))
    if s is None:
        return
    count("settings", "accepted")
    for url in (s.lms_base_path, s.userorg_base_path):
        if url is not None:
            address = urlsplit(url)
            assert address.hostname
            assert address.port is None or 0 < address.port < 65536
            address.hostname.encode("idna")  # as the name server is asked
            httpx.Client(base_url=url, verify=False).close()  # noqa: S501  # nothing is sent
    for topic in (s.input_topic, s.failed_topic, s.group_id):
        assert topic not in (".", "..")
        assert len(topic) <= 249
    assert Settings.model_validate(json.loads(s.model_dump_json(by_alias=True))) == s
