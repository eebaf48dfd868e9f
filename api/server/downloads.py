"""Stored objects as answers: their size is compared before the first byte is sent.

The hash travels in ``Repr-Digest`` (RFC 9530), so that the client can compare the bytes, and as
the ``ETag``, by which a download that broke is resumed from the same object or begun again.
"""

from __future__ import annotations

import base64
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from api.server import byte_ranges
from jobs.errors import Damaged, ObjectMissing
from jobs.objects import ObjectStore, Stored

DIGEST = "repr-digest"
BYTES = "application/octet-stream"


def responses(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """What a route that sends objects of these types answers, besides errors."""
    content = {kind: {"schema": {"type": "string"}} for kind in media_types or (BYTES,)}
    return {
        200: {"description": "All bytes.", "content": content},
        206: {"description": "The bytes of the range that `Range` names.", "content": content},
    }


def stored(
    store: ObjectStore,
    key: str,
    *,
    request: Request,
    what: str,
    size: int | None,
    sha256: str | None,
    media_type: str = BYTES,
    disposition: str,
) -> Response:
    """The object's bytes, or the range that the request names; of ``HEAD`` none.

    Raises ``Damaged`` where the object is gone or has another size than ``size``, and
    ``RangeUnsatisfiable``.
    """
    found = _found(store, key, what=what, size=size)
    etag = _etag(found, sha256)
    headers = {"accept-ranges": "bytes", "content-disposition": disposition}
    if etag is not None:
        headers["etag"] = etag
    if sha256:
        headers[DIGEST] = f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"
    if request.method == "HEAD":
        headers["content-length"] = str(found.bytes)
        return Response(headers=headers, media_type=media_type)
    part = byte_ranges.requested(request.headers, size=found.bytes, etag=etag)
    if part is None:
        headers["content-length"] = str(found.bytes)
        return StreamingResponse(store.stream(key), media_type=media_type, headers=headers)
    headers["content-length"] = str(part.end - part.start)
    headers["content-range"] = f"bytes {part.start}-{part.end - 1}/{found.bytes}"
    return StreamingResponse(
        store.stream(key, start=part.start, end=part.end),
        status_code=HTTPStatus.PARTIAL_CONTENT,
        media_type=media_type,
        headers=headers,
    )


def _found(store: ObjectStore, key: str, *, what: str, size: int | None) -> Stored:
    try:
        found = store.look(key)
    except ObjectMissing as error:
        raise Damaged(f"{what} is gone from the object store") from error
    if size not in (None, found.bytes):
        raise Damaged(f"{what} is damaged: it must have {size} bytes, and has {found.bytes}")
    return found


def _etag(found: Stored, sha256: str | None) -> str | None:
    """Strong: objects never change in place, and one with another hash is another object."""
    if sha256:
        return f'"{sha256}"'
    return None if found.etag is None else f'"{found.etag.strip(chr(34))}"'
