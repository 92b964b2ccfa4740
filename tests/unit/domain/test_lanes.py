from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownership.domain.event import Transfer
from ownership.domain.lanes import (
    WHOLE,
    Kind,
    Moves,
    compose,
    follow,
    idempotent,
    instances,
    label,
    lanes,
    pack,
    passed_on,
    phase,
    phases,
    sources,
)
from ownership.domain.plan import Given, Hop, Row, map_owners
from tests.unit.replay import (
    events,
    folded_event,
    folded_row,
    mixed_events,
    mixed_rows,
    replay,
    row,
    rows,
    transfer,
    transfers,
    without_repeats,
)


def composed(todo: list[Transfer]) -> dict[str, str]:
    moves: dict[str, str] = {}
    for e in todo:
        moves = compose(moves, e)
    return moves


def none_undecided(_: Transfer) -> bool:
    return False


def folded_moves(moves: dict[str, str]) -> dict[str, str]:
    return {u: v.lower() for u, v in moves.items()}


def moved(moves: dict[str, str], before: Row) -> Row:
    """The row as a stage writes it: only sources are moved."""
    return map_owners({u: moves[u] for u in sources(moves)}, before)


@pytest.mark.parametrize(
    ("pairs", "moves"),
    [
        pytest.param(["ab"], {"a": "b", "b": "b"}, id="one"),
        pytest.param(["ab", "bc"], {"a": "c", "b": "c", "c": "c"}, id="a chain"),
        pytest.param(["ab", "ba"], {"a": "a", "b": "a"}, id="there and back"),
        pytest.param(["ab", "bc", "ca"], {"a": "a", "b": "a", "c": "a"}, id="a circle"),
        pytest.param(["ab"] * 20, {"a": "b", "b": "b"}, id="twenty events of one request"),
        pytest.param(["ab", "cb"], {"a": "b", "b": "b", "c": "b"}, id="two into one"),
        pytest.param(["cb", "ac"], {"a": "c", "b": "b", "c": "b"}, id="into an emptied one"),
        pytest.param([], {}, id="nothing"),
    ],
)
def test_compose_says_where_each_users_batches_end_up(pairs: list[str], moves: dict[str, str]) -> None:
    assert composed(transfers(*pairs)) == moves


def test_a_map_that_would_move_its_own_results_on_is_not_idempotent() -> None:
    assert not idempotent(composed(transfers("cb", "ac")))
    assert idempotent(composed(transfers("ac", "cb")))


def test_sources_are_those_who_do_not_keep_their_batches() -> None:
    assert sources(composed(transfers("ab", "bc", "ca"))) == {"b", "c"}


@given(events(), st.lists(rows, max_size=4), st.sets(st.integers(0, 6)), st.integers(1, 3))
def test_order_holds_when_some_events_are_undecided_for_a_while_and_phases_are_small(
    todo: list[Transfer], world: list[Row], late: set[int], limit: int
) -> None:
    undecided = {e.mid for n, e in enumerate(todo) if n in late}
    now, waiting = list(world), list(todo)
    while waiting:
        chosen, moves = phase(waiting, lambda e: e.mid in undecided, limit=limit)
        assert len(chosen) <= limit
        assert not {e.mid for e in chosen} & undecided
        for _ in range(2):
            now = [map_owners(moves, r) for r in now]
        waiting = [e for e in waiting if e not in chosen]
        if not chosen:
            assert undecided
            undecided.clear()
    assert [without_repeats(r) for r in now] == [without_repeats(replay(todo, r)) for r in world]


@given(events(), st.sets(st.integers(0, 6)))
def test_an_event_that_stays_behind_blocks_its_users(todo: list[Transfer], late: set[int]) -> None:
    chosen, moves = phase(todo, lambda e: todo.index(e) in late, limit=100)
    blocked: set[str] = set()
    for e in todo:
        if e in chosen:
            assert not e.users & blocked
        else:
            blocked |= e.users
    assert moves == composed(chosen)
    assert idempotent(moves)


