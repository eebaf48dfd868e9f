"""Uploads: a multipart body that flows into the object store, never whole in memory or on disk.

The event loop gathers a block from the socket, then a thread parses, hashes and writes it: an
upload whose client sends nothing holds no thread. A client that hangs up, or a file over the limit,
raises inside the store's writer, so that nothing appears; the row follows the complete object.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import anyio.to_thread
import structlog
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect, Request

from api.server import multipart, traffic
from api.server.multipart import Upload
from api.server.upload_leases import UploadLeases
from jobs import ids, names
from jobs.database import MAY_PASS, Sessions
from jobs.errors import BadRequest, StorageFault, TooLarge
from jobs.ledger import creations, files, quotas
from jobs.ledger.creations import CountedRequest
from jobs.objects import ObjectStore
from jobs.queries import files as file_queries
from jobs.tables import File

log = structlog.get_logger(__name__)

T = TypeVar("T")

BLOCK = 2**20
"""Bytes that travel to a thread at once: hops between threads cost more than copying."""

THREADS = 8
"""Blocks of all uploads of one process that are parsed and written at a time."""

OVERHEAD = 2**16
"""Bytes of a multipart body besides the file."""

OPENAPI: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {
                            "type": "string",
                            "default": "batch",
                            "pattern": f"^{names.PURPOSE}$",
                        },
                        "tag": {"type": "string", "pattern": f"^{names.TAG}$"},
                    },
                }
            }
        },
    }
}


@dataclass(frozen=True)
class Origin:
    """Who uploads, and what the request says of tries before it."""

    project_id: str
    caller: str  # the sha256 of the key
    counted: CountedRequest | None = None
    idempotency_key: str | None = None


class Uploads:
    """What this process takes in. How many uploads are under way at a time is the gate's rule."""

    def __init__(
        self, *, store: ObjectStore, sessions: Sessions, leases: UploadLeases, max_bytes: int
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._leases = leases
        self._max_bytes = max_bytes
        self._threads = anyio.CapacityLimiter(THREADS)

    async def receive(self, request: Request, *, origin: Origin) -> File:
        """Store the file of a multipart request and record it.

        A repeated request has the file of the one before. Raises ``TooLarge``, ``QuotaExceeded``,
        ``KeyReused``, and ``BadRequest`` for a body that is not what it must be.
        """
        boundary = multipart.boundary(request.headers.get("content-type", ""))
        room = await self._in_thread(functools.partial(self._room, origin.project_id))
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > room + OVERHEAD:
            raise TooLarge(multipart.too_large(room), param="file")
        file_id = ids.file()
        key = f"files/{file_id}"
        begin = functools.partial(
            self._leases.begin, file_id, project_id=origin.project_id, object_key=key
        )
        await self._in_thread(begin)
        try:
            upload = await self._write(request, key=key, boundary=boundary, room=room)
        except StorageFault:
            self._leases.leave(file_id)  # there may be something left
            raise
        except BaseException:
            await self._in_thread(functools.partial(self._leases.abort, file_id))
            raise
        record = functools.partial(self._record, upload, file_id=file_id, origin=origin, key=key)
        return await self._in_thread(record)

    def _room(self, project_id: str) -> int:
        """Most bytes of a file of this project. Raises ``QuotaExceeded``."""
        with self._sessions.begin() as session:
            room = quotas.upload_room(session, project_id=project_id)
        return self._max_bytes if room is None else min(room, self._max_bytes)

    async def _write(self, request: Request, *, key: str, boundary: bytes, room: int) -> Upload:
        """Let the body flow into the object ``key``."""
        async with _Writer(self._store, key, run=self._in_thread) as writer:
            upload = Upload(writer.sink, boundary=boundary, max_bytes=room)
            try:
                async for block in _blocks(request.stream()):
                    await self._in_thread(functools.partial(upload.feed, block))
            except ClientDisconnect as error:
                raise BadRequest("the upload broke off", code="upload_incomplete") from error
            upload.check_complete()
        return upload

    def _record(self, upload: Upload, *, file_id: str, origin: Origin, key: str) -> File:
        """Record the file whose object is complete.

        The object goes only where the row is certainly not there: if the transaction fails before
        its commit. If the answer to the commit is lost, the row may be there; if it is not, the
        object goes when the lease of the upload has run out.
        """
        committing = False
        try:
            with self._sessions.begin() as session:
                self._leases.complete(session, file_id)
                file = _added(session, upload, file_id=file_id, origin=origin, key=key)
                committing = True
        except Exception:
            self._leases.leave(file_id)
            recorded = self._find(file_id) if committing else None
            if recorded is not None:
                return self._stored_once(recorded, key)
            if not committing:
                self._store.delete(key)
                with contextlib.suppress(*MAY_PASS):  # what is left of its lease runs out
                    self._leases.abort(file_id)
            raise
        return self._stored_once(file, key)

    def _find(self, file_id: str) -> File | None:
        """The file, where its row is there although the commit seemed to fail."""
        try:
            with self._sessions.begin() as session:
                return files.find(session, file_id)
        except MAY_PASS:
            return None

    def _stored_once(self, file: File, key: str) -> File:
        """Remove the object of an upload whose bytes the project had before."""
        if file.object_key != key:
            try:
                self._store.delete(key)
            except StorageFault as fault:  # no row names it: the garbage collector finds it
                log.warning("bytes are stored twice for now", file=file.id, error=fault.message)
        return file

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Do it in a thread, to its end even where the request is cancelled meanwhile."""
        running = asyncio.ensure_future(anyio.to_thread.run_sync(work, limiter=self._threads))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise


def _added(session: Session, upload: Upload, *, file_id: str, origin: Origin, key: str) -> File:
    """The new file, or the one that an earlier try of the same request has made.

    Raises ``NotFound`` where that one was deleted meanwhile.
    """

    def make() -> str:
        file = files.add(
            session,
            file_id=file_id,
            project_id=origin.project_id,
            filename=upload.filename,
            purpose=upload.purpose,
            size=upload.size,
            sha256=upload.sha256,
            object_key=key,
            tag=upload.tag,
        )
        return file.id

    digest = _digest(upload)
    if origin.idempotency_key is not None:
        request = creations.Request(origin.project_id, origin.caller, traffic.UPLOADS, digest)
        made, _ = creations.once_by_key(session, request, key=origin.idempotency_key, make=make)
    else:
        counted = origin.counted and creations.with_digest(origin.counted, digest)
        made, _ = creations.once(session, counted, lambda: (make(), True))
    return file_queries.get(session, made, project_id=origin.project_id)


def _digest(upload: Upload) -> str:
    """Of what a repeated upload sends again; the boundary is another one each time."""
    sent = json.dumps([upload.filename, upload.purpose, upload.tag, upload.size, upload.sha256])
    return hashlib.sha256(sent.encode()).hexdigest()


class _Writer:
    """An object that is written block by block, each in a thread; discarded by an exception."""

    def __init__(
        self, store: ObjectStore, key: str, *, run: Callable[[Callable[[], Any]], Awaitable[Any]]
    ) -> None:
        self._writer = store.writer(key)
        self._run = run
        self._stack = ExitStack()

    async def __aenter__(self) -> Self:
        self.sink = await self._run(lambda: self._stack.enter_context(self._writer))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._run(lambda: self._stack.__exit__(kind, error, traceback))


async def _blocks(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in blocks of about ``BLOCK``."""
    gathered = bytearray()
    async for piece in stream:
        gathered += piece
        if len(gathered) >= BLOCK:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)
