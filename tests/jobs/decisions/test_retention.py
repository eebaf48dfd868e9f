"""What goes of an ended job, and when: never before its period, and never of one that is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import retention
from jobs.decisions import retention as decisions
from jobs.decisions.retention import EndedJob
from jobs.retention import BUILT_IN, OF_BULK, OF_TRAINING, Piece, Retention
from jobs.states import FINAL, JobState

END = datetime(2026, 12, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def ended(
    state: JobState = JobState.SUCCEEDED,
    *,
    pieces: frozenset[Piece] = OF_BULK,
    removed: frozenset[Piece] = frozenset(),
    kept: bool = False,
) -> EndedJob:
    return EndedJob(state, END, pieces, removed=removed, kept=kept)


def due(job: EndedJob, *, days: float, **periods: str) -> set[str]:
    policy = Retention.model_validate(periods)
    verdict = decisions.decide(job, retention.effective(policy), now=END + days * DAY)
    return {piece.value for piece in verdict.due}


@pytest.mark.parametrize(
    ("job", "days", "periods", "pieces"),
    [
        (ended(), 6.9, {}, set()),
        (ended(), 9_999, {}, {"chunks"}),
        (ended(), 9_999, {"chunks": "forever"}, set()),
        (ended(JobState.FAILED, pieces=OF_TRAINING), 9_999, {}, set()),
        (ended(pieces=OF_TRAINING), 0, {}, {"checkpoints"}),
        (ended(pieces=OF_TRAINING), 0, {"succeeded_checkpoints": "1d"}, set()),
        (ended(pieces=OF_TRAINING), 1, {"succeeded_checkpoints": "1d"}, {"checkpoints"}),
        (ended(pieces=OF_TRAINING), 9, {"succeeded_checkpoints": "forever"}, set()),
        (ended(JobState.FAILED, pieces=OF_TRAINING), 29, {"checkpoints": "30d"}, set()),
        (ended(JobState.FAILED, pieces=OF_TRAINING), 30, {"checkpoints": "30d"}, {"checkpoints"}),
        (
            ended(JobState.CANCELLED, pieces=OF_TRAINING),
            30,
            {"checkpoints": "30d"},
            {"checkpoints"},
        ),
        (ended(JobState.EXPIRED, pieces=OF_TRAINING), 30, {"checkpoints": "30d"}, {"checkpoints"}),
        (ended(), 6, {"parts": "6d", "outputs": "8d"}, {"parts"}),
        (ended(), 8, {"parts": "7d", "outputs": "8d"}, {"chunks", "parts", "outputs"}),
        (
            ended(removed=frozenset({Piece.PARTS, Piece.CHUNKS})),
            8,
            {"parts": "7d", "outputs": "8d"},
            {"outputs"},
        ),
        (ended(), 90, {"parts": "7d", "jobs": "90d"}, {"jobs"}),
        (ended(), 1, {"rows": "1h", "logs": "1h"}, {"rows"}),
        (ended(pieces=OF_TRAINING), 1, {"rows": "1h", "logs": "1h"}, {"checkpoints", "logs"}),
        (ended(pieces=frozenset({Piece.JOB})), 5, {"shards": "1d", "jobs": "9d"}, set()),
        (ended(kept=True), 9_999, {"jobs": "1d", "parts": "1d"}, set()),
        (ended(), 0, {"shards": "0s"}, {"shards"}),
        (ended(), -1, {"shards": "0s", "jobs": "0s"}, set()),
    ],
)
def test_pieces_go_when_their_period_is_over(
    job: EndedJob, days: float, periods: dict[str, str], pieces: set[str]
) -> None:
    assert due(job, days=days, **periods) == pieces


PERIODS = st.fixed_dictionaries(
    {
        name: st.one_of(
            st.just(retention.FOREVER),
            st.integers(0, 1_000).map(lambda hours: timedelta(hours=hours)),
        )
        for name in BUILT_IN
    }
)
JOBS = st.builds(
    EndedJob,
    state=st.sampled_from(sorted(FINAL)),
    finished_at=st.just(END),
    pieces=st.sampled_from([OF_BULK, OF_TRAINING, frozenset({Piece.JOB})]),
    removed=st.frozensets(st.sampled_from(Piece)),
    kept=st.booleans(),
)


@given(job=JOBS, periods=PERIODS, hours=st.integers(-10, 1_010))
def test_nothing_goes_early_twice_or_of_a_job_that_is_kept(
    job: EndedJob, periods: dict[str, timedelta], hours: int
) -> None:
    now = END + timedelta(hours=hours)
    verdict = decisions.decide(job, periods, now=now)
    if job.kept:
        assert (verdict.due, verdict.look_at) == (frozenset(), None)
    assert verdict.due <= job.pieces - job.removed
    for piece in verdict.due:
        assert END + retention.of_piece(periods, piece, job.state) <= now
    if Piece.JOB in verdict.due:
        assert verdict.due == {Piece.JOB}


@given(job=JOBS, periods=PERIODS, hours=st.integers(0, 1_010))
def test_who_looks_again_when_it_is_told_to_misses_nothing(
    job: EndedJob, periods: dict[str, timedelta], hours: int
) -> None:
    now, gone = END, job.removed
    last = END + timedelta(hours=hours)
    while now <= last:
        left = EndedJob(job.state, END, job.pieces, removed=gone, kept=job.kept)
        verdict = decisions.decide(left, periods, now=now)
        gone |= verdict.due
        if verdict.look_at is None or Piece.JOB in verdict.due:
            break
        assert verdict.look_at > now
        now = verdict.look_at
    at_once = decisions.decide(job, periods, now=last)
    assert at_once.due <= gone


@pytest.mark.parametrize(
    ("layers", "jobs"),
    [
        ([], "forever"),
        ([{"jobs": "90d"}], "90d"),
        ([{"jobs": "90d"}, {}], "90d"),
        ([{"jobs": "90d"}, {"jobs": "7d"}], "7d"),
        ([{"jobs": "90d"}, {"jobs": "forever"}], "forever"),
        ([{"jobs": "90d"}, {"jobs": "forever"}, {"jobs": 3600}], "1h"),
    ],
)
def test_the_last_layer_that_gives_a_period_counts(layers: list[dict[str, str]], jobs: str) -> None:
    found = retention.effective(*map(Retention.model_validate, layers))
    assert retention.in_words(found)["jobs"] == jobs
    assert retention.in_words(found)["succeeded_checkpoints"] == "0s"


@pytest.mark.parametrize("period", ["30", "1h30m", "forever", " Forever ", 0, 90.5, "0s"])
def test_a_period_comes_back_as_it_was_meant(period: str | float) -> None:
    policy = Retention.model_validate({"files": period})
    assert Retention.model_validate(retention.dumped(policy)) == policy


@pytest.mark.parametrize("period", ["", "soon", -1, "11y", "4000d", True, "nan", [], "1e9"])
def test_what_is_no_period_is_refused(period: object) -> None:
    with pytest.raises(ValueError, match="must be `forever`, a duration"):
        Retention.model_validate({"files": period})
