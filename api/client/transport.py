"""HTTP access to the API: retries, paging, event streams, files. ``api.client`` builds on it.

While the API restarts, or a proxy in front of it answers 502 to 504, requests are retried with
backoff.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx
import tenacity
from httpx_sse import EventSource, ServerSentEvent
from tenacity import RetryCallState

from jobs import backoff
from jobs.errors import NightshiftError

Answer = dict[str, Any]
Progress = Callable[[int, int], None]
"""Called with the bytes so far and in all."""

PASSING = frozenset({429, 502, 503, 504})
"""Statuses of an API, or a proxy before it, that may answer a moment later."""

_PASSES = tenacity.retry_any(
    tenacity.retry_if_exception_type(httpx.TransportError),
    tenacity.retry_if_result(lambda answer: answer.status_code in PASSING),
)

_SHA256 = re.compile(r"sha-256=:([^:]+):")

PAGE = 500
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
UNREACHABLE = 0
"""The status of an error for which there was no answer at all."""

_AWAY = PASSING | {UNREACHABLE}


class ApiError(NightshiftError):
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


class Transport:
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

    def _upload(self, path: Path, *, progress: Progress | None, tag: str | None = None) -> Answer:
        """Send a local file, read from disk as it is sent."""
        key = uuid.uuid4().hex
        fields = {"purpose": "batch"} if tag is None else {"purpose": "batch", "tag": tag}

        def send() -> httpx.Response:
            with path.open("rb") as file:
                body = _Reported(file, size=path.stat().st_size, progress=progress)
                return self._http.post(
                    "/v1/files",
                    files={"file": (path.name, body)},  # type: ignore[dict-item]
                    data=fields,
                    headers={"Idempotency-Key": key},
                    timeout=httpx.Timeout(None, connect=5),
                )

        return _json(self._patiently(send))

    def _ask(self, method: str, path: str, **options: Any) -> Answer:
        return _json(self._patiently(lambda: self._http.request(method, path, **options)))

    def _delete(self, path: str) -> Answer:
        """Delete what is at the path; gone at a second try means that the first one did it."""
        tries = 0

        def send() -> httpx.Response:
            nonlocal tries
            tries += 1
            return self._http.delete(path)

        try:
            return _json(self._patiently(send))
        except ApiError as error:
            if tries == 1 or error.status != HTTPStatus.NOT_FOUND:
                raise
        return {"id": path.rpartition("/")[2], "deleted": True}

    def _patiently(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """The response; retried with backoff while there is none, or one of ``PASSING``."""
        try:
            answer = backoff.retry(
                send,
                again=_PASSES,
                first=FIRST_PAUSE,
                longest=LONGEST_PAUSE,
                seconds=self.patience_seconds,
                give_up=_last_answer,
            )
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        return _checked(answer)

    def _pages(self, path: str, query: dict[str, str]) -> Iterator[Answer]:
        """Entries of a listing that is paged by the id of its last entry."""
        query = {**query, "limit": "100"}
        while True:
            page = self._ask("GET", path, params=query)
            yield from page["data"]
            if not page["has_more"]:
                return
            query["after"] = page["last_id"]

    def _rows(
        self,
        path: str,
        *,
        more: Callable[[Answer], bool],
        query: Mapping[str, Any] | None = None,
    ) -> Iterator[Answer]:
        """Entries of a listing that is paged by a number: a row, a step, a run."""
        query = {"limit": PAGE, **(query or {})}
        while True:
            page = self._ask("GET", path, params=query)
            yield from page["data"]
            if not more(page):
                return
            query["after"] = page["next"]

    def _events(self, job_id: str, *, after: str | None) -> Iterator[JobEvent]:
        headers = {} if after is None else {"Last-Event-ID": after}
        path = f"/v1/jobs/{job_id}/events"
        with self._stream(path, headers=headers, timeout=httpx.Timeout(30, connect=5)) as answer:
            if answer.status_code in PASSING:
                raise httpx.ReadError("no stream at the moment")
            if not answer.is_success:
                answer.read()
            for event in EventSource(_checked(answer)).iter_sse():
                if event.data:  # else it is the server's word on reconnecting
                    yield _event(event)

    def _stream(self, path: str, **options: Any) -> AbstractContextManager[httpx.Response]:
        return self._http.stream("GET", path, **options)

    def _download(self, path: str, target: Path, *, progress: Progress | None) -> None:
        """Fetch into a file beside the target, which replaces it when it is whole.

        A download that breaks is resumed behind the last byte that came, as long as the server has
        the same object; patience counts from the last byte, not from the beginning.
        """
        download = _Download(target, progress=progress)

        def fetch() -> httpx.Response:
            with self._stream(path, headers=download.headers()) as answer:
                if answer.is_success:
                    download.take(answer)
                elif answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    download.forget()
                    raise httpx.ReadError("the file is shorter than what had arrived")
                else:
                    answer.read()
                return answer

        try:
            while True:
                before = download.done
                try:
                    self._patiently(fetch)
                    break
                except ApiError as error:
                    if error.status not in _AWAY or download.done == before:
                        raise
            download.finish()
        finally:
            download.discard()

    def _unreachable(self, error: httpx.TransportError) -> ApiError:
        reason = str(error) or type(error).__name__
        return ApiError(
            UNREACHABLE,
            code="unreachable",
            message=f"the API at {self.base_url} does not answer ({reason})",
        )


class _Reported:
    """A file that reports how much of it has been read; httpx reads it block by block."""

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


class _Download:
    """The bytes of a file that have arrived, in a file of its own beside the target."""

    def __init__(self, target: Path, *, progress: Progress | None) -> None:
        self.done = 0
        self._target = target
        self._part = target.with_name(f"{target.name}.part")
        self._progress = progress
        self._etag: str | None = None
        self._sha256: str | None = None

    def headers(self) -> dict[str, str]:
        """What asks for the rest, or for the whole where nothing came or it cannot be resumed."""
        if not self.done or self._etag is None:
            return {}
        return {"Range": f"bytes={self.done}-", "If-Range": self._etag}

    def take(self, answer: httpx.Response) -> None:
        """Save the bytes of the answer: the rest, or the whole from the beginning again."""
        resumed = answer.status_code == HTTPStatus.PARTIAL_CONTENT
        if not resumed:
            self.forget()
        self._etag = answer.headers.get("etag")
        wanted = _SHA256.search(answer.headers.get("repr-digest", ""))
        self._sha256 = wanted[1] if wanted else None
        size = self.done + int(answer.headers.get("content-length", 0))
        with self._part.open("ab" if resumed else "wb") as file:
            for block in answer.iter_bytes(chunk_size=2**20):
                file.write(block)
                self.done += len(block)
                if self._progress is not None:
                    self._progress(self.done, size)

    def forget(self) -> None:
        """Begin again."""
        self.done = 0
        self._etag = None

    def finish(self) -> None:
        """Let the target appear. Raises ``ApiError`` where its bytes have another hash."""
        if self._sha256 is not None and self._sha256 != _sha256(self._part):
            raise ApiError(
                HTTPStatus.OK,
                code="damaged",
                message="the file arrived with other bytes than were stored; `nightshift jobs "
                "verify` says whether it is damaged on the server",
            )
        self._part.replace(self._target)

    def discard(self) -> None:
        """Leave nothing beside the target."""
        self._part.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    """In base64."""
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "sha256").digest()).decode()


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


def _event(event: ServerSentEvent) -> JobEvent:
    """An event without an id has the last one's by the standard; ``progress`` is none to resume."""
    known = None if event.event == "progress" else event.id or None
    return JobEvent(type=event.event, data=event.json(), id=known)


def _last_answer(state: RetryCallState) -> httpx.Response:
    """The last response; an exception is raised again."""
    assert state.outcome is not None
    answer: httpx.Response = state.outcome.result()
    return answer
