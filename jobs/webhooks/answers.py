"""What the answer of a receiver means."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True)
class Failure:
    """Why a try failed, as its endpoint shows it."""

    reason: str
    status_code: int | None = None  # ``None``: no answer came
    gone: bool = False  # the receiver wants nothing any more


def judge(status_code: int) -> Failure | None:
    """``None``: the receiver has taken the event. Only 2xx says so."""
    status = f"it answered {status_code}{_phrase(status_code)}"
    match status_code // 100:
        case 2:
            return None
        case 3:
            return Failure(f"{status}, a redirect, which is not followed", status_code)
    return Failure(status, status_code, gone=status_code == HTTPStatus.GONE)


def _phrase(status_code: int) -> str:
    try:
        return f" {HTTPStatus(status_code).phrase}"
    except ValueError:
        return ""