def test_the_cut_comes_before_the_event_that_would_break_it() -> None:
    chosen, moves = phase(transfers("cb", "ac", "de"), none_undecided, limit=100)
    assert [e.mid for e in chosen] == ["m00", "m02"]
    assert moves == {"c": "b", "b": "b", "d": "e", "e": "e"}


@given(events(limit=12))
def test_lanes_are_a_partition_and_share_no_user(todo: list[Transfer]) -> None:
    groups = lanes(reversed(todo))
    assert sorted(e for g in groups for e in g) == todo
    assert all(g == sorted(g) and g for g in groups)
    seen: set[str] = set()
    for group in groups:
        concerned = {u for e in group for u in e.users}
        assert not concerned & seen
        seen |= concerned


@given(events(limit=12))
def test_a_lane_holds_together(todo: list[Transfer]) -> None:
    for group in lanes(todo):
        reached, rest = set(group[0].users), group[1:]
        while near := [e for e in rest if e.users & reached]:
            reached |= {u for e in near for u in e.users}
            rest = [e for e in rest if e not in near]
        assert not rest


@given(st.lists(st.integers(1, 8), max_size=80), st.integers(1, 40), st.integers(1, 6))
def test_packing_loses_nothing_and_keeps_lanes_whole(sizes: list[int], max_mapped: int, slices: int) -> None:
    groups = [[transfer(100 * g + n, f"f{g}", f"t{g}") for n in range(size)] for g, size in enumerate(sizes)]
    packed = pack(groups, max_mapped=max_mapped, slices=slices)
    alone = len(groups) <= max_mapped
    assert len(packed) <= (len(groups) if alone else min(len(groups), slices))
    assert not alone or packed == groups
    assert sorted(e for p in packed for e in p) == sorted(e for g in groups for e in g)
    for group in groups:
        assert sum(bool(set(group) & set(p)) for p in packed) == 1
    assert all(p == sorted(p) and p for p in packed)


def test_packing_is_even() -> None:
    groups = [[transfer(10 * g + n, f"f{g}", f"t{g}") for n in range(5)] for g in range(320)]
    assert [len(p) for p in pack(groups, max_mapped=39, slices=8)] == [200] * 8


@pytest.mark.parametrize(
    ("lane_count", "max_mapped", "mapped"),
    [
        pytest.param(0, 4, 0, id="nothing to do"),
        pytest.param(3, 4, 3, id="few lanes"),
        pytest.param(4, 4, 4, id="as many lanes as there may be instances"),
        pytest.param(5, 4, 1, id="one lane more"),
        pytest.param(399, 4, 1, id="too few events for a second slice"),
        pytest.param(400, 4, 2, id="enough events for two slices"),
        pytest.param(2000, 4, 2, id="a burst"),
        pytest.param(1, 1, 1, id="one lane, always packed"),
        pytest.param(2, 1, 1, id="two lanes, always packed"),
        pytest.param(1024, 1024, 1024, id="always one per lane"),
        pytest.param(1025, 1024, 2, id="more lanes than Airflow maps"),
    ],
)
def test_a_run_has_an_instance_per_lane_up_to_a_border_and_packs_more(
    lane_count: int, max_mapped: int, mapped: int
) -> None:
    groups = [[transfer(g, f"f{g}", f"t{g}")] for g in range(lane_count)]
    assert instances(groups, max_mapped=max_mapped, slices=2) == mapped


def test_a_late_event_follows_the_transfers_that_completed_before_it() -> None:
    late, completed = transfer(1, "a", "b"), transfer(2, "b", "c")
    assert follow(composed([late]), passed_on([completed]))["a"] == "c"


def test_a_completed_transfer_adds_no_source_of_its_own() -> None:
    late, completed, gift = transfer(1, "a", "b"), transfer(2, "b", "c"), transfer(3, "d", "b")
    moves = follow(composed([late]), passed_on([completed, gift]))
    assert sources(moves) == {"a"}
    assert map_owners(moves, row("b")).created_by == "b"


