"""Label sets and rows that are held back, as the planner writes them down."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.kinds import DatasetSplit
from jobs.ledger import registry
from jobs.models.signatures import Signature, Task
from jobs.states import JobState
from tests.jobs.ledger.building import PROJECT
from tests.workers.bulk.conftest import Workshop
from tests.workers.bulk.training import GOOD, facts, failure, labels, planned, rows_of, shards
from workers.context import Context

KNOWN = ["world", "体育", "sports", "art"]


def register(workshop: Workshop, name: str, *known: str) -> None:
    """A version whose alias is champion."""
    signature = Signature(task=Task.CLASSIFY, labels=known) if known else None
    with workshop.ledger.sessions.begin() as session:
        version = registry.register(
            session,
            project_id=PROJECT,
            name=name,
            task="classify",
            kind="full",
            base=None,
            files=[],
            metrics={},
            lineage={},
            signature=signature,
            job_id=None,
        )
        registry.set_alias(
            session, project_id=PROJECT, name=name, alias="champion", version=version
        )


def test_a_night_without_one_label_trains(workshop: Workshop, context: Context) -> None:
    job = planned(workshop, context, corpus=GOOD, labels=KNOWN, test=labels("art", "sports"))
    assert job.state is JobState.RUNNING
    found = facts(job)
    assert (found.labels, found.labels_of) == (tuple(KNOWN), None)
    train = found.splits[DatasetSplit.TRAIN]
    assert train.labels == {"sports": 10, "world": 10, "体育": 10}


def test_all_rows_of_one_night_may_have_one_label(workshop: Workshop, context: Context) -> None:
    job = planned(workshop, context, corpus=labels(*["art"] * 9), labels=KNOWN)
    assert facts(job).labels == tuple(KNOWN)


def test_a_new_label_is_refused_or_added_behind_the_others(
    workshop: Workshop, context: Context
) -> None:
    rows = [*GOOD, *labels("zoo", "zoo")]
    message = failure(workshop, context, corpus=rows, labels=KNOWN)
    assert message.startswith(
        "unknown_label: line 31 of the train corpus has the label 'zoo', which the label set of "
        "the job lacks; it has 'world'"
    )
    job = planned(workshop, context, corpus=rows, labels=KNOWN, new_labels="add")
    assert facts(job).labels == (*KNOWN, "zoo")


def test_the_labels_are_those_of_the_version_at_an_alias(
    workshop: Workshop, context: Context
) -> None:
    register(workshop, "press", *KNOWN)
    job = planned(workshop, context, corpus=GOOD, model="press", labels="press@champion")
    assert (facts(job).labels, facts(job).labels_of) == (tuple(KNOWN), "press@1")
    message = failure(workshop, context, corpus=labels("zoo", "zoo"), labels="press@1")
    assert "which the label set of press@1 lacks" in message


def test_the_first_version_has_the_labels_of_its_rows(workshop: Workshop, context: Context) -> None:
    job = planned(workshop, context, corpus=GOOD, model="first", labels="first@champion")
    assert (facts(job).labels, facts(job).labels_of) == (("sports", "world", "体育"), None)


def test_a_version_that_has_no_labels_fails_the_job(workshop: Workshop, context: Context) -> None:
    register(workshop, "plain")
    refusals = {
        "nowhere@champion": "model_not_found: labels: no model 'nowhere'",
        "plain@7": "model_not_found: labels: the model 'plain' has no version 7",
        "plain@champion": "no_label_set: labels: plain@1 has no labels in the registry",
    }
    for reference, message in refusals.items():
        assert failure(workshop, context, corpus=GOOD, labels=reference).startswith(message)


@pytest.mark.parametrize(("newest", "held"), [(9, 9), (8, 8), ("50%", 15), (1, 1), (29, 29)])
def test_the_newest_rows_are_held_back_and_not_trained_on(
    workshop: Workshop, context: Context, newest: Any, held: int
) -> None:
    fields: dict[str, Any] = {"validation_share": 0.2} if held < 29 else {"validation": GOOD}
    job = planned(
        workshop, context, corpus=GOOD, labels=KNOWN, promote={"newest": newest}, **fields
    )
    assert job.state is JobState.RUNNING, job.error_message
    texts = {
        split: [row["text"] for row in rows_of(workshop, job.id, split)]
        for split in ("train", "promotion")
    }
    assert texts["promotion"] == [row["text"] for row in GOOD[30 - held :]]
    assert texts["train"] == [row["text"] for row in GOOD[: 30 - held]]
    found = facts(job).splits
    train, promotion = found[DatasetSplit.TRAIN], found[DatasetSplit.PROMOTION]
    assert (train.rows, promotion.rows) == (30 - held, held)
    assert sum((train.labels or {}).values()) == 30 - held
    assert sum((promotion.labels or {}).values()) == held
    written = [shard.split for shard in shards(workshop, job.id)]
    assert (written.count("train"), written.count("promotion")) == (train.shards, promotion.shards)
    stored = [each.key for each in workshop.store.listing(f"jobs/{job.id}/data/")]
    assert sorted(stored) == sorted(shard.object_key for shard in shards(workshop, job.id))


def test_more_than_all_rows_cannot_be_held_back(workshop: Workshop, context: Context) -> None:
    message = failure(workshop, context, corpus=GOOD, promote={"newest": 30})
    assert message.startswith("split_empty: promote.newest holds back 30 rows, and the corpus has")


def test_a_label_of_the_newest_rows_alone_is_not_learnt(
    workshop: Workshop, context: Context
) -> None:
    rows = [*GOOD, *labels("zoo")]
    message = failure(workshop, context, corpus=rows, promote={"newest": 3})
    assert message.startswith("unknown_label: the newest rows, which promote.newest holds back")
