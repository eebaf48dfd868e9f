"""The outbox of webhooks: an event is written with what makes it, and claimed in order."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jobs.errors import BadRequest, Conflict, NotFound
from jobs.kinds.groups import GroupSpec
from jobs.ledger import (
    controls,
    groups,
    plans,
    registry,
    transitions,
    webhook_deliveries,
    webhook_endpoints,
    webhook_groups,
)
from jobs.ledger.promotions import PromotionRecord, record_promotion
from jobs.ledger.webhook_deliveries import Claim
from jobs.schedules.states import FireState
from jobs.settings import Settings
from jobs.states import JobState
from jobs.tables import (
    Fire,
    ScheduleVersion,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
    WebhookGroupCheck,
)
from jobs.webhooks import retries
from jobs.webhooks.answers import Failure
from jobs.webhooks.endpoints import EndpointRequest
from jobs.webhooks.events import EventType
from jobs.webhooks.states import DeliveryState
from tests.jobs.ledger.building import OTHER, PROJECT, Ledger
from tests.jobs.ledger.scheduling import HOUR, SPEC, Clockwork

SETTINGS = Settings(webhook_networks=["127.0.0.2"])
LEASE = timedelta(seconds=30)
REFUSED = Failure("it answered 500", 500)
LABEL = {"kind": "classify", "model": "/model", "corpus": {"uri": "file:///corpus.jsonl"}}


class Outbox:
    """The endpoints of one ledger, and what waits for them."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def endpoint(self, *event_types: str, project: str = PROJECT) -> str:
        request = EndpointRequest.model_validate(
            {"url": "http://127.0.0.2:9/hook", "event_types": event_types}
        )
        with self.ledger.sessions.begin() as session:
            return webhook_endpoints.create(
                session, request, project_id=project, idempotency_key=None, settings=SETTINGS
            )[0]

    def events(self, endpoint: str) -> list[tuple[str, str]]:
        """Type and object of what was written for the endpoint, in order."""
        query = (
            sa.select(WebhookEvent.type, WebhookDelivery.object_id)
            .join(WebhookDelivery, WebhookDelivery.event_id == WebhookEvent.id)
            .where(WebhookDelivery.endpoint_id == endpoint)
            .order_by(WebhookDelivery.id)
        )
        with self.ledger.sessions.begin() as session:
            return [(event_type, about) for event_type, about in session.execute(query)]

    def claim(self, duration: timedelta = LEASE) -> Claim | None:
        with self.ledger.sessions.begin() as session:
            return webhook_deliveries.claim(session, duration=duration)

    def claimed(self) -> Claim:
        found = self.claim()
        assert found is not None
        return found

    def succeed(self, claimed: Claim) -> bool:
        with self.ledger.sessions.begin() as session:
            return webhook_deliveries.succeed(session, claimed, status_code=204)

    def fail(self, claimed: Claim, failure: Failure = REFUSED) -> bool:
        with self.ledger.sessions.begin() as session:
            return webhook_deliveries.fail(session, claimed, failure)

    def enable(self, endpoint: str, *, skip_waiting: bool = False) -> None:
        with self.ledger.sessions.begin() as session:
            webhook_endpoints.enable(
                session, endpoint, project_id=PROJECT, skip_waiting=skip_waiting
            )

    def let_time_pass(self) -> None:
        """Nothing rests, no lease is left, and every delivery is due."""
        with self.ledger.sessions.begin() as session:
            session.execute(sa.update(WebhookEndpoint).values(rest_until=None))
            session.execute(
                sa.update(WebhookDelivery)
                .where(WebhookDelivery.state == DeliveryState.PENDING)
                .values(next_at=sa.func.now(), leased_until=None)
            )

    def row(self, endpoint: str) -> WebhookEndpoint:
        with self.ledger.sessions.begin() as session:
            return session.get_one(WebhookEndpoint, endpoint)

    def deliveries(self, endpoint: str) -> list[WebhookDelivery]:
        query = sa.select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint)
        with self.ledger.sessions.begin() as session:
            return list(session.scalars(query.order_by(WebhookDelivery.id)))


@pytest.fixture
def outbox(ledger: Ledger) -> Iterator[Outbox]:
    yield Outbox(ledger)
    with ledger.sessions.begin() as session:
        tables = (WebhookDelivery, WebhookEvent, WebhookEndpoint, WebhookGroupCheck)
        for table in tables:
            session.execute(sa.delete(table))


def end(ledger: Ledger, job_id: str, *, code: str = "model_unreadable") -> None:
    with ledger.sessions.begin() as session:
        assert transitions.fail(session, job_id, code=code, message="a text")


