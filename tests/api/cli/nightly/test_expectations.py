"""Each expectation finds what contradicts it, and finds nothing where all went well."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from api.cli.failures import FAILED, Failure
from api.cli.nightly import expectations, report
from api.cli.nightly.expectations import Check
from api.cli.nightly.facts import Facts, Run
from tests.api.cli.nightly.good_nights import (
    decision,
    due,
    fine_tune,
    good,
    job,
    labels,
    told,
    training,
)

GOOD = good()
KEPT = job(GOOD.training[3])
LABELLED = job(GOOD.labelling[3])

BREAKS: list[tuple[str, Check, Callable[[Facts], Facts]]] = [
    (
        "a fire is missing",
        expectations.one_fire_a_night,
        lambda facts: replace(facts, training=facts.training[:-1]),
    ),
    (
        "a fire was triggered by hand",
        expectations.one_fire_a_night,
        lambda facts: training(facts, 1, origin="trigger"),
    ),
    (
        "two fires have one job",
        expectations.one_fire_a_night,
        lambda facts: fine_tune(facts, 4, id="job_1"),
    ),
    (
        "a fire was missed",
        expectations.one_fire_a_night,
        lambda facts: training(facts, 5, job=None, state="missed"),
    ),
    (
        "a night fails",
        expectations.nights_with_rows_succeed,
        lambda facts: training(facts, 5, state="failed"),
    ),
    (
        "an empty night fails",
        expectations.an_empty_night_is_skipped,
        lambda facts: training(facts, 2, state="failed"),
    ),
    (
        "an empty night is skipped without a reason",
        expectations.an_empty_night_is_skipped,
        lambda facts: training(facts, 2, reason=None),
    ),
    (
        "an empty night trains",
        expectations.an_empty_night_is_skipped,
        lambda facts: fine_tune(facts, 2, runs=(Run(state="succeeded", from_step=0, step=1),)),
    ),
    (
        "a fine-tune leaves an object out",
        expectations.every_fine_tune_takes_what_is_new,
        lambda facts: fine_tune(facts, 1, inputs=()),
    ),
    (
        "a fine-tune takes the rows of a promoted night again",
        expectations.every_fine_tune_takes_what_is_new,
        lambda facts: fine_tune(facts, 5, inputs=KEPT.inputs),
    ),
    (
        "the rejected rows are lost",
        expectations.rejected_rows_come_again,
        lambda facts: fine_tune(facts, 4, inputs=KEPT.inputs[2:]),
    ),
    (
        "the corrected object comes as it was",
        expectations.rejected_rows_come_again,
        lambda facts: fine_tune(
            facts,
            4,
            inputs=tuple(
                replace(each, version="of night 3") if "12-03" in each.name else each
                for each in KEPT.inputs
            ),
        ),
    ),
    (
        "the two versions are compared on other rows",
        expectations.a_gate_compares_on_the_same_rows,
        lambda facts: decision(facts, 3, rows=39),
    ),
    (
        "the champion has no number",
        expectations.a_gate_compares_on_the_same_rows,
        lambda facts: decision(facts, 4, incumbent_value=None),
    ),
    (
        "the worse number wins",
        expectations.a_gate_compares_on_the_same_rows,
        lambda facts: decision(facts, 4, value=9.0),
    ),
    (
        "wrong labels are promoted",
        expectations.the_flipped_night_is_refused,
        lambda facts: decision(facts, 3, promoted=True),
    ),
    (
        "no night is promoted",
        expectations.the_flipped_night_is_refused,
        lambda facts: functools.reduce(
            lambda found, number: decision(found, number, promoted=False), (1, 4, 5, 6, 7), facts
        ),
    ),
    (
        "the alias does not move",
        expectations.the_alias_follows_the_decisions,
        lambda facts: replace(facts, moves=facts.moves[:-1]),
    ),
    (
        "a killed process stays away",
        expectations.the_killed_night_goes_on,
        lambda facts: told(facts, successors={"control": 3}),
    ),
    (
        "nothing was killed",
        expectations.the_killed_night_goes_on,
        lambda facts: told(facts, killed={}),
    ),
    (
        "the kill met no run",
        expectations.the_killed_night_goes_on,
        lambda facts: fine_tune(facts, 5, runs=(Run(state="succeeded", from_step=0, step=72),)),
    ),
    (
        "the killed night begins again",
        expectations.the_killed_night_goes_on,
        lambda facts: fine_tune(
            facts,
            5,
            runs=(
                Run(state="lost", from_step=0, step=29),
                Run(state="succeeded", from_step=0, step=72),
            ),
        ),
    ),
    (
        "the overlapping night does not wait",
        expectations.an_overlap_waits,
        lambda facts: training(facts, 7, submitted_at=due(facts.nights[6])),
    ),
    (
        "it waits for something else",
        expectations.an_overlap_waits,
        lambda facts: told(facts, waited="job_5 of an earlier fire still runs"),
    ),
    (
        "a night's rows are labelled in part",
        expectations.labels_are_of_the_night,
        lambda facts: labels(facts, 4, rows=39),
    ),
    (
        "rows between two nights are left out",
        expectations.labels_are_of_the_night,
        lambda facts: labels(
            facts,
            4,
            inputs=tuple(replace(each, since="later") for each in LABELLED.inputs),
        ),
    ),
    (
        "an old version labels",
        expectations.labels_are_of_the_night,
        lambda facts: labels(facts, 4, model="topics@1"),
    ),
    (
        "a row is missing",
        expectations.every_bulk_job_verifies,
        lambda facts: labels(facts, 6, verified=False),
    ),
    (
        "a bulk job was not verified",
        expectations.every_bulk_job_verifies,
        lambda facts: labels(facts, 6, verified=None),
    ),
    (
        "an event is lost",
        expectations.the_receiver_is_told,
        lambda facts: told(facts, events=facts.told.events[1:]),
    ),
    (
        "an event is about nothing",
        expectations.the_receiver_is_told,
        lambda facts: told(facts, events=(*facts.told.events, ("model.promoted", "job_9"))),
    ),
]


def test_nothing_is_broken_where_all_went_well() -> None:
    broken = expectations.broken(GOOD)
    assert {sentence: problems for sentence, problems in broken.items() if problems} == {}
    assert len(broken) == len(expectations.CHECKS)


@pytest.mark.parametrize(
    ("check", "change"), [case[1:] for case in BREAKS], ids=[case[0] for case in BREAKS]
)
def test_what_goes_wrong_is_found(check: Check, change: Callable[[Facts], Facts]) -> None:
    assert expectations.broken(change(GOOD))[expectations.sentence(check)]


def test_every_expectation_is_broken_by_some_case() -> None:
    assert {check for _, check, _ in BREAKS} == set(expectations.CHECKS)


def test_nights_of_which_none_came_break_most_of_it_and_raise_nothing() -> None:
    broken = expectations.broken(replace(GOOD, training=(), labelling=(), decisions=(), moves=()))
    assert sum(map(bool, broken.values())) > 5


def test_what_holds_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    report.judge(expectations.broken(GOOD), logs=Path("/logs"))
    assert f"all {len(expectations.CHECKS)} hold" in capsys.readouterr().out


def test_one_broken_expectation_is_exit_code_1_and_says_where_the_logs_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = expectations.broken(decision(GOOD, 3, promoted=True))
    with pytest.raises(Failure) as failure:
        report.judge(broken, logs=Path("/logs"))
    assert failure.value.code == FAILED == 1
    assert "/logs" in failure.value.message
    assert f"no   {expectations.sentence(expectations.the_flipped_night_is_refused)}" in (
        capsys.readouterr().out
    )


def test_every_fire_gate_and_verification_is_in_the_tables(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report.show(GOOD)
    said = capsys.readouterr().out
    assert [job for job in ("job_1", "job_7", "job_7_labels") if job not in said] == []
    assert "1.9000" in said
    assert said.count("verified") == 6
    report.write(tmp_path / "report.json", GOOD, expectations.broken(GOOD))
    assert '"broken"' in (tmp_path / "report.json").read_text(encoding="utf-8")