@given(events())
def test_completed_transfers_lead_where_a_replay_of_them_leads(completed: list[Transfer]) -> None:
    onward = passed_on(completed[::-1])
    assert {u: onward.get(u, u) for u in "abcd"} == {u: replay(completed, row(u)).created_by for u in "abcd"}


@given(events(3, proper=True), events(proper=True), events(proper=True), rows)
def test_late_phases_end_as_if_they_had_come_in_time(
    earlier: list[Transfer], chosen: list[Transfer], others: list[Transfer], before: Row
) -> None:
    chosen, moves = phase(chosen, none_undecided, limit=100)
    earlier = [transfer(-10 + n, e.from_user, e.to_user) for n, e in enumerate(earlier)]
    # What a late event's target has passed on goes to another, who may be one that gives.
    excluded = sources(moves) | {u for e in earlier for u in e.users}
    completed = [
        transfer(50 + n, e.from_user, e.to_user) for n, e in enumerate(others) if e.from_user not in excluded
    ]
    now, given_later = before, Given()
    shared: set[str] = set()
    for event in [*completed, *earlier]:
        is_later = event in completed
        moved = {event.source: event.to_user} if is_later else follow(composed([event]), passed_on(completed))
        then = map_owners(moved, now, Given() if is_later else given_later)
        given_later = given_later.after(Hop(event.mid, now, then), event, is_later=is_later)
        shared |= given_later.shared
        now = then
    after = map_owners(follow(moves, passed_on(completed)), now, given_later)
    wanted = without_repeats(replay([*earlier, *chosen, *completed], before))
    if shared:  # two places of one mentor are two again, one behind the other
        assert (after.created_by, {*after.mentors}) == (wanted.created_by, {*wanted.mentors})
    else:
        assert without_repeats(after) == wanted


@pytest.mark.parametrize(
    ("todo", "text"),
    [
        pytest.param([], "nothing", id="nothing"),
        pytest.param(["AB"], "A → B", id="one event"),
        pytest.param(["AB"] * 20, "A → B (20 events)", id="one pair, twenty times"),
        pytest.param(["AB", "BC", "AB"], "A → B + 1 more (3 events)", id="two pairs"),
    ],
)
def test_a_slice_is_named_after_its_users(todo: list[str], text: str) -> None:
    assert label(transfers(*todo)) == text


def test_a_slices_name_fits_its_column() -> None:
    todo = [transfer(n, "f" * 256 + str(n), "t" * 256) for n in range(5000)]
    assert len(label(todo)) <= 250


# --- ids that differ in case only are one user


@pytest.mark.parametrize(
    ("pairs", "moves"),
    [
        pytest.param(["AB"], {"a": "B", "b": "B"}, id="written as the event spells it"),
        pytest.param(["Ab", "BC"], {"a": "C", "b": "C", "c": "C"}, id="a chain"),
        pytest.param(["AB", "bc"], {"a": "c", "b": "c", "c": "c"}, id="a chain that goes on in lower case"),
        pytest.param(["ab", "BA"], {"a": "A", "b": "A"}, id="there and back"),
        pytest.param(["AB", "ab"], {"a": "B", "b": "B"}, id="the first of two spellings"),
        pytest.param(["cB", "bD"], {"c": "D", "b": "D", "d": "D"}, id="lower to upper"),
    ],
)
def test_a_map_has_folded_keys_and_ends_at_ids_as_events_spell_them(
    pairs: list[str], moves: dict[str, str]
) -> None:
    assert composed(transfers(*pairs)) == moves


def test_a_user_who_gets_the_batches_back_in_another_case_is_no_source() -> None:
    assert sources(composed(transfers("ab", "BA"))) == {"b"}
    assert sources(composed(transfers("aA"))) == set()


@given(mixed_events)
def test_lanes_are_those_of_the_folded_events(todo: list[Transfer]) -> None:
    expected = lanes(map(folded_event, todo))
    assert [[folded_event(e) for e in lane] for lane in lanes(todo)] == expected


