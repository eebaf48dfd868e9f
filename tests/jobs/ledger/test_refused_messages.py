"""What the ledger keeps about messages that workers refused or died of."""

from __future__ import annotations

from jobs.ledger import controls, message_keys, refused_messages
from jobs.ledger.refused_messages import Death, Refusal
from jobs.queries import refused_messages as queries
from jobs.states import JobState
from jobs.tables import RefusedMessage
from tests.jobs.ledger.building import PROJECT, Ledger

WORKER = "pool-1@here"


def refuse(ledger: Ledger, *digests: str, times: int = 1) -> None:
    found = [Refusal(each, "plan", "malformed", "it must be JSON", 7, times) for each in digests]
    with ledger.sessions.begin() as session:
        refused_messages.record(session, found, worker=WORKER)


def die(ledger: Ledger, death: Death) -> bool:
    with ledger.sessions.begin() as session:
        return refused_messages.record_death(session, death)


def latest(ledger: Ledger) -> list[RefusedMessage]:
    with ledger.sessions.begin() as session:
        return queries.latest(session, limit=10_000)


def quarantined(ledger: Ledger) -> frozenset[str]:
    with ledger.sessions.begin() as session:
        return queries.quarantined(session)


def test_the_key_is_made_once(ledger: Ledger) -> None:
    first = message_keys.read(ledger.sessions)
    assert len(first) == message_keys.KEY_BYTES
    assert message_keys.read(ledger.sessions) == first


def test_refusals_of_the_same_bytes_are_counted_in_one_row(ledger: Ledger) -> None:
    refuse(ledger, "same", times=3)
    refuse(ledger, "same", "other")
    assert {each.digest: each.times for each in latest(ledger)} == {"same": 4, "other": 1}


def test_only_the_last_refusals_are_kept_and_no_death_is_forgotten(ledger: Ledger) -> None:
    die(ledger, Death("deadly", "plan", 7, WORKER))
    refuse(ledger, *map(str, range(refused_messages.KEPT)))
    refuse(ledger, "newest")
    found = {each.digest for each in latest(ledger)}
    assert {"newest", "deadly"} <= found
    assert len(found) <= refused_messages.KEPT + 1


def test_the_second_death_puts_a_message_into_quarantine(ledger: Ledger) -> None:
    death = Death("of no job", "plan", 7, WORKER)
    assert not die(ledger, death)
    assert "of no job" not in quarantined(ledger)
    assert die(ledger, death)
    assert "of no job" in quarantined(ledger)


def test_the_job_of_a_chunk_whose_message_kills_fails_and_can_be_tried_again(
    ledger: Ledger,
) -> None:
    job_id = ledger.running(3)
    death = Death("of a chunk", "pool.cpu", 7, WORKER, "chunk", ledger.only_chunk(job_id))
    die(ledger, death)
    assert ledger.job(job_id).state is JobState.RUNNING
    die(ledger, death)
    job = ledger.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, refused_messages.CODE)
    with ledger.sessions.begin() as session:
        controls.retry(session, job_id, project_id=PROJECT)
    assert "of a chunk" not in quarantined(ledger)


def test_a_message_about_work_that_is_not_there_harms_no_job(ledger: Ledger) -> None:
    for task, argument in (("chunk", 999_999), ("rank", "no run"), ("plan", "no job")):
        death = Death(f"{task} of nothing", "plan", 7, WORKER, task, argument)
        die(ledger, death)
        assert die(ledger, death)
