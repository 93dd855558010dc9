"""Every grid point and every piece is planned once or counted as skipped; none is planned too early."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveaffect.realtime.clock import MS
from liveaffect.realtime.window import FUSION_STEP_NS, Due, PieceGrid, grid_due

piece_grids = st.integers(1, 50).flatmap(
    lambda length: st.builds(PieceGrid, st.just(length), st.integers(1, length))
)


@given(st.integers(1, 200 * MS), st.lists(st.integers(0, 400 * MS), min_size=1, max_size=60))
def test_every_grid_point_is_planned_once_or_counted_as_skipped(step_ns: int, pauses: list[int]) -> None:
    now_ns, last, planned, skipped = 0, -1, 0, 0
    for pause_ns in pauses:
        now_ns += pause_ns
        due = grid_due(step_ns, last_index=last, now_ns=now_ns)
        if due is None:
            assert now_ns < (last + 1) * step_ns
            continue
        assert due.index * step_ns <= now_ns < (due.index + 1) * step_ns
        planned, skipped, last = planned + 1, skipped + due.skipped, due.index
    assert planned + skipped == last + 1


def test_a_late_machine_jumps_to_the_newest_point_and_counts_the_rest() -> None:
    assert grid_due(FUSION_STEP_NS, last_index=4, now_ns=1_250 * MS) == Due(index=12, skipped=7)


def test_no_point_is_planned_before_its_time() -> None:
    assert grid_due(FUSION_STEP_NS, last_index=4, now_ns=500 * MS - 1) is None
    assert grid_due(FUSION_STEP_NS, last_index=4, now_ns=500 * MS) == Due(5, 0)


def test_a_grid_without_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0 ns"):
        grid_due(0, last_index=-1, now_ns=1)


@given(
    piece_grids,
    st.integers(1, 120),
    st.integers(1, 5),
    st.lists(st.integers(0, 80), min_size=1, max_size=40),
)
def test_every_piece_is_planned_once_or_counted_as_skipped(
    grid: PieceGrid, capacity: int, most: int, arrivals: list[int]
) -> None:
    end, next_index, planned, skipped = 0, 0, 0, 0
    for arrived in arrivals:
        end += arrived
        oldest = max(0, end - capacity)
        pieces, left_out = grid.due(next_index=next_index, oldest=oldest, end=end, most=most)
        assert len(pieces) <= most
        for index in pieces:
            assert oldest <= index * grid.hop
            assert index * grid.hop + grid.length <= end
        if pieces:
            newest = pieces[-1]
            assert (newest + 1) * grid.hop + grid.length > end
            next_index = newest + 1
        planned, skipped = planned + len(pieces), skipped + left_out
        assert planned + skipped == next_index


@given(piece_grids, st.lists(st.integers(0, 80), min_size=1, max_size=40))
def test_a_machine_that_keeps_up_skips_nothing_and_hears_every_sample(
    grid: PieceGrid, arrivals: list[int]
) -> None:
    end, next_index, heard = 0, 0, 0
    for arrived in arrivals:
        end += arrived
        pieces, skipped = grid.due(next_index=next_index, oldest=0, end=end, most=10_000)
        assert skipped == 0
        for index in pieces:
            assert index * grid.hop <= heard
            heard = index * grid.hop + grid.length
            next_index = index + 1
    assert end - heard < grid.length


@pytest.mark.parametrize("hop", [0, -1, 11])
def test_a_hop_that_does_not_fit_is_refused_with_both_numbers_in_the_message(hop: int) -> None:
    with pytest.raises(ValueError, match=f"a hop of {hop} samples does not fit pieces of 10"):
        PieceGrid(10, hop)
