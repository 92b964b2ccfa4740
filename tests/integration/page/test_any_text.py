"""Names and free texts of any kind: the transfer completes, every page shows it, and it can be undone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict

from ownership.domain.organisations import EVERYTHING
from ownership.domain.settings import Settings
from ownership.page import access, airflow_facts
from ownership.page import app as module
from ownership.page.access import visible_organisations
from ownership.page.actions import TRANSFER_DAG, UNDO_DAG
from ownership.page.names import process_names
from ownership.page.settings import CachedSettings, process_settings
from ownership.page.store import Store, process_store
from tests.integration.stages.transfer_world import World

REPLACED = "\ufffd"
TEXTS = [
    pytest.param("\ud83d", REPLACED, id="half a pair"),
    pytest.param("\udc00\ud83d", REPLACED * 2, id="a pair the wrong way round"),
    pytest.param("\x00", REPLACED, id="NUL"),
    pytest.param("\x1b[2J\x08", f"{REPLACED}[2J{REPLACED}", id="control characters"),
    pytest.param("🙂𝕬", "🙂𝕬", id="beyond the first plane"),
    pytest.param("क्‍ष", "क्‍ष", id="a joiner"),
    pytest.param("long " * 4000, "long long", id="very long"),
]


class Page:
    """The page, asked in this process."""

    def seen(self, address: str, **query: str) -> str:
        """What a page says."""

        async def answered() -> httpx.Response:
            transport = httpx.ASGITransport(module.page)
            async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
                return await client.get(address, params=query)

        answer = asyncio.run(answered())
        assert answer.status_code == 200, answer.text
        return answer.text


@pytest.fixture
def page(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """The page on the world's ledger, for a user who may do everything."""
    user = SimpleNamespace(get_id=lambda: "operator-1", get_name=lambda: "operator")
    store = Store(lambda: conninfo_to_dict(world.ledger))
    monkeypatch.setattr(airflow_facts, "runs_of", lambda *_: {})
    monkeypatch.setattr(access, "may_start", lambda _: {TRANSFER_DAG, UNDO_DAG})
    monkeypatch.setattr(access, "check_start", lambda *_: None)
    monkeypatch.setattr(airflow_facts, "is_paused", lambda _: False)
    # Its own names only.
    names = SimpleNamespace(of=lambda *_: {}, pairs=lambda *_: {})
    signed_in = access.User.__metadata__[0].dependency  # type: ignore[attr-defined]  # an Annotated
    given = {
        signed_in: lambda: user,
        access.MayRead.dependency: lambda: None,
        visible_organisations: lambda: EVERYTHING,
        process_store: lambda: store,
        process_settings: lambda: CachedSettings(lambda: Settings.parse(None)),
        process_names: lambda: names,
    }
    monkeypatch.setattr(module.app, "dependency_overrides", given)
    yield Page()
    store.close()


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_a_transfer_with_names_and_words_of_any_text_completes_is_shown_and_can_be_undone(
    world: World, page: Page, text: str, shown: str
) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    event = world.event(old, new)
    event["edata"]["fromUserProfile"]["userName"] = f"Old{text}"
    event["edata"]["toUserProfile"] |= {"firstName": f"New{text}", "lastName": text}
    event["edata"]["actionBy"] = {"userId": f"by{text}", "userName": f"By{text}"}
    event["edata"]["context"] = f"why{text}"
    event["edata"]["assetInformation"] = {"name": text, text: text}
    event[f"more{text}"] = text
    world.platform.emit(json.dumps(event).encode())
    world.whole_run()
    mid = str(event["mid"])
    assert world.state(mid) == "completed"

    for query in ({}, {"user": old}, {"state": "completed"}, {"batch": batch.batch_id}):
        assert old in page.seen("/", **query)
    html = page.seen("/transfer", mid=mid)
    assert f"Old{shown}" in html
    assert f"New{shown}" in html
    assert f"why{shown}" in html
    assert "completed" in page.seen("/transfer", mid=mid, part="live")
    assert old in page.seen("/confirm", mid=mid, action="undo")

    run, _ = world.undo(mid, reason=f"again{text}"[:500])
    undo = f"undo:{run.run_id}:0"
    assert world.state(undo) == "completed"
    assert world.owners(batch) == (old, ())
    assert f"again{shown}" in page.seen("/transfer", mid=undo)
    assert "already taken back" in page.seen("/transfer", mid=mid)


@pytest.mark.parametrize("text", ["\ud83d", "\x00", "🙂"])
def test_a_message_that_is_no_event_is_shown_whatever_its_text(world: World, page: Page, text: str) -> None:
    old, new = world.users("old", "new")
    event: dict[str, Any] = {**world.event(old, new), "eid": text}
    at = world.platform.emit(json.dumps(event).encode())
    world.whole_run()
    mid = f"rejected:{at.topic}:{at.partition}:{at.offset}"
    assert mid in page.seen("/", state="rejected")
    html = page.seen("/transfer", mid=mid)
    assert world.rejected(mid).reason.partition(":")[0] in html


@pytest.mark.parametrize("text", ["\ud83d", "\x00"])
def test_an_operator_s_reason_of_any_text_is_kept_printable(world: World, page: Page, text: str) -> None:
    old, new = world.users("old", "new")
    mid = world.transfer(old, new)
    run = world.run().pull(abandon={"mids": [mid], "reason": f"why{text}"})
    run.finish()
    assert world.state(mid) == "abandoned"
    assert f"why{REPLACED}" in page.seen("/transfer", mid=mid)
