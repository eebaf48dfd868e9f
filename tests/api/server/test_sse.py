"""How long a stream of events rests between two looks."""

from __future__ import annotations

import pytest

from api.server import looks


@pytest.mark.parametrize(
    ("chunks", "rests"), [(0, 1.0), (9_000, 1.0), (25_000, 2.5), (90_000, 9.0), (1_000_000, 10.0)]
)
def test_a_watcher_of_a_job_of_very_many_chunks_looks_less_often(chunks: int, rests: float) -> None:
    assert looks.pause(chunks) == pytest.approx(rests)