def ended(ledger: Ledger) -> str:
    """A job that has failed."""
    job_id = ledger.accept()
    end(ledger, job_id)
    return job_id


def failed_twice(ledger: Ledger) -> str:
    job_id = ended(ledger)
    with ledger.sessions.begin() as session:
        controls.retry(session, job_id, project_id=PROJECT)
    end(ledger, job_id)
    return job_id


def test_every_endpoint_gets_what_it_wants_of_its_own_project(outbox: Outbox) -> None:
    ledger = outbox.ledger
    everything, some, none = (
        outbox.endpoint(),
        outbox.endpoint("job.failed", "job.dependency_failed"),
        outbox.endpoint("model.promoted"),
    )
    theirs = outbox.endpoint(project=OTHER)
    done = ledger.running(10)
    ledger.commit_all(done)
    with ledger.sessions.begin() as session:
        transitions.move(session, done, JobState.FINALIZING)
    ledger.finish(done)
    bad, behind = ended(ledger), ledger.accept()
    end(ledger, behind, code="dependency_failed")
    failures = [("job.failed", bad), ("job.dependency_failed", behind)]
    assert outbox.events(everything) == [("job.succeeded", done), *failures]
    assert outbox.events(some) == failures
    assert outbox.events(none) == outbox.events(theirs) == []


def test_an_event_is_there_if_and_only_if_what_made_it_was_committed(outbox: Outbox) -> None:
    endpoint = outbox.endpoint()
    job_id = outbox.ledger.accept()
    with outbox.ledger.sessions() as session:
        transitions.fail(session, job_id, code="model_unreadable", message="no model")
        session.rollback()
    assert outbox.events(endpoint) == []
    end(outbox.ledger, job_id)
    assert outbox.events(endpoint) == [("job.failed", job_id)]


def test_a_project_without_endpoints_costs_one_look_for_each_job(ledger: Ledger) -> None:
    job_id = ledger.accept()
    asked: list[str] = []

    def ask(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    sa.event.listen(ledger.engine, "before_cursor_execute", ask)
    end(ledger, job_id)
    sa.event.remove(ledger.engine, "before_cursor_execute", ask)
    assert len([statement for statement in asked if "webhook" in statement]) == 1


def test_fires_that_went_wrong_are_events_of_their_schedule(outbox: Outbox) -> None:
    endpoint = outbox.endpoint(
        "schedule.fire_failed", "schedule.fire_skipped", "schedule.fire_missed"
    )
    clockwork = Clockwork(outbox.ledger)
    schedule = clockwork.create(catch_up={"mode": "latest"})
    clockwork.move_to(clockwork.now + HOUR)
    clockwork.move_to(clockwork.now + HOUR)  # the first one still runs
    (job,) = clockwork.jobs(schedule)
    clockwork.end(job, failed=True)
    clockwork.move_to(clockwork.now + 5 * HOUR)
    found = [event_type for event_type, about in outbox.events(endpoint) if about == schedule]
    assert found == ["schedule.fire_skipped", "schedule.fire_failed", "schedule.fire_missed"]
    clockwork.delete(schedule)


def test_missed_fires_of_which_a_backfill_does_the_first_are_told_once(outbox: Outbox) -> None:
    endpoint = outbox.endpoint("schedule.fire_missed")
    clockwork = Clockwork(outbox.ledger)
    schedule = clockwork.create(overlap="allow")
    clockwork.move_to(clockwork.now + 6 * HOUR)
    clockwork.backfill(schedule, clockwork.now - 6 * HOUR, clockwork.now - 4 * HOUR)
    found = [event_type for event_type, about in outbox.events(endpoint) if about == schedule]
    assert found == ["schedule.fire_missed"]
    clockwork.delete(schedule)


def test_a_fire_that_cannot_be_submitted_and_one_that_gives_way_are_events(
    outbox: Outbox,
) -> None:
    endpoint = outbox.endpoint()
    clockwork = Clockwork(outbox.ledger)
    waiting = clockwork.create(overlap="buffer_one")
    for _ in range(3):
        clockwork.move_to(clockwork.now + HOUR)
    assert ("schedule.fire_skipped", waiting) in outbox.events(endpoint)
    with outbox.ledger.sessions.begin() as session:
        skipped = session.scalar(
            sa.select(Fire.due).where(Fire.schedule_id == waiting, Fire.state == FireState.SKIPPED)
        )
        (data,) = session.scalars(
            sa.select(WebhookEvent.data).where(WebhookEvent.type == "schedule.fire_skipped")
        )
    assert skipped is not None
    assert data["fire_time"] == skipped.isoformat().replace("+00:00", "Z")
    clockwork.delete(waiting)
    bad = clockwork.create()
    with outbox.ledger.sessions.begin() as session:
        stored = session.get_one(ScheduleVersion, (bad, 1))
        broken = {**SPEC, "corpus": {"file": "file-gone"}}
        stored.definition = {**stored.definition, "jobs": [{"spec": broken}]}
    clockwork.move_to(clockwork.now + HOUR)
    assert outbox.events(endpoint)[-1] == ("schedule.fire_failed", bad)
    clockwork.delete(bad)


def test_a_fire_whose_job_had_no_rows_is_skipped_and_not_failed(outbox: Outbox) -> None:
    endpoint = outbox.endpoint()
    clockwork = Clockwork(outbox.ledger)
    schedule = clockwork.create()
    clockwork.move_to(clockwork.now + HOUR)
    (job,) = clockwork.jobs(schedule)
    lease = outbox.ledger.claim_step(job.id)
    assert lease is not None
    with outbox.ledger.sessions.begin() as session:
        plans.end_empty(session, lease, reason="nothing is new")
    clockwork.turn()
    assert outbox.events(endpoint) == [
        ("job.cancelled", job.id),
        ("schedule.fire_skipped", schedule),
    ]
    clockwork.delete(schedule)


@pytest.mark.parametrize("promoted", [True, False])
def test_a_promotion_is_an_event_once(outbox: Outbox, *, promoted: bool) -> None:
    endpoint = outbox.endpoint()
    job_id = outbox.ledger.accept()
    name = f"news-{promoted}"
    for _ in range(2):
        with outbox.ledger.sessions.begin() as session:
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
                job_id=job_id,
            )
            record_promotion(
                session,
                PromotionRecord(
                    alias="champion",
                    version=version,
                    value=0.9,
                    incumbent=None,
                    incumbent_value=None,
                    metric="accuracy",
                    margin=0.0,
                    promoted=promoted,
                    reason="because",
                ),
                project_id=PROJECT,
                name=name,
                job_id=job_id,
            )
    event_type = "model.promoted" if promoted else "model.rejected"
    assert outbox.events(endpoint) == [(event_type, f"models/{name}")]


