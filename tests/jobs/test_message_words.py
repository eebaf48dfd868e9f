"""Words of messages: what people read, and the job that they are about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import ids, message_words
from jobs.message_words import Subject

JOB = "job_0123456789abcdef01234567"
NEWS = Subject(job_id=JOB, kind="classify", model="news@3")

LONGEST = 300
"""``workers.broker.envelope`` refuses longer words."""

numbers = st.integers(0, 2**62)
subjects = st.builds(
    Subject,
    job_id=st.builds(ids.job),
    kind=st.sampled_from(["classify", "text2text"]),
    model=st.none() | st.text(max_size=500),
)


@pytest.mark.parametrize(
    ("number", "chunks", "rows", "words"),
    [
        (17, 240, 1_000, "chunk 17 of 240 · classify · news@3 · rows 16,000 to 16,999"),
        (17, None, 1_000, "chunk 17 · classify · news@3 · rows 16,000 to 16,999"),
        (None, 240, 1_000, "chunk · classify · news@3 · rows 16,000 to 16,999"),
        (17, 5, 1_000, "chunk 17 · classify · news@3 · rows 16,000 to 16,999"),
        (1_234, 2_000, 1, "chunk 1,234 of 2,000 · classify · news@3 · row 16,000"),
    ],
)
def test_words_of_a_chunk(number: int | None, chunks: int | None, rows: int, words: str) -> None:
    written = message_words.chunk(NEWS, first_row=16_000, rows=rows, number=number, chunks=chunks)
    assert written == f"{words} · {JOB}"
    assert message_words.read(written) == message_words.MessageWords(words, JOB)


def test_words_of_a_rank() -> None:
    subject = Subject(job_id=JOB, kind="finetune", model="news")
    words = message_words.rank(subject, number=0, machines=2, run=3)
    assert words == f"rank 0 of 2 · run 3 · finetune news · {JOB}"


def test_words_of_a_step() -> None:
    assert message_words.step("plan", NEWS) == f"plan · classify · news@3 · {JOB}"


@pytest.mark.parametrize(
    ("words", "text", "job_id"),
    [
        (f"rows 0 to 999 of {JOB}", "rows 0 to 999", JOB),
        (f"plan {JOB}", "plan", JOB),
        (f"rank 0 of run 1 of {JOB}", "rank 0 of run 1", JOB),
        ("something else", "something else", None),
        ("", "", None),
    ],
)
def test_words_of_earlier_versions_are_read(words: str, text: str, job_id: str | None) -> None:
    assert message_words.read(words) == message_words.MessageWords(text, job_id)


@given(subjects, numbers, numbers, st.none() | numbers, st.none() | numbers)
def test_whatever_a_job_is_called_workers_accept_its_messages(
    subject: Subject, first_row: int, rows: int, number: int | None, chunks: int | None
) -> None:
    written = (
        message_words.chunk(subject, first_row=first_row, rows=rows, number=number, chunks=chunks),
        message_words.step("finalize", subject),
        message_words.rank(subject, number=7, machines=64, run=first_row),
    )
    for words in written:
        assert len(words) <= LONGEST
        assert words.isprintable()
        assert message_words.read(words).job_id == subject.job_id
