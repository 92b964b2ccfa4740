from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ownership.domain.contracts import Phase, Pulled, Slice, Summary, Work
from ownership.domain.event import OrderKey, Transfer
from ownership.domain.queue import ClaimedEvent
from tests.unit.replay import transfers

HELD = [ClaimedEvent(t, 41 + n) for n, t in enumerate(transfers("AB", "BC"))]
PHASE = Phase(events=tuple(HELD), moves={"a": "C", "b": "C"}, later=("m09",))
counts = st.dictionaries(st.text(max_size=8), st.integers(0, 9))


claimed = st.builds(
    ClaimedEvent,
    st.builds(
        Transfer,
        st.builds(OrderKey, st.integers(), st.integers(), st.integers(), st.text()),
        st.text(),
        st.text(),
    ),
    st.integers(),
)


@given(st.lists(claimed))
def test_claimed_events_survive_xcom(events: list[ClaimedEvent]) -> None:
    sent = Slice(label="x", run_id="r", events=tuple(events)).model_dump(mode="json")
    received = Slice.model_validate(json.loads(json.dumps(sent))).events
    assert list(received) == events
    assert all(type(e) is ClaimedEvent and type(e.transfer.key) is OrderKey for e in received)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(Slice(label="A → B", run_id="r", events=tuple(HELD)), id="slice"),
        pytest.param(PHASE, id="phase"),
        pytest.param(
            Work(label="x", run_id="r", phases=(PHASE,), events={"planned": 2}, failures={"m": "why"}),
            id="work",
        ),
        pytest.param(Pulled(claimed=2, waits={"m": "waits for n"}), id="pulled"),
        pytest.param(Summary(events={"failed": 2}, batches={"moved": 9}), id="summary"),
    ],
)
def test_a_contract_survives_xcom(value: Slice | Phase | Work | Pulled | Summary) -> None:
    assert type(value).model_validate(json.loads(json.dumps(value.model_dump(mode="json")))) == value


def test_events_keep_their_tokens_and_order() -> None:
    assert Slice(label="x", run_id="r", events=tuple(HELD)).events == tuple(HELD)
    assert PHASE.events == tuple(HELD)


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="batches"):
        Slice.model_validate({"label": "x", "run_id": "r", "events": [], "batches": []})


@given(counts, counts, st.integers(0, 60))
def test_a_step_keeps_who_it_is_and_hands_on_what_is_not_zero(
    events: dict[str, int], batches: dict[str, int], failures: int
) -> None:
    work = Work(label="x", run_id="r", phases=(PHASE,), events={"old": 1}, failures={"old": "why"})
    after = work.step([], events=events, batches=batches, failures={f"m{n}": "why" for n in range(failures)})
    assert (after.label, after.run_id, after.phases) == ("x", "r", ())
    assert after.events == {k: v for k, v in events.items() if v}
    assert after.batches == {k: v for k, v in batches.items() if v}
    assert len(after.failures) == min(failures, 20)


def test_a_slice_of_many_events_is_small() -> None:
    work = Slice(label="x", run_id="r", events=tuple(HELD * 1000))
    assert len(json.dumps(work.model_dump(mode="json"))) < 100_000


def test_a_summary_counts_what_failed() -> None:
    assert Summary(events={"failed": 3, "completed": 1}).failed == 3
    assert Summary().failed == 0
