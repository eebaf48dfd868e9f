"""Rollbacks go back through what an alias pointed to, further with each one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import alias_history
from jobs.decisions.alias_history import AliasChange, Move

SET, BACK, GONE = AliasChange.SET, AliasChange.ROLLBACK, AliasChange.REMOVAL


@pytest.mark.parametrize(
    ("moves", "current", "earlier"),
    [
        ([], None, []),
        ([(SET, 1)], 1, []),
        ([(SET, 1), (SET, 2), (AliasChange.PROMOTION, 3)], 3, [2, 1]),
        ([(SET, 1), (SET, 2), (SET, 3), (BACK, 2)], 2, [1]),
        ([(SET, 1), (SET, 2), (SET, 3), (BACK, 1)], 1, []),  # past 2, which was deleted
        ([(SET, 1), (SET, 2), (BACK, 1), (SET, 3)], 3, [1]),
        ([(SET, 1), (SET, 2), (SET, 1)], 1, [2]),
        ([(SET, 1), (SET, 2), (SET, 1), (BACK, 2)], 2, [1]),
        ([(SET, 1), (SET, 2), (GONE, None)], None, [2, 1]),
        ([(SET, 1), (GONE, None), (SET, 2)], 2, [1]),
        ([(SET, 1), (SET, 2), (GONE, None), (BACK, 2)], 2, [1]),
        ([(SET, 1)], 5, [1]),  # a process that wrote no moves has moved it
    ],
)
def test_where_a_rollback_goes(
    moves: list[tuple[AliasChange, int | None]], current: int | None, earlier: list[int]
) -> None:
    assert alias_history.earlier([Move(*move) for move in moves], current=current) == earlier


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_each_rollback_goes_one_further_back_until_there_is_nothing(versions: list[int]) -> None:
    moves = [Move(SET, version) for version in versions]
    current, visited = versions[-1], []
    while targets := alias_history.earlier(moves, current=current):
        current = targets[0]
        visited.append(current)
        moves.append(Move(BACK, current))
    served = [version for version, _ in itertools.groupby(versions)]
    assert visited == served[-2::-1]