@given(mixed_events, st.sets(st.integers(0, 6)), st.integers(1, 7))
def test_a_phase_is_that_of_the_folded_events(todo: list[Transfer], late: set[int], limit: int) -> None:
    chosen, moves = phase(todo, lambda e: e.key.offset in late, limit=limit)
    expected, folded = phase([folded_event(e) for e in todo], lambda e: e.key.offset in late, limit=limit)
    assert [folded_event(e) for e in chosen] == expected
    assert folded_moves(moves) == folded
    assert sources(moves) == sources(folded)
    assert idempotent(moves)
    assert set(moves.values()) <= {e.to_user for e in chosen}


@given(mixed_events, mixed_events)
def test_folding_in_is_that_of_the_folded_events(chosen: list[Transfer], others: list[Transfer]) -> None:
    chosen, own = phase(chosen, none_undecided, limit=100)
    completed = [transfer(50 + n, e.from_user, e.to_user) for n, e in enumerate(others)]
    moves = follow(own, passed_on(completed))
    assert folded_moves(moves) == follow(folded_moves(own), passed_on(map(folded_event, completed)))
    assert set(moves.values()) <= {e.to_user for e in [*chosen, *completed]}


@given(mixed_events, mixed_rows)
def test_a_map_does_to_a_row_in_any_case_what_its_events_do_to_the_folded_row(
    todo: list[Transfer], before: Row
) -> None:
    chosen, moves = phase(todo, none_undecided, limit=100)
    after, naive = folded_row(moved(moves, before)), replay(map(folded_event, chosen), folded_row(before))
    assert after.created_by == naive.created_by
    if after.mentors == folded_row(before).mentors:
        assert without_repeats(after).mentors == without_repeats(naive).mentors
    else:
        assert after.mentors == naive.mentors


@given(mixed_events, st.lists(mixed_rows, max_size=4), st.integers(1, 7))
def test_phases_do_to_rows_in_any_case_what_the_folded_events_do(
    todo: list[Transfer], world: list[Row], limit: int
) -> None:
    now, waiting = list(world), list(todo)
    while waiting:
        chosen, moves = phase(waiting, none_undecided, limit=limit)
        assert chosen, "an event that nothing blocks always joins"
        for _ in range(3):  # rediscovery
            now = [moved(moves, r) for r in now]
        waiting = [e for e in waiting if e not in chosen]
    expected = [replay(map(folded_event, todo), folded_row(r)) for r in world]
    assert [without_repeats(folded_row(r)) for r in now] == [without_repeats(r) for r in expected]


@given(mixed_events, mixed_rows)
def test_a_new_creator_is_written_as_the_last_event_on_the_way_spells_it(
    todo: list[Transfer], before: Row
) -> None:
    chosen, moves = phase(todo, none_undecided, limit=100)
    after, expected = moved(moves, before), before.created_by
    for e in chosen:
        if expected and expected.lower() == e.from_user.lower():
            expected = e.to_user
    if folded_row(after).created_by != folded_row(before).created_by:
        assert after.created_by == expected
    else:  # who keeps a batch keeps the spelling
        assert after.created_by == before.created_by


ALONE, UNDO = Kind(undo=False, group="m01"), Kind(undo=True, group="")


def chosen_of(pairs: list[str], kinds: dict[str, Kind], closed: bool = True) -> list[str]:
    found, _ = phase(
        transfers(*pairs),
        none_undecided,
        limit=9,
        kind=lambda e: kinds.get(e.mid, WHOLE),
        closed=lambda _, __: closed,
    )
    return [e.mid for e in found]


def test_a_phase_is_of_one_kind_and_others_wait_and_block_their_users() -> None:
    assert chosen_of(["ab", "bc", "cd"], {}) == ["m00", "m01", "m02"]
    assert chosen_of(["ab", "bc", "cd"], {"m01": ALONE}) == ["m00"]
    assert chosen_of(["ab", "bc", "ad"], {"m00": ALONE._replace(group="m00")}) == ["m00"]
    assert chosen_of(["ab", "bc", "ba"], {"m00": UNDO, "m02": UNDO}) == ["m00"]


