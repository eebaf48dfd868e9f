"""A recount runs beside the API, with a low priority, and its end costs the API nothing (P12)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psutil

from tests.api.server.installation import Installation, Tenant
from tests.support.waiting import wait_until

CORPUS = b'{"text": "one"}\n' * 300_000


def recounts(installation: Installation) -> list[psutil.Process]:
    assert installation.process is not None
    return psutil.Process(installation.process.pid).children()


def test_a_recount_that_is_killed_is_answered_and_the_next_one_succeeds(tenant: Tenant) -> None:
    job_id = tenant.submit(corpus={"file": tenant.upload(CORPUS)})
    path = f"/v1/jobs/{job_id}/verification"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(tenant.http.get, path)
        wait_until(lambda: recounts(tenant.installation), seconds=20, every=0.01)
        (child,) = recounts(tenant.installation)
        own = psutil.Process(child.ppid()).nice()
        wait_until(lambda: child.nice() > own, seconds=20, every=0.01)
        assert tenant.http.get("/v1/jobs").status_code == 200
        child.kill()
        answer = asked.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "verification_ended")
    assert tenant.http.get(path).json()["rows_input"] == 300_000
    assert recounts(tenant.installation) == []


def test_a_recount_has_no_secret_among_its_arguments_and_variables(tenant: Tenant) -> None:
    job_id = tenant.submit(corpus={"file": tenant.upload(CORPUS)})
    url = tenant.installation.database_url
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(tenant.http.get, f"/v1/jobs/{job_id}/verification")
        wait_until(lambda: recounts(tenant.installation), seconds=20, every=0.01)
        (child,) = recounts(tenant.installation)
        shown = " ".join([*child.cmdline(), *child.environ().values()])
        asked.result()
    assert url not in shown


def test_what_a_recount_raises_is_answered_as_elsewhere(tenant: Tenant) -> None:
    job_id = tenant.submit(corpus={"file": tenant.upload(b"no Parquet", "corpus.parquet")})
    answer = tenant.http.get(f"/v1/jobs/{job_id}/verification")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "corpus_unreadable")
    assert "corpus.parquet" in answer.json()["error"]["message"]