def test_a_group_has_ended_when_its_last_job_has_and_again_after_a_retry(outbox: Outbox) -> None:
    ledger = outbox.ledger
    endpoint = outbox.endpoint("group.failed", "group.succeeded")
    spec = GroupSpec.model_validate({"jobs": {"one": LABEL, "two": LABEL}})
    with ledger.sessions.begin() as session:
        group_id, _ = groups.accept(session, project_id=PROJECT, spec=spec, idempotency_key=None)
        one, two = groups._locked(session, group_id, project_id=PROJECT)
    end(ledger, one.id)
    settle(ledger)
    assert outbox.events(endpoint) == []
    end(ledger, two.id)
    with ledger.sessions.begin() as session:  # both are looked at in one go, as by two processes
        session.add_all([WebhookGroupCheck(group_id=group_id) for _ in range(2)])
    settle(ledger)
    assert outbox.events(endpoint) == [("group.failed", group_id)]
    with ledger.sessions.begin() as session:
        groups.retry(session, group_id, project_id=PROJECT)
    for job in (one, two):
        end(ledger, job.id)
    settle(ledger)
    assert outbox.events(endpoint) == [("group.failed", group_id)] * 2


def settle(ledger: Ledger) -> None:
    found = True
    while found:
        with ledger.sessions.begin() as session:
            found = webhook_groups.settle(session)


def test_members_that_end_at_once_end_their_group_once(outbox: Outbox) -> None:
    ledger = outbox.ledger
    endpoint = outbox.endpoint("group.failed")
    spec = GroupSpec.model_validate({"jobs": {f"j{number}": LABEL for number in range(6)}})
    with ledger.sessions.begin() as session:
        group_id, _ = groups.accept(session, project_id=PROJECT, spec=spec, idempotency_key=None)
        members = [job.id for job in groups._locked(session, group_id, project_id=PROJECT)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda job_id: end(ledger, job_id), members))
        list(pool.map(settle, [ledger] * 4))
    assert outbox.events(endpoint) == [("group.failed", group_id)]


def test_a_later_event_of_an_object_waits_for_the_earlier_one(outbox: Outbox) -> None:
    outbox.endpoint()
    twice, other = failed_twice(outbox.ledger), ended(outbox.ledger)
    first, second = outbox.claimed(), outbox.claimed()
    assert {first.data["id"], second.data["id"]} == {twice, other}
    assert outbox.claim() is None
    of_twice = next(each for each in (first, second) if each.data["id"] == twice)
    assert outbox.fail(of_twice)
    outbox.let_time_pass()
    again = outbox.claimed()
    assert again.event_id == of_twice.event_id
    assert outbox.succeed(again)
    assert outbox.claimed().data["id"] == twice