def test_undos_form_a_phase_without_a_map_as_long_as_they_are_idempotent_together() -> None:
    undos = dict.fromkeys(["m00", "m01"], UNDO)
    assert chosen_of(["cb", "ba"], undos) == ["m00", "m01"]
    assert chosen_of(["ab", "ba"], undos, closed=True) == ["m00", "m01"]
    assert phase(transfers("ab"), none_undecided, limit=9, kind=lambda _: UNDO)[1] == {}
    assert chosen_of(["cb", "ba"], undos, closed=False) == []
    assert chosen_of(["cb", "ac"], undos) == ["m00", "m01"]  # they have no map that could move on


def test_undos_join_if_nobody_says_that_they_are_not_idempotent_together() -> None:
    chosen, _ = phase(transfers("ab", "ba"), none_undecided, limit=9, kind=lambda _: UNDO)
    assert [e.mid for e in chosen] == ["m00", "m01"]


def test_dry_runs_of_undos_form_a_phase_of_their_own() -> None:
    dry = UNDO._replace(group="dry run")
    assert chosen_of(["ab", "bc", "bd", "ef"], {"m00": dry, "m01": UNDO, "m02": dry, "m03": dry}) == [
        "m00",
        "m03",
    ]


def test_each_undo_is_asked_about_together_with_those_before_it_in_order() -> None:
    asked = []

    def closed(some: Sequence[Transfer], _: Moves) -> bool:
        asked.append([e.mid for e in some])
        return some[-1].mid != "m01"

    todo = transfers("ab", "cd", "de", "fa", "gh", "ij")
    chosen, moves = phase(todo[::-1], none_undecided, limit=3, kind=lambda _: UNDO, closed=closed)
    # m01 stays behind and blocks m02, and m05 finds no room.
    assert asked == [["m00"], ["m00", "m01"], ["m00", "m03"], ["m00", "m03", "m04"]]
    assert [e.mid for e in chosen] == ["m00", "m03", "m04"]
    assert moves == {}


def test_nobody_is_asked_about_events_that_wait_anyhow() -> None:
    asked = []

    def closed(some: Sequence[Transfer], _: Moves) -> bool:
        asked.append(some[-1].mid)
        return True

    kinds = {"m00": WHOLE, "m01": UNDO, "m02": WHOLE}
    phase(transfers("ab", "bc", "de"), none_undecided, limit=9, kind=lambda e: kinds[e.mid], closed=closed)
    assert asked == ["m00", "m02"]
    phase(transfers("ab", "bc"), lambda e: e.mid == "m00", limit=9, kind=lambda _: UNDO, closed=closed)
    assert asked == ["m00", "m02"]


kinds_of_seven = st.lists(
    st.sampled_from([WHOLE, WHOLE, Kind(undo=False, group="x"), UNDO, Kind(undo=True, group="dry run")]),
    min_size=7,
    max_size=7,
)


@given(events(), kinds_of_seven, st.sets(st.integers(0, 6)), st.sets(st.integers(0, 6)), st.integers(1, 7))
def test_an_event_joins_a_phase_only_if_nothing_at_all_speaks_against_it(
    todo: list[Transfer], kinds: list[Kind], late: set[int], alone: set[int], limit: int
) -> None:
    def kind(e: Transfer) -> Kind:
        return kinds[e.key.offset]

    def closed(some: Sequence[Transfer], moves: Moves) -> bool:
        return idempotent(moves) and (len(some) == 1 or some[-1].key.offset not in alone)

    chosen, moves = phase(todo[::-1], lambda e: e.key.offset in late, limit=limit, kind=kind, closed=closed)
    before: list[Transfer] = []
    blocked: set[str] = set()
    for e in todo:
        fits = closed([*before, e], {} if kind(e).undo else composed([*before, e]))
        waits = e.key.offset in late or e.users & blocked or len(before) == limit
        if fits and not waits and {kind(e)} >= set(map(kind, before)):
            before.append(e)
        else:
            blocked |= e.users
    assert chosen == before
    assert moves == ({} if chosen and kind(chosen[0]).undo else composed(chosen))


