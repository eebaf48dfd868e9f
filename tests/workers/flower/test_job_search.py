"""What is asked of the Jobs tab."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.kinds import KINDS
from jobs.states import JobState
from workers.flower.job_search import JobSearch

ID = "job_0123456789abcdef01234567"

texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=60)


def test_nothing_asked_means_every_job() -> None:
    wanted = JobSearch.read({}).filter
    assert (wanted.id, wanted.project, wanted.model) == (None, None, None)
    assert (wanted.jobs.name, wanted.jobs.kind, wanted.jobs.state) == (None, None, None)


def test_a_text_that_is_an_id_means_that_job() -> None:
    wanted = JobSearch.read({"text": [f" {ID} "]}).filter
    assert (wanted.id, wanted.jobs.name) == (ID, None)


def test_any_other_text_is_a_part_of_a_name() -> None:
    wanted = JobSearch.read({"text": ["job_news"]}).filter
    assert (wanted.id, wanted.jobs.name) == (None, "job_news")


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"colour": ["red"]}, "'colour' is none of text"),
        ({"state": ["red"]}, "state must be one of queued"),
        ({"kind": ["red"]}, "kind must be one of"),
        ({"text": ["a", "b"]}, "text must be given once"),
        ({"text": ["a" * 201]}, "at most 200"),
        ({"text": ["a\0b"]}, "printable"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(given_: dict[str, list[str]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        JobSearch.read(given_)


@given(
    st.builds(
        JobSearch,
        text=texts,
        project=texts,
        model=texts,
        kind=st.sampled_from(["", *KINDS]),
        state=st.sampled_from(["", *JobState]),
    ),
    texts,
)
def test_the_address_of_the_next_page_asks_the_same(search: JobSearch, after: str) -> None:
    found = JobSearch.read(parse_qs(search.address(after=after)))
    assert found == JobSearch(**(vars(search) | {"after": after}))
