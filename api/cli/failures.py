"""How a command fails: one line on stderr that says what to do, and an exit code."""

from __future__ import annotations

import sys
from http import HTTPStatus

import httpx
import typer

from api.client import ApiError
from jobs.errors import ControlFlow, NightshiftError

FAILED = 1
BAD_INPUT = 2
UNREACHABLE = 3
INTERRUPTED = 130


class Failure(ControlFlow):
    """Ends the command with this line and this exit code."""

    def __init__(self, message: str, *, code: int = BAD_INPUT) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


KNOWN = (Failure, typer.TyperException, ApiError, NightshiftError, OSError, httpx.HTTPError)
"""What ends a command in one line; anything else is a fault of ours and shows its trace."""


def report(error: Exception) -> int:
    """Say it on stderr; the exit code."""
    match error:
        case Failure():
            return _say(error.message, code=error.code)
        case typer.TyperException():
            return _say(f"{error.format_message()} (see --help)", code=BAD_INPUT)
        case ApiError():
            return _say(_advice(error), code=_code(error))
        case httpx.HTTPError():
            return _say(f"the connection to the API broke: {error}", code=UNREACHABLE)
        case OSError():
            return _say(f"{error.filename or 'a file'}: {error.strerror}", code=BAD_INPUT)
    return _say(str(error), code=FAILED)


def _say(message: str, *, code: int) -> int:
    sys.stderr.write(f"nightshift: {' '.join(message.split())}\n")
    return code


def _code(error: ApiError) -> int:
    passing = error.status == 0 or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return UNREACHABLE if passing else BAD_INPUT


def _advice(error: ApiError) -> str:
    if error.status == 0:
        return f"{error.message}; start it with `nightshift up`, or name another with --api"
    if error.status == HTTPStatus.UNAUTHORIZED:
        return "the API does not know this key: set NIGHTSHIFT_API_KEY to a valid one"
    return error.message