def test_a_claim_whose_lease_is_over_changes_nothing(outbox: Outbox) -> None:
    endpoint = outbox.endpoint()
    ended(outbox.ledger)
    stale = outbox.claim(timedelta(seconds=-1))
    assert stale is not None
    fresh = outbox.claimed()
    assert (fresh.id, fresh.fence) == (stale.id, stale.fence + 1)
    assert not outbox.succeed(stale)
    assert not outbox.fail(stale)
    assert outbox.succeed(fresh)
    assert not outbox.succeed(fresh)
    (delivery,) = outbox.deliveries(endpoint)
    assert (delivery.state, delivery.tries) == (DeliveryState.DELIVERED, 2)


def test_an_endpoint_gets_four_at_a_time_and_one_that_fails_one_after_a_rest(
    outbox: Outbox,
) -> None:
    endpoint = outbox.endpoint()
    for _ in range(6):
        ended(outbox.ledger)
    claims = [outbox.claimed() for _ in range(4)]
    assert outbox.claim() is None
    for claimed in claims:
        outbox.fail(claimed)
    row = outbox.row(endpoint)
    assert row.failures == 1  # they failed together
    assert row.rest_until is not None
    assert outbox.claim() is None
    outbox.let_time_pass()
    probe = outbox.claimed()
    assert outbox.claim() is None
    assert outbox.succeed(probe)
    assert outbox.row(endpoint).failures == 0
    assert [outbox.claim() is not None for _ in range(5)] == [True] * 4 + [False]


def test_an_endpoint_with_a_long_queue_delays_no_other(outbox: Outbox) -> None:
    busy = outbox.endpoint()
    for _ in range(20):
        ended(outbox.ledger)
    outbox.succeed(outbox.claimed())
    late = outbox.endpoint()
    ended(outbox.ledger)
    assert outbox.claimed().endpoint_id == late
    assert outbox.claimed().endpoint_id == busy


def test_processes_that_claim_at_once_get_different_deliveries(outbox: Outbox) -> None:
    for _ in range(3):
        outbox.endpoint()
    for _ in range(4):
        ended(outbox.ledger)
    with ThreadPoolExecutor(6) as pool:
        found = [each for each in pool.map(lambda _: outbox.claim(), range(60)) if each]
    assert len(found) == len({each.id for each in found}) == 12


def test_an_endpoint_that_takes_nothing_for_three_days_is_disabled_with_the_reason(
    outbox: Outbox,
) -> None:
    endpoint, other = outbox.endpoint(), outbox.endpoint("webhook_endpoint.disabled")
    ended(outbox.ledger)
    claimed = outbox.claimed()
    with outbox.ledger.sessions.begin() as session:
        early = sa.func.now() - retries.LONGEST
        session.execute(sa.update(WebhookDelivery).values(first_tried_at=early))
    assert outbox.fail(claimed)
    row = outbox.row(endpoint)
    assert row.disabled_reason == (
        f"job.failed ({claimed.event_id}) was not taken for 3 days: it answered 500"
    )
    assert outbox.events(other) == [("webhook_endpoint.disabled", endpoint)]
    assert outbox.claimed().endpoint_id == other
    outbox.let_time_pass()
    ended(outbox.ledger)
    assert outbox.claimed().endpoint_id == other  # the disabled one gets nothing
    assert outbox.claim() is None
    outbox.enable(endpoint)
    assert outbox.claimed().event_id == claimed.event_id
    assert len(outbox.deliveries(endpoint)) == 2  # what happened meanwhile waits as well


def test_a_receiver_that_is_gone_is_disabled_at_once(outbox: Outbox) -> None:
    endpoint = outbox.endpoint()
    ended(outbox.ledger)
    outbox.fail(outbox.claimed(), Failure("it answered 410 Gone", 410, gone=True))
    assert outbox.row(endpoint).disabled_reason == "it answered 410 Gone"
    with outbox.ledger.sessions.begin() as session, pytest.raises(Conflict, match="410 Gone"):
        webhook_endpoints.send_test(
            session, endpoint, project_id=PROJECT, event_type=EventType.ENDPOINT_TEST
        )