@given(events(), kinds_of_seven, st.sets(st.integers(0, 6)), st.integers(1, 3))
def test_phases_of_many_kinds_come_to_an_end_and_keep_the_order_of_every_user(
    todo: list[Transfer], kinds: list[Kind], alone: set[int], limit: int
) -> None:
    done, waiting = [], list(todo)
    while waiting:
        chosen, _ = phase(
            waiting,
            none_undecided,
            limit=limit,
            kind=lambda e: kinds[e.key.offset],
            closed=lambda some, moves: (
                idempotent(moves) and (len(some) == 1 or some[-1].key.offset not in alone)
            ),
        )
        assert chosen, "an event that nothing blocks always joins"
        done += chosen
        waiting = [e for e in waiting if e not in chosen]
    for user in {u for e in todo for u in e.users}:
        own = [e for e in done if user in e.users]
        assert own == sorted(own)


def parts_of(pairs: list[str], parts: list[str], asked: list[str] | None = None) -> list[list[str]]:
    """Mids of the phases of one lane of events about a batch each, or about everything ("")."""
    todo = transfers(*pairs)

    def kind(e: Transfer) -> Kind:
        if asked is not None:
            asked.append(e.mid)
        part = parts[e.key.offset]
        return Kind(undo=False, group="one" if part else "", part=part)

    found = phases(todo[::-1], none_undecided, limit=9, kind=kind, closed=lambda _, moves: idempotent(moves))
    return [[e.mid for e in chosen] for chosen, _ in found]


def test_an_event_of_another_kind_holds_back_later_ones_of_its_users_only() -> None:
    assert parts_of(["ab", "cd", "ab", "ed", "be"], ["x", "", "y", "z", "x"]) == [["m00", "m04"], ["m02"]]
    assert parts_of(["cd", "ab", "cd"], ["", "x", "y"]) == [["m00"]]


def test_each_event_is_looked_at_a_few_times_however_many_parts_and_others_a_lane_has() -> None:
    def looks(n: int) -> float:
        asked: list[str] = []
        found = parts_of(["ab", "cd"] * n, [part for i in range(n) for part in (f"x{i}", "")], asked)
        assert len(found) == n
        return len(asked) / n

    assert looks(80) <= 2 * looks(5)


PARTS = ("", "x", "y")


@given(
    st.lists(
        st.tuples(st.sampled_from(["ab", "ac", "bc", "cb", "ba", "ca"]), st.sampled_from(PARTS)), max_size=9
    )
)
def test_events_about_one_batch_each_end_as_if_they_were_carried_out_one_after_the_other(
    wanted: list[tuple[str, str]],
) -> None:
    todo = transfers(*(pair for pair, _ in wanted))
    part_of = {e.mid: part for e, (_, part) in zip(todo, wanted, strict=True)}
    batches = [(name, user) for name in ("x", "y", "z") for user in "abc"]

    def about(e: Transfer, name: str) -> bool:
        return part_of[e.mid] in ("", name)

    expected = {b: replay([e for e in todo if about(e, b[0])], row(b[1])).created_by for b in batches}
    found = {b: row(b[1]) for b in batches}
    waiting, runs = list(todo), 0
    while waiting:
        runs += 1
        done: set[str] = set()
        for lane in lanes(waiting):
            for chosen, moves in phases(
                lane,
                none_undecided,
                limit=9,
                kind=lambda e: Kind(undo=False, group="one" if part_of[e.mid] else "", part=part_of[e.mid]),
                closed=lambda _, moves: idempotent(moves),
            ):
                away = {u: moves[u] for u in sources(moves)}
                for batch in batches:
                    if about(chosen[0], batch[0]):
                        found[batch] = map_owners(away, found[batch])
                done |= {e.mid for e in chosen}
        assert done
        waiting = [e for e in waiting if e.mid not in done]
    assert {b: r.created_by for b, r in found.items()} == expected
    if len({pair for pair, _ in wanted}) == 1 and all(part for _, part in wanted):
        assert runs == 1  # of the same users all go in one run
