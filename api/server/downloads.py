"""Stored objects as answers: their size is compared before the first byte is sent.

The hash travels in ``Repr-Digest`` (RFC 9530), so that who fetches the bytes can compare them too.
"""

from __future__ import annotations

import base64

from fastapi.responses import StreamingResponse

from jobs.errors import Damaged, ObjectMissing
from jobs.objects import ObjectStore

DIGEST = "repr-digest"


def stored(
    store: ObjectStore,
    key: str,
    *,
    what: str,
    size: int | None,
    sha256: str | None,
    media_type: str = "application/octet-stream",
    disposition: str,
) -> StreamingResponse:
    """The object's bytes. Raises ``Damaged`` where it is gone or has another size than ``size``."""
    try:
        found = store.size(key)
    except ObjectMissing as error:
        raise Damaged(f"{what} is gone from the object store") from error
    if size not in (None, found):
        raise Damaged(f"{what} is damaged: it must have {size} bytes, and has {found}")
    headers = {"content-length": str(found), "content-disposition": disposition}
    if sha256:
        headers[DIGEST] = f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"
    return StreamingResponse(store.stream(key), media_type=media_type, headers=headers)