def test_a_try_that_began_before_its_endpoint_was_enabled_does_not_disable_it(
    outbox: Outbox,
) -> None:
    endpoint = outbox.endpoint()
    for _ in range(2):
        ended(outbox.ledger)
    gone = Failure("it answered 410 Gone", 410, gone=True)
    first, second = outbox.claimed(), outbox.claimed()
    outbox.fail(first, gone)
    outbox.enable(endpoint)
    outbox.fail(second, gone)
    assert outbox.row(endpoint).disabled_at is None
    outbox.let_time_pass()
    outbox.fail(outbox.claimed(), gone)
    assert outbox.row(endpoint).disabled_at is not None


def test_what_has_waited_can_be_left_out_and_sent_by_itself(outbox: Outbox) -> None:
    endpoint = outbox.endpoint()
    job_id = failed_twice(outbox.ledger)
    outbox.fail(outbox.claimed())
    outbox.enable(endpoint, skip_waiting=True)
    assert outbox.claim() is None
    skipped = outbox.deliveries(endpoint)
    assert [each.state for each in skipped] == [DeliveryState.SKIPPED] * 2
    with outbox.ledger.sessions.begin() as session:
        made = webhook_deliveries.resend(session, endpoint, skipped[0].id, project_id=PROJECT)
    again = outbox.claimed()
    assert (again.id, again.event_id) == (made, skipped[0].event_id)
    assert again.data["id"] == job_id


def test_a_delivery_that_waits_is_tried_at_once_when_it_is_sent_again(outbox: Outbox) -> None:
    endpoint = outbox.endpoint()
    ended(outbox.ledger)
    outbox.fail(outbox.claimed())
    (waiting,) = outbox.deliveries(endpoint)
    with outbox.ledger.sessions.begin() as session:
        made = webhook_deliveries.resend(session, endpoint, waiting.id, project_id=PROJECT)
    assert made == waiting.id == outbox.claimed().id


def test_a_secret_signs_beside_the_next_one_until_its_overlap_is_over(outbox: Outbox) -> None:
    endpoint = outbox.endpoint()
    ended(outbox.ledger)
    old = outbox.row(endpoint).secret
    new = rotate(outbox, endpoint, timedelta(days=1))
    assert outbox.claimed().secrets == (new, old)
    newest = rotate(outbox, endpoint, timedelta())
    outbox.let_time_pass()
    assert outbox.claimed().secrets == (newest,)
    for _ in range(4):
        rotate(outbox, endpoint, timedelta(days=1))
    with pytest.raises(Conflict, match="5 valid secrets"):
        rotate(outbox, endpoint, timedelta(days=1))
    rotate(outbox, endpoint, timedelta())


def rotate(outbox: Outbox, endpoint: str, overlap: timedelta) -> str:
    with outbox.ledger.sessions.begin() as session:
        return webhook_endpoints.rotate(session, endpoint, project_id=PROJECT, overlap=overlap)


def test_a_deleted_endpoint_keeps_no_secret_and_its_deliveries_go(outbox: Outbox) -> None:
    endpoint = outbox.endpoint()
    ended(outbox.ledger)
    with outbox.ledger.sessions.begin() as session:
        webhook_endpoints.delete(session, endpoint, project_id=PROJECT)
    ended(outbox.ledger)
    assert outbox.claim() is None
    assert outbox.row(endpoint).secret is None
    with outbox.ledger.sessions.begin() as session:
        assert webhook_deliveries.forget(session) == 1
    assert outbox.deliveries(endpoint) == []


def test_events_are_forgotten_after_thirty_days(outbox: Outbox) -> None:
    endpoint = outbox.endpoint()
    ended(outbox.ledger)
    with outbox.ledger.sessions.begin() as session:
        session.execute(sa.update(WebhookEvent).values(at=sa.func.now() - timedelta(days=31)))
    kept = ended(outbox.ledger)
    with outbox.ledger.sessions.begin() as session:
        assert webhook_deliveries.forget(session) == 1
    assert outbox.events(endpoint) == [("job.failed", kept)]


def test_an_address_that_is_not_public_is_refused_before_it_is_tried(outbox: Outbox) -> None:
    for url in ("http://127.0.0.1/", "http://[::1]/", "http://2130706433/", "http://10.0.0.1"):
        request = EndpointRequest(url=url)
        with outbox.ledger.sessions.begin() as session, pytest.raises(BadRequest, match="public"):
            webhook_endpoints.create(
                session, request, project_id=PROJECT, idempotency_key=None, settings=SETTINGS
            )


def test_another_project_does_not_find_an_endpoint(outbox: Outbox) -> None:
    endpoint = outbox.endpoint()
    with outbox.ledger.sessions.begin() as session, pytest.raises(NotFound):
        webhook_endpoints.delete(session, endpoint, project_id=OTHER)
