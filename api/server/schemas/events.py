"""What the API answers about the stream of events."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel


class EventToken(BaseModel):
    """What opens the events of one job in a browser: ``new EventSource(url)``."""

    object: Literal["event_token"] = "event_token"
    token: str
    expires_at: datetime
    url: str  # path and query of the stream
