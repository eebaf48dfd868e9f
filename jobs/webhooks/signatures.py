"""Signatures of the Standard Webhooks specification: HMAC-SHA256 over id, time and body.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime

PREFIX = "whsec_"
_BYTES = 32
"""The specification allows 24 to 64."""


def new_secret() -> str:
    """A random secret: ``whsec_`` and its bytes in base64."""
    return f"{PREFIX}{base64.b64encode(secrets.token_bytes(_BYTES)).decode()}"


def hint(secret: str) -> str:
    """Enough of a secret to tell it from others, and no more."""
    return f"{PREFIX}…{secret[-4:]}"


def headers(
    signing_secrets: Sequence[str], *, event_id: str, at: datetime, body: bytes
) -> dict[str, str]:
    """The headers of one try at ``at``: a receiver accepts it by any of the secrets."""
    timestamp = str(int(at.timestamp()))
    signatures = (
        _sign(each, f"{event_id}.{timestamp}.".encode() + body) for each in signing_secrets
    )
    return {
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signatures),
    }


def _sign(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return f"v1,{base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()}"
