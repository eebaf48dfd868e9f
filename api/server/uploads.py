"""Uploads: a multipart body that flows into the object store, never whole in memory or on disk.

The event loop reads the socket; one thread per upload parses, hashes and writes, and asks the loop
for the next block. A client that hangs up, or a file over the limit, raises inside the store's
writer, so that nothing appears; the row follows the complete object.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request

from api.server import multipart
from api.server.multipart import Upload
from jobs import ids
from jobs.database import Sessions
from jobs.errors import BadRequest, TooLarge
from jobs.ledger import files
from jobs.objects import ObjectStore
from jobs.tables import File

BLOCK = 2**20
"""Bytes that travel to the thread at once: hops between threads cost more than copying."""

AT_ONCE = 16
"""Uploads under way in one process, each with a thread and a few parts; more wait unread."""

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
                            "pattern": "^[a-z0-9_-]{1,64}$",
                        },
                    },
                }
            }
        },
    }
}


class Uploads:
    """What this process takes in at a time."""

    def __init__(self, *, store: ObjectStore, sessions: Sessions, max_bytes: int) -> None:
        self._store = store
        self._sessions = sessions
        self._max_bytes = max_bytes
        self._threads = anyio.CapacityLimiter(AT_ONCE)

    async def receive(self, request: Request, *, project_id: str) -> File:
        """Store the file of a multipart request and record it.

        Raises ``TooLarge``, and ``BadRequest`` for a body that is not what it must be.
        """
        boundary = multipart.boundary(request.headers.get("content-type", ""))
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes + OVERHEAD:
            raise self._too_large()
        ahead = _Ahead(request.stream())
        keep = functools.partial(self._keep, boundary=boundary, project_id=project_id)
        try:
            return await anyio.to_thread.run_sync(
                keep, _blocks(ahead), limiter=self._threads, abandon_on_cancel=True
            )
        except ClientDisconnect as error:
            raise BadRequest("the upload broke off", code="upload_incomplete") from error

    def _keep(self, blocks: Iterator[bytes], *, boundary: bytes, project_id: str) -> File:
        file_id = ids.file()
        key = f"files/{file_id}"
        with self._store.writer(key) as sink:
            upload = Upload(sink, boundary=boundary, max_bytes=self._max_bytes)
            for block in blocks:
                upload.feed(block)
            upload.check_complete()
        try:
            return self._record(upload, file_id=file_id, project_id=project_id, key=key)
        except Exception:
            self._store.delete(key)
            raise

    def _record(self, upload: Upload, *, file_id: str, project_id: str, key: str) -> File:
        with self._sessions.begin() as session:
            return files.add(
                session,
                file_id=file_id,
                project_id=project_id,
                filename=upload.filename,
                purpose=upload.purpose,
                size=upload.size,
                sha256=upload.sha256,
                object_key=key,
            )

    def _too_large(self) -> TooLarge:
        return TooLarge(multipart.too_large(self._max_bytes), param="file")


class _Ahead:
    """The request's body in blocks of about ``BLOCK`` bytes."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream

    async def read(self) -> bytes:
        """The next block; empty at the end."""
        gathered = bytearray()
        async for block in self._stream:
            gathered += block
            if len(gathered) >= BLOCK:
                break
        return bytes(gathered)


def _blocks(ahead: _Ahead) -> Iterator[bytes]:
    """The same blocks in a worker thread, each asked of the event loop."""
    while block := anyio.from_thread.run(ahead.read):
        yield block
