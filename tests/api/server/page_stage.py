"""A project in which every view of the pages has something to show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant
from tests.api.server.test_models import Trained

STEPS = 240


@dataclass(frozen=True)
class Stage:
    """What there is, by what a test needs it for."""

    running: str
    ended: str
    failed: str
    paused: str
    training: str
    needing: str
    schedule: str
    model: str

    @property
    def pages(self) -> tuple[str, ...]:
        jobs = (self.running, self.ended, self.failed, self.paused, self.training, self.needing)
        return (
            *("/", "/?state=failed", "/?text=no-such-name", "/pools", "/schedules", "/models"),
            *(f"/jobs/{job_id}" for job_id in jobs),
            *(f"/schedules/{self.schedule}", f"/models/{self.model}"),
            *("/selection/cancel", f"/jobs/{self.running}/cancel", "/jobs/none", "/?state=odd"),
        )


def furnish(tenant: Tenant, workers: FakeWorkers, trained: Trained) -> Stage:
    """Jobs in every state, a fine-tune under way, schedules, versions, workers."""
    running = _bulk(tenant, name="reviews of november", model="/models/sentiment-large")
    hands = workers.take(running)
    hands.plan([2_000] * 12)
    for place in range(7):
        hands.work(place, failed=40 if place == 3 else 0)
    ended = _bulk(tenant, name="support tickets", model="/models/topics")
    hands = workers.take(ended)
    hands.plan([500, 500])
    hands.work(0, failed=2)
    hands.work(1)
    hands.finish()
    failed = _bulk(tenant, name="vectors of the archive", kind="embed", model="/models/minilm")
    workers.take(failed).fail(
        code="column_missing",
        message="the corpus has no column 'text'; it has body, headline, url",
    )
    paused = _bulk(tenant, name="old news", model="/models/topics", pool="gpu")
    tenant.http.post(f"/v1/jobs/{paused}/pause")
    _bulk(tenant, name="invoices, first quarter", model="/models/sentiment-large", pool="gpu")
    training = _train(tenant, workers)
    needing = _bulk(tenant, name="label with the new model", depends_on=[training])
    engine = {"model": "/models/sentiment-large", "kind": "classify", "sharing": "padding-free"}
    workers.worker("cpu-4711-5f0c@node1", slot=0, engines=[engine])
    workers.worker("cpu-4712-81ab@node2", slot=0, engines=[])
    workers.refuse("d1")
    return Stage(
        running=running,
        ended=ended,
        failed=failed,
        paused=paused,
        training=training,
        needing=needing,
        schedule=_schedule(tenant),
        model=_models(tenant, trained),
    )


def _bulk(tenant: Tenant, **fields: Any) -> str:
    return tenant.submit(**fields)


def _train(tenant: Tenant, workers: FakeWorkers) -> str:
    job_id = tenant.train(name="nightly fine-tune")
    crew = workers.gang(job_id)
    crew.plan(rows=9_000)
    crew.form()
    crew.progress(60, total=600)
    crew.lose("the host node3 has not been heard for 30 s")
    crew.form(machines=2)
    crew.measure(
        [
            (step, {"loss": 0.25 + 1.4 * math.exp(-step / 70) + 0.03 * math.sin(step)})
            for step in range(1, STEPS)
        ]
    )
    crew.measure(
        [
            (
                step,
                {
                    "validation/accuracy": 0.9 - 0.4 * math.exp(-step / 60),
                    "validation/loss": 0.3 + math.exp(-step / 60),
                },
            )
            for step in range(20, STEPS, 20)
        ]
    )
    crew.progress(STEPS, total=600)
    crew.checkpoint(200, metric=0.88, best=True)
    return job_id


def _schedule(tenant: Tenant) -> str:
    corpus = {"uri": "file:///allowed/day.jsonl"}
    spec = {"kind": "classify", "model": "/models/tiny", "corpus": corpus}
    made = tenant.http.post(
        "/v1/schedules",
        json={
            "name": "every-night",
            "timing": {"cron": ["0 2 * * 1-5"], "time_zone": "Europe/Berlin"},
            "jobs": [{"spec": spec}],
        },
    )
    assert made.is_success, made.text
    schedule = str(made.json()["id"])
    for _ in range(2):
        tenant.http.post(f"/v1/schedules/{schedule}/trigger", json={"overlap": "allow"})
    return schedule


def _models(tenant: Tenant, trained: Trained) -> str:
    for _ in range(3):
        trained.register("topics")
    tenant.http.put("/v1/models/topics/aliases/champion", json={"version": 1})
    trained.decide("topics", 3, value=0.79, promoted=False)
    trained.decide("topics", 2, value=0.91, promoted=True)
    return "topics"
