"""The Python client: upload, submit, watch, fetch. Memory stays bounded whatever the size.

    with Client("http://127.0.0.1:8750", key) as client:
        file = client.upload(Path("corpus.csv"))
        job = client.submit({"kind": "classify", "model": "hf:org/name",
                             "corpus": {"file": file["id"]}})
        job = client.wait(job["id"])

Answers are the API's JSON objects as dictionaries (docs/api.md). An API that restarts is waited
for; whatever is sent twice for that reason is harmless, because every submit carries a key.
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from api.client.groups import Groups
from api.client.models import Models
from api.client.projects import Keys, Projects
from api.client.retention import Retention
from api.client.schedules import Schedules
from api.client.transport import PAGE, Answer, ApiError, JobEvent, Progress, Transport
from api.client.webhooks import Webhooks

__all__ = ["FINAL", "Answer", "ApiError", "Client", "JobEvent", "Progress"]

FINAL = frozenset({"succeeded", "failed", "cancelled", "expired"})


class Client(Transport):
    """What a project may ask of the API, a method for each."""

    @functools.cached_property
    def models(self) -> Models:
        """The registry of models."""
        return Models(ask=self._ask, download=self._download)

    @functools.cached_property
    def schedules(self) -> Schedules:
        """What is submitted by the clock."""
        return Schedules(ask=self._ask, pages=self._pages, rows=self._rows, delete=self._delete)

    @functools.cached_property
    def webhooks(self) -> Webhooks:
        """Who is told what happens."""
        return Webhooks(ask=self._ask, pages=self._pages, rows=self._rows, delete=self._delete)

    @functools.cached_property
    def groups(self) -> Groups:
        """Jobs that were submitted together."""
        return Groups(ask=self._ask, pages=self._pages)

    @functools.cached_property
    def projects(self) -> Projects:
        """Who shares the installation."""
        return Projects(ask=self._ask, pages=self._pages)

    @functools.cached_property
    def keys(self) -> Keys:
        """What opens the API for a project."""
        return Keys(ask=self._ask, pages=self._pages)

    @functools.cached_property
    def retention(self) -> Retention:
        """How long things are kept, and what they take up."""
        return Retention(ask=self._ask)

    def ping(self) -> None:
        """Return if the API and its database answer."""
        self._ask("GET", "/readyz")

    def upload(
        self, path: Path, *, progress: Progress | None = None, tag: str | None = None
    ) -> Answer:
        """Store a local file, read from disk as it is sent."""
        return self._upload(path, progress=progress, tag=tag)

    def files(self, *, tag: str | None = None) -> Iterator[Answer]:
        """Every file, or every one with this tag, newest first."""
        return self._pages("/v1/files", {} if tag is None else {"tag": tag})

    def download_file(self, file_id: str, path: Path, *, progress: Progress | None = None) -> None:
        """Fetch an uploaded file's bytes."""
        self._download(f"/v1/files/{file_id}/content", path, progress=progress)

    def delete_file(self, file_id: str) -> Answer:
        """Delete an uploaded file that no job under way and no schedule needs."""
        return self._delete(f"/v1/files/{file_id}")

    def submit(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Answer:
        """Submit a job; the same key with the same spec is one job."""
        key = idempotency_key or uuid.uuid4().hex
        return self._ask("POST", "/v1/jobs", json=dict(spec), headers={"Idempotency-Key": key})

    def get(self, job_id: str) -> Answer:
        """The job as it is now."""
        return self._ask("GET", f"/v1/jobs/{job_id}")

    def why(self, job_id: str) -> Answer:
        """Why the job does not move, or how it ended; where its time went; what to do next."""
        return self._ask("GET", f"/v1/jobs/{job_id}/why")

    def jobs(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        since: datetime | None = None,
        group: str | None = None,
    ) -> Iterator[Answer]:
        """Jobs, newest first: every one, or those that all filters leave.

        ``name`` is a part of the name; ``since``: those that were accepted then or later.
        """
        return self._pages("/v1/jobs", _filters(state, kind, name, since, group))

    def count_jobs(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        since: datetime | None = None,
        group: str | None = None,
    ) -> int | None:
        """How many jobs the same filters leave; ``None``: more than 10,000."""
        query = {**_filters(state, kind, name, since, group), "limit": 1}
        total: int | None = self._ask("GET", "/v1/jobs", params=query)["total"]
        return total

    def cancel(self, job_id: str, *, with_dependents: bool = False) -> Answer:
        """Stop at the next chunk boundary; what is done is kept."""
        return self._act(job_id, "cancel", with_dependents=with_dependents)

    def pause(self, job_id: str) -> Answer:
        """Begin nothing new; chunks that are under way end."""
        return self._ask("POST", f"/v1/jobs/{job_id}/pause")

    def resume(self, job_id: str) -> Answer:
        """Let a paused job go on."""
        return self._ask("POST", f"/v1/jobs/{job_id}/resume")

    def retry(self, job_id: str, *, with_dependents: bool = False) -> Answer:
        """Do the failed rows again, and what was never done."""
        return self._act(job_id, "retry", with_dependents=with_dependents)

    def delete_job(self, job_id: str) -> Answer:
        """Delete an ended job with its results; versions that it registered stay."""
        return self._delete(f"/v1/jobs/{job_id}")

    def verification(self, job_id: str) -> Answer:
        """Inputs recounted against outputs; takes as long as reading them once."""
        return self._ask("GET", f"/v1/jobs/{job_id}/verification", timeout=3600)

    def chunks(self, job_id: str) -> Iterator[Answer]:
        """Every chunk, in row order."""
        return self._rows(f"/v1/jobs/{job_id}/chunks", more=lambda page: page["has_more"])

    def inputs(self, job_id: str) -> Iterator[Answer]:
        """Every object that a job reads, corpus by corpus, in the order of reading."""
        return self._rows(f"/v1/jobs/{job_id}/inputs", more=lambda page: page["has_more"])

    def runs(self, job_id: str) -> Iterator[Answer]:
        """Every run of a training job with its ranks, newest first."""
        return self._rows(f"/v1/jobs/{job_id}/runs", more=lambda page: page["has_more"])

    def checkpoints(self, job_id: str) -> list[Answer]:
        """Every checkpoint of a training job, newest first."""
        return list(self._ask("GET", f"/v1/jobs/{job_id}/checkpoints")["data"])

    def points(self, job_id: str, name: str, *, after: int | None = None) -> Iterator[Answer]:
        """One curve of a training job in the order of its steps, behind the step ``after``."""
        query = {"name": name} if after is None else {"name": name, "after": after}
        return self._rows(
            f"/v1/jobs/{job_id}/points", more=lambda page: page["has_more"], query=query
        )

    def last_points(self, job_id: str) -> list[Answer]:
        """The newest point of every curve of a training job."""
        return list(self._ask("GET", f"/v1/jobs/{job_id}/points")["data"])

    def logs(
        self,
        job_id: str,
        *,
        rank: int | None = None,
        run: int | None = None,
        follow: bool = False,
    ) -> Iterator[Answer]:
        """Log lines of a training job: those there are, or with ``follow`` until it has ended."""
        query: dict[str, Any] = {"limit": PAGE}
        query |= {} if rank is None else {"rank": rank}
        query |= {} if run is None else {"run": run}
        while True:
            page = self._ask("GET", f"/v1/jobs/{job_id}/logs", params=query)
            yield from page["data"]
            if page["complete"] or not (page["has_more"] or follow):
                return
            if page["next"] is not None:
                query["after"] = page["next"]
            if not page["has_more"]:
                time.sleep(1)

    def report(self, job_id: str) -> Answer:
        """The evaluation that a training job ended with, by split."""
        return self._ask("GET", f"/v1/jobs/{job_id}/report")

    def hosts(self) -> list[Answer]:
        """Every training host on record."""
        return list(self._ask("GET", "/v1/hosts")["data"])

    def workers(self) -> list[Answer]:
        """Every worker on record."""
        return list(self._ask("GET", "/v1/workers")["data"])

    def pools(self, *, drain_seconds: int | None = None) -> list[Answer]:
        """Every pool, with what its work wants; ``drain_seconds`` as in ``pool_demand``."""
        return list(self._ask("GET", "/v1/pools", params=_drain(drain_seconds))["data"])

    def pool_demand(self, pool: str, *, drain_seconds: int | None = None) -> Answer:
        """How many slots and hosts the work of a pool wants.

        ``drain_seconds``: within which work without a deadline should end; ``None``: ten minutes.
        """
        path = f"/v1/pools/{quote(pool, safe='')}/demand"
        return self._ask("GET", path, params=_drain(drain_seconds))

    def refused_messages(self) -> list[Answer]:
        """Messages of the broker that workers refused or died of, the newest first."""
        return list(self._ask("GET", "/v1/workers/refused-messages")["data"])

    def audit(self, **filters: Any) -> Iterator[Answer]:
        """Who did what to the project, newest first.

        Filters: ``key`` and ``object`` (ids), ``since`` and ``until`` (times), ``project``.
        """
        query = {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in filters.items()
            if value is not None
        }
        return self._rows("/v1/audit", more=lambda page: bool(page["has_more"]), query=query)

    def results(self, job_id: str, *, follow: bool = False) -> Iterator[Answer]:
        """Result rows in the order of the corpus: those there are, or with ``follow`` all."""
        after: int | None = None
        while True:
            page = self._results(job_id, after=after)
            yield from page["data"]
            after = page["next"]
            if page["complete"] or not (page["data"] or follow):
                return
            if not page["data"]:
                time.sleep(1)

    def wait(self, job_id: str) -> Answer:
        """The job once it has ended."""
        for _ in self.watch(job_id):
            pass
        return self.get(job_id)

    def watch(self, job_id: str, *, after: str | None = None) -> Iterator[JobEvent]:
        """The job's events and its progress, until it has ended.

        A stream that breaks is taken up behind the last event seen; while it cannot be had, the
        job is asked for each second.
        """
        while True:
            try:
                for event in self._events(job_id, after=after):
                    after = event.id or after
                    yield event
                    if event.type == "progress" and event.data["state"] in FINAL:
                        return
            except httpx.TransportError:
                job = self.get(job_id)
                yield JobEvent(type="progress", data=job, id=None)
                if job["state"] in FINAL:
                    return
            time.sleep(1)

    def download(self, job_id: str, path: Path, *, progress: Progress | None = None) -> None:
        """Fetch the job's single output file; ``path`` appears when it is whole."""
        self._download(f"/v1/jobs/{job_id}/output", path, progress=progress)

    def _act(self, job_id: str, action: str, *, with_dependents: bool) -> Answer:
        query = {"with_dependents": "true"} if with_dependents else {}
        return self._ask("POST", f"/v1/jobs/{job_id}/{action}", params=query)

    def _results(self, job_id: str, *, after: int | None) -> Answer:
        query = {"limit": PAGE} if after is None else {"limit": PAGE, "after": after}
        return self._ask("GET", f"/v1/jobs/{job_id}/results", params=query)


def _drain(seconds: int | None) -> dict[str, Any]:
    return {} if seconds is None else {"drain_seconds": seconds}


def _filters(
    state: str | None,
    kind: str | None,
    name: str | None,
    since: datetime | None,
    group: str | None,
) -> dict[str, str]:
    """The query of a listing of jobs."""
    accepted = None if since is None else since.isoformat()
    given = {"state": state, "kind": kind, "name": name, "since": accepted, "group": group}
    return {field: value for field, value in given.items() if value is not None}
