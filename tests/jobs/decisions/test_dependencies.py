"""When a job that needs others begins, when it never can, and in which words it says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.decisions import dependencies
from jobs.decisions.dependencies import DependencyOn, Need, Verdict
from jobs.states import ACTIVE, FINAL, JobState

SUCCESS, END = DependencyOn.SUCCESS, DependencyOn.END


def need(
    on: DependencyOn, state: JobState, *, name: str | None = None, skipped: bool = False
) -> Need:
    code = "model_missing" if state is JobState.FAILED else None
    return Need("job_1", name, on, state, code, skipped=skipped and state is JobState.CANCELLED)


@pytest.mark.parametrize("state", sorted(ACTIVE))
@pytest.mark.parametrize("on", sorted(DependencyOn))
def test_a_job_waits_while_a_needed_one_has_not_ended(on: DependencyOn, state: JobState) -> None:
    assert dependencies.judge([need(on, state)]) is Verdict.WAIT


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_job_that_needs_an_end_begins_after_any_end(state: JobState) -> None:
    assert dependencies.judge([need(END, state)]) is Verdict.BEGIN


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_job_that_needs_success_fails_after_any_other_end(state: JobState) -> None:
    expected = Verdict.BEGIN if state is JobState.SUCCEEDED else Verdict.FAIL
    assert dependencies.judge([need(SUCCESS, state)]) is expected


@pytest.mark.parametrize(
    ("others", "verdict"),
    [
        ([], Verdict.SKIP),
        ([(SUCCESS, JobState.RUNNING)], Verdict.SKIP),
        ([(SUCCESS, JobState.SUCCEEDED)], Verdict.SKIP),
        ([(SUCCESS, JobState.FAILED)], Verdict.FAIL),
        ([(SUCCESS, JobState.CANCELLED)], Verdict.FAIL),
        ([(END, JobState.FAILED)], Verdict.SKIP),
    ],
)
def test_a_job_that_needs_the_success_of_a_skipped_one_is_skipped_unless_it_fails(
    others: list[tuple[DependencyOn, JobState]], verdict: Verdict
) -> None:
    skipped = need(SUCCESS, JobState.CANCELLED, name="train", skipped=True)
    assert dependencies.judge([skipped, *(need(on, state) for on, state in others)]) is verdict
    assert dependencies.no_rows([skipped]) == "it needs train (job_1), which had no rows"
    assert "train (job_1) (skipped) to succeed" in dependencies.failure([skipped])


def test_a_job_that_needs_the_end_of_a_skipped_one_begins() -> None:
    skipped = need(END, JobState.CANCELLED, skipped=True)
    assert dependencies.judge([skipped]) is Verdict.BEGIN


@given(
    st.lists(
        st.builds(
            need,
            st.sampled_from(DependencyOn),
            st.sampled_from(JobState),
            skipped=st.booleans(),
        ),
        max_size=5,
    )
)
def test_each_need_is_met_broken_skipped_or_waited_for(needs: list[Need]) -> None:
    for each in needs:
        waited_for = each.state in ACTIVE
        assert each.is_met + each.is_broken + each.is_skipped + waited_for == 1
    waits = dependencies.waits_for(needs) is not None
    assert waits == any(each.state in ACTIVE for each in needs)
    verdict = dependencies.judge(needs)
    assert verdict in {Verdict.FAIL, Verdict.SKIP} or (verdict is Verdict.WAIT) == waits


def test_it_says_which_jobs_it_waits_for_and_what_they_do() -> None:
    needs = [
        need(SUCCESS, JobState.RUNNING, name="train"),
        need(SUCCESS, JobState.SUCCEEDED, name="split"),
        need(END, JobState.QUEUED),
    ]
    assert dependencies.waits_for(needs) == (
        "it needs train (job_1) (running) to succeed, and job_1 (queued) to end"
    )


def test_it_says_which_job_failed_and_what_to_do() -> None:
    said = dependencies.failure([need(SUCCESS, JobState.FAILED, name="train")])
    assert said == (
        "it needs train (job_1) (failed, model_missing) to succeed; retry that and what waits for "
        "it: `nightshift jobs retry job_1 --with-dependents`"
    )


def test_a_circle_is_named_from_a_job_to_itself() -> None:
    assert dependencies.circle({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}) in (
        ["a", "b", "c", "a"],
        ["b", "c", "a", "b"],
        ["c", "a", "b", "c"],
    )
    assert dependencies.circle({"a": ["a"]}) == ["a", "a"]
    assert dependencies.circle({"a": ["b", "elsewhere"], "b": []}) is None


@given(st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=8))
def test_in_order_every_job_is_behind_those_that_it_needs(edges: list[set[int]]) -> None:
    needed_by = {str(job): [str(n) for n in ns if n < job] for job, ns in enumerate(edges)}
    order = dependencies.in_order(needed_by)
    assert sorted(order) == sorted(needed_by)
    assert all(order.index(n) < order.index(job) for job, ns in needed_by.items() for n in ns)
