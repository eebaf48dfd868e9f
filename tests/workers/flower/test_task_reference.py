"""A task of Flower's leads to the work in the ledger that it is about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import message_words
from jobs.message_words import Subject
from jobs.states import JobStep
from workers.flower import task_reference
from workers.flower.task_reference import ChunkTask, RankTask, StepTask

models = st.none() | st.text(max_size=120)
numbers = st.integers(0, 10**10)


def subject(model: str | None) -> Subject:
    return Subject(job_id="job_1a", kind="classify", model=model)


@given(models, numbers, st.integers(1, 10**6), st.none() | st.integers(1, 10**6))
def test_a_chunk_is_found_by_its_first_row(
    model: str | None, first_row: int, rows: int, number: int | None
) -> None:
    words = message_words.chunk(
        subject(model), first_row=first_row, rows=rows, number=number, chunks=None
    )
    assert task_reference.read("chunk", words) == ChunkTask("job_1a", first_row)


@given(models, st.integers(1, 10**6))
def test_a_rank_is_found_by_its_run(model: str | None, run: int) -> None:
    words = message_words.rank(subject(model), number=0, machines=2, run=run)
    assert task_reference.read("rank", words) == RankTask("job_1a", run)


@given(models, st.sampled_from(JobStep))
def test_a_step_is_found_by_its_name(model: str | None, step: JobStep) -> None:
    words = message_words.step(step, subject(model))
    assert task_reference.read(step, words) == StepTask("job_1a", step)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("chunk", "chunk 1 · classify"),
        ("chunk", "chunk 1 · classify · job_1a"),
        ("rank", "rank 0 of 1 · job_1a"),
        ("other", "rows 0 to 9 · job_1a"),
    ],
)
def test_other_words_lead_nowhere(name: str, words: str) -> None:
    assert task_reference.read(name, words) is None
