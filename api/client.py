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

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx

Answer = dict[str, Any]
Progress = Callable[[int, int], None]
"""Called with the bytes so far and in all."""

FINAL = frozenset({"succeeded", "failed", "cancelled", "expired"})
PASSING = frozenset({429, 502, 503, 504})
"""Statuses of an API, or a proxy before it, that may answer a moment later."""

PAGE = 500
LONGEST_PAUSE = 5.0
UNREACHABLE = 0
"""The status of an error for which there was no answer at all."""


class ApiError(Exception):
    """What the API refused, or that it could not be reached (``status`` 0)."""

    def __init__(self, status: int, *, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job, or its ``progress``, which has no id."""

    type: str
    data: Answer
    id: str | None


class Client:
    """One project's access to one API. Raises ``ApiError`` from every call."""

    PATIENCE_SECONDS = 60.0

    def __init__(
        self, base_url: str, key: str, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        """``patience_seconds``: how long an API that does not answer is asked again."""
        self.base_url = base_url.rstrip("/")
        self.patience_seconds = patience_seconds
        self._http = httpx.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(60, connect=5),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def ping(self) -> None:
        """Return if the API and its database answer."""
        self._ask("GET", "/readyz")

    def upload(self, path: Path, *, progress: Progress | None = None) -> Answer:
        """Store a local file, read from disk as it is sent."""

        def send() -> httpx.Response:
            with path.open("rb") as file:
                body = _Reported(file, size=path.stat().st_size, progress=progress)
                return self._http.post(
                    "/v1/files",
                    files={"file": (path.name, body)},  # type: ignore[dict-item]
                    data={"purpose": "batch"},
                    timeout=httpx.Timeout(None, connect=5),
                )

        return _json(self._patiently(send))

    def files(self) -> Iterator[Answer]:
        """Every file, newest first."""
        return self._pages("/v1/files", {})

    def download_file(self, file_id: str, path: Path, *, progress: Progress | None = None) -> None:
        """Fetch an uploaded file's bytes."""
        self._download(f"/v1/files/{file_id}/content", path, progress=progress)

    def submit(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Answer:
        """Submit a job; the same key with the same spec is one job."""
        key = idempotency_key or uuid.uuid4().hex
        return self._ask("POST", "/v1/jobs", json=dict(spec), headers={"Idempotency-Key": key})

    def get(self, job_id: str) -> Answer:
        """The job as it is now."""
        return self._ask("GET", f"/v1/jobs/{job_id}")

    def jobs(self, *, state: str | None = None) -> Iterator[Answer]:
        """Every job, newest first."""
        return self._pages("/v1/jobs", {} if state is None else {"state": state})

    def cancel(self, job_id: str) -> Answer:
        """Stop at the next chunk boundary; what is done is kept."""
        return self._ask("POST", f"/v1/jobs/{job_id}/cancel")

    def pause(self, job_id: str) -> Answer:
        """Begin nothing new; chunks that are under way end."""
        return self._ask("POST", f"/v1/jobs/{job_id}/pause")

    def resume(self, job_id: str) -> Answer:
        """Let a paused job go on."""
        return self._ask("POST", f"/v1/jobs/{job_id}/resume")

    def retry(self, job_id: str) -> Answer:
        """Do the failed rows again, and what was never done."""
        return self._ask("POST", f"/v1/jobs/{job_id}/retry")

    def verification(self, job_id: str) -> Answer:
        """Inputs recounted against outputs; takes as long as reading them once."""
        return self._ask("GET", f"/v1/jobs/{job_id}/verification", timeout=3600)

    def chunks(self, job_id: str) -> Iterator[Answer]:
        """Every chunk, in row order."""
        return self._rows(f"/v1/jobs/{job_id}/chunks", more=lambda page: page["has_more"])

    def workers(self) -> list[Answer]:
        """Every worker on record."""
        return list(self._ask("GET", "/v1/workers")["data"])

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

    def _ask(self, method: str, path: str, **options: Any) -> Answer:
        return _json(self._patiently(lambda: self._http.request(method, path, **options)))

    def _patiently(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """The answer; asked again with growing pauses while there is none, or a passing one."""
        end, pause = time.monotonic() + self.patience_seconds, 0.2
        while True:
            late = time.monotonic() + pause > end
            try:
                answer = send()
                if late or answer.status_code not in PASSING:
                    return _checked(answer)
            except httpx.TransportError as error:
                if late:
                    raise self._unreachable(error) from error
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _pages(self, path: str, query: dict[str, str]) -> Iterator[Answer]:
        """Entries of a listing that is paged by the id of its last entry."""
        query = {**query, "limit": "100"}
        while True:
            page = self._ask("GET", path, params=query)
            yield from page["data"]
            if not page["has_more"]:
                return
            query["after"] = page["last_id"]

    def _rows(self, path: str, *, more: Callable[[Answer], bool]) -> Iterator[Answer]:
        """Entries of a listing that is paged by row."""
        query = {"limit": PAGE}
        while True:
            page = self._ask("GET", path, params=query)
            yield from page["data"]
            if not more(page):
                return
            query["after"] = page["next"]

    def _results(self, job_id: str, *, after: int | None) -> Answer:
        query = {"limit": PAGE} if after is None else {"limit": PAGE, "after": after}
        return self._ask("GET", f"/v1/jobs/{job_id}/results", params=query)

    def _events(self, job_id: str, *, after: str | None) -> Iterator[JobEvent]:
        headers = {} if after is None else {"Last-Event-ID": after}
        path = f"/v1/jobs/{job_id}/events"
        with self._stream(path, headers=headers, timeout=httpx.Timeout(30, connect=5)) as answer:
            if answer.status_code in PASSING:
                raise httpx.ReadError("no stream at the moment")
            if not answer.is_success:
                answer.read()
            yield from _parse(_checked(answer).iter_lines())

    def _stream(self, path: str, **options: Any) -> AbstractContextManager[httpx.Response]:
        return self._http.stream("GET", path, **options)

    def _download(self, path: str, target: Path, *, progress: Progress | None) -> None:
        part = target.with_name(f"{target.name}.part")

        def fetch() -> httpx.Response:
            with self._stream(path) as answer:
                if answer.is_success:
                    _save(answer, part, progress=progress)
                else:
                    answer.read()
                return answer

        try:
            self._patiently(fetch)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def _unreachable(self, error: httpx.TransportError) -> ApiError:
        reason = str(error) or type(error).__name__
        return ApiError(
            UNREACHABLE,
            code="unreachable",
            message=f"the API at {self.base_url} does not answer ({reason})",
        )


class _Reported:
    """A file that tells how much of it has been read; httpx reads it block by block."""

    def __init__(self, file: IO[bytes], *, size: int, progress: Progress | None) -> None:
        self._file = file
        self._size = size
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        if self._progress is not None:
            self._progress(self._file.tell(), self._size)
        return block

    def fileno(self) -> int:
        """For the length of the request."""
        return self._file.fileno()

    def seek(self, offset: int, whence: int = 0) -> int:
        """For a redirect, which sends it again."""
        return self._file.seek(offset, whence)


def _save(answer: httpx.Response, path: Path, *, progress: Progress | None) -> None:
    size = int(answer.headers.get("content-length", 0))
    with path.open("wb") as file:
        for block in answer.iter_bytes(chunk_size=2**20):
            file.write(block)
            if progress is not None:
                progress(file.tell(), size)


def _json(answer: httpx.Response) -> Answer:
    found: Answer = answer.json()
    return found


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    error = _error_of(answer)
    status = HTTPStatus(answer.status_code)
    raise ApiError(
        status,
        code=error.get("code") or status.name.lower(),
        message=error.get("message") or f"the API answered {status} {status.phrase}",
        param=error.get("param"),
    )


def _error_of(answer: httpx.Response) -> Answer:
    """The error object; empty where something else than this API answered."""
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}


def _parse(lines: Iterator[str]) -> Iterator[JobEvent]:
    """Server-sent events as the standard has them, of which we use event, data and id."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            data = json.loads(fields["data"])
            yield JobEvent(type=fields.get("event", "message"), data=data, id=fields.get("id"))
            fields = {}
        else:
            fields = {}
