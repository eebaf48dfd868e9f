"""What an endpoint is, as its owner writes it: where events go, and which."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, HttpUrl, TypeAdapter, ValidationError, model_validator

from jobs import names
from jobs.durations import Duration
from jobs.kinds.base import Strict
from jobs.webhooks.events import EventType

MOST_ENDPOINTS = 20
"""Of one project: each event is written down once for each of them."""

MOST_SECRETS = 5
"""Of one endpoint, the one that counts and those that a rotation has left valid."""

OVERLAP = timedelta(days=1)
LONGEST_URL = 2_000


def _normal_url(value: str) -> str:
    """The URL as it is sent: a name of other letters in ASCII. Raises ``ValueError``."""
    try:
        url = TypeAdapter(HttpUrl).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"must be an http or https URL: {error.errors()[0]['msg']}") from error
    if url.username is not None or url.password is not None:
        raise ValueError("must be a URL without user and password: the signature is the proof")
    if url.fragment is not None:
        raise ValueError("must be a URL without a fragment: none is sent")
    return str(url)


Url = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_URL, description="An http or https URL."),
    AfterValidator(_normal_url),
]
Email = Annotated[
    str,
    Field(pattern=f"^{names.EMAIL}$", description="Address of a person who gets mails."),
]
Name = Annotated[
    str, Field(max_length=100, pattern=f"^{names.PLAIN}$", description="For people; may be empty.")
]
EventTypes = Annotated[
    tuple[EventType, ...],
    Field(max_length=len(EventType), description="What is sent; empty: everything."),
]


class EndpointRequest(Strict):
    """An endpoint to be made: exactly one of ``url`` and ``email``."""

    url: Url | None = None
    email: Email | None = None
    name: Name = ""
    event_types: EventTypes = ()

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.url is None) == (self.email is None):
            raise ValueError("must have either url or email, and not both")
        return self


class EndpointChange(Strict):
    """What changes of an endpoint; what is left out stays."""

    url: Url | None = None
    name: Name | None = None
    event_types: EventTypes | None = None


class Rotation(Strict):
    """How long the secrets before the new one stay valid."""

    overlap: Duration | None = Field(
        None, description="At most 30 days; by default one day. `0` for a secret that leaked."
    )
    keep_old_secret_active_for_24_hours: bool | None = Field(
        None, description="How OpenAI's client asks for an overlap of a day, or for none."
    )

    @model_validator(mode="after")
    def _one_overlap(self) -> Self:
        if self.overlap is not None and self.keep_old_secret_active_for_24_hours is not None:
            raise ValueError("overlap and keep_old_secret_active_for_24_hours both say how long")
        if self.overlap is not None and self.overlap > timedelta(days=30):
            raise ValueError("must have an overlap of at most 30 days")
        return self

    @property
    def duration(self) -> timedelta:
        """How long signatures are made with the earlier secrets as well."""
        if self.keep_old_secret_active_for_24_hours is False:
            return timedelta()
        return OVERLAP if self.overlap is None else self.overlap


def host(url: str) -> str:
    """The host of a URL that was checked."""
    return urlsplit(url).hostname or ""
