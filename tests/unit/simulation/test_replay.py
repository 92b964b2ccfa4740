"""The plain replay says what a row may be."""

from __future__ import annotations

from simulation.replay import Event, finals, told
from simulation.setup import BatchSpec, Edit

BATCH = BatchSpec("k", "b", "a", ("m", "a"))


def ends(events: list[Event], edits: list[Edit] = []) -> set[str]:  # noqa: B006  # only read
    return {told([row]) for row in finals(BATCH, events, edits)}


def test_transfers_follow_one_another() -> None:
    assert ends([Event("1", "a", "b"), Event("2", "b", "c"), Event("3", "a", "d")]) == {"c/m,c(1)"}


def test_an_undo_takes_back_what_its_event_changed() -> None:
    assert ends([Event("1", "a", "m"), Event("2", "m", "a", undo_of="1")]) == {"a/m,a(1)"}
    assert ends(
        [Event("1", "a", "m"), Event("2", "m", "a", undo_of="1"), Event("3", "a", "m", undo_of="2")]
    ) == {"m/m(1)"}


def test_an_undo_takes_back_nothing_that_the_audit_trail_does_not_show() -> None:
    there, back = Event("1", "a", "b"), Event("2", "b", "a")
    undo = Event("3", "a", "b", undo_of="2")
    assert ends([there, back, undo]) == {"b/m,b(1)"}
    nothing: frozenset[str] = frozenset()
    assert ends([there._replace(changed=nothing), back._replace(changed=nothing), undo]) == {"a/m,a(1)"}


def test_events_without_a_user_in_common_may_come_in_either_order_before_an_undo() -> None:
    first, second = Event("1", "m", "c"), Event("2", "a", "d")
    assert ends([first, second]) == {"d/c,d(1)"}
    assert ends([first, second, Event("3", "c", "m", undo_of="1")]) == {"d/c,d(1)", "d/m,d(1)"}


def test_an_edit_may_come_anywhere() -> None:
    assert ends([Event("1", "a", "b")], [Edit.COMPLETE]) == {"a/m,a(2)", "b/m,b(2)"}
    assert ends([Event("1", "a", "b")], [Edit.OWNER]) == {"x/m,b(1)"}
    assert ends([Event("1", "a", "b")], [Edit.DELETE]) == {"gone"}


def test_an_abandoned_event_may_have_moved_a_batch() -> None:
    assert ends([Event("1", "a", "b", abandoned=True), Event("2", "b", "c")]) == {"a/m,a(1)", "c/m,c(1)"}


def test_an_event_that_came_too_late_acts_on_what_is_left() -> None:
    late = Event("1", "a", "b", overtaken_by=frozenset("2"))

    assert ends([late, Event("2", "a", "c")]) == {"b/m,b(1)", "c/m,c(1)"}


def test_what_a_late_event_moves_goes_on_to_whom_its_target_passed_everything() -> None:
    late = Event("1", "a", "b", overtaken_by=frozenset("23"))
    later = [Event("2", "b", "c"), Event("3", "d", "a"), Event("4", "c", "d")]

    assert ends([late, *later]) == {"d/m,d(1)"}


def test_what_was_passed_on_and_came_back_is_passed_on_no_more() -> None:
    late = Event("1", "a", "b", overtaken_by=frozenset("23"))

    assert ends([late, Event("2", "b", "c", changed=frozenset()), Event("3", "c", "b", undo_of="2")]) == {
        "b/m,b(1)",
        "c/m,c(1)",
    }


def test_a_late_event_may_leave_what_a_later_one_gave_and_move_what_another_late_one_did() -> None:
    late = [
        Event("1", "a", "m", overtaken_by=frozenset("3")),
        Event("2", "b", "a", overtaken_by=frozenset("3")),
    ]

    found = ends([*late, Event("3", "m", "b")])

    assert found >= {"b/b(1)", "a/b(1)"}
    assert "m/b(1)" not in found


def test_an_event_about_one_batch_passes_nothing_on_that_came_after_it() -> None:
    late = Event("1", "a", "b", overtaken_by=frozenset("2"))

    assert ends([late, Event("2", "b", "c", asset="b")]) == {"b/m,b(1)", "c/m,c(1)"}


def test_an_undo_that_came_before_its_event_takes_it_back() -> None:
    undo = Event("2", "m", "a", undo_of="1", overtaken_by=frozenset("1"))

    assert ends([undo, Event("1", "a", "m")]) == {"m/m(1)", "a/m,a(1)"}
