"""How a command fails: one line on stderr that says what to do, and an exit code."""

from __future__ import annotations

import os
import re
import sys
import traceback
from http import HTTPStatus
from pathlib import Path

import httpx
import typer
from pydantic import ValidationError

from api.cli import console
from api.client import ApiError
from jobs import os_errors, validation
from jobs.errors import BadRequest, ControlFlow, NightshiftError

FAILED = 1
BAD_INPUT = 2
UNREACHABLE = 3
NOT_PROMOTED = 4
EMPTY = 5
OUR_FAULT = 70
INTERRUPTED = 130
READER_GONE = 141
TERMINATED = 143

TRACE = "NIGHTSHIFT_TRACE"
"""Set to anything, it shows the stack of a fault of ours."""

_CHOICE = re.compile(r"^(.*) is not one of (.*?)\.?$", re.DOTALL)
"""How typer refuses a value that is none of an option's."""

WORD, LINE = 250, 1_200
"""Characters of a word, such as a value that was given, and of the whole line that are shown."""

_ROUTE = re.compile(
    r"(?:(?:GET|POST) )?/v1/(?P<noun>jobs|files)(?:/(?P<id>[\w-]+))?(?:/(?P<verb>\w+))?"
)


class Failure(ControlFlow):
    """Ends the command with this line and this exit code."""

    def __init__(self, message: str, *, code: int = BAD_INPUT) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def report(error: Exception) -> int:
    """Say on stderr what is wrong, in one line that says what to do; the exit code."""
    match error:
        case BrokenPipeError():
            return _reader_gone()
        case typer.Abort():
            return stopped(by_sigterm=False)
        case Failure() | typer.TyperException() | NightshiftError() | httpx.HTTPError() | OSError():
            message, code = _told(error)
            return _say(message, code=code)
    return _fault(error)


def _told(error: Exception) -> tuple[str, int]:
    """The message of an error that was foreseen, and the exit code."""
    match error:
        case Failure():
            told = error.message, error.code
        case typer.TyperException():
            told = f"{_usage(error)} (see --help)", BAD_INPUT
        case ApiError():
            told = _advice(error), _code(error)
        case BadRequest():
            told = error.message, BAD_INPUT
        case httpx.HTTPError():
            told = f"the connection to the API broke: {error}", UNREACHABLE
        case OSError():
            told = os_errors.explain(error), BAD_INPUT
        case _:
            told = str(error), FAILED
    return told


def stopped(*, by_sigterm: bool) -> int:
    """Say that a signal ended the command before it was done; the exit code."""
    signal, code = ("SIGTERM", TERMINATED) if by_sigterm else ("Ctrl-C", INTERRUPTED)
    return _say(f"stopped by {signal}; `nightshift jobs list` shows which jobs go on", code=code)


def _say(message: str, *, code: int = BAD_INPUT) -> int:
    words = (_shortened(word, WORD) for word in message.split())
    sys.stderr.write(f"nightshift: {console.printable(_shortened(' '.join(words), LINE))}\n")
    return code


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _usage(error: typer.TyperException) -> str:
    """What is wrong with the command as it is written."""
    cause = error.__cause__
    if not isinstance(error, typer.BadParameter) or not isinstance(cause, ValidationError):
        return str(error.format_message()).rstrip(".")
    sentence = _CHOICE.sub(r"must be one of \2, not \1", validation.sentence(cause.errors()[0]))
    return said(_hint(error), sentence).rstrip(".")


def said(name: str, sentence: str) -> str:
    """The sentence about an option or an argument."""
    return f"{name} {sentence}" if sentence.startswith("must ") else f"{name}: {sentence}"


def _hint(error: typer.BadParameter) -> str:
    """The option, or the argument, that was given a wrong value."""
    param = error.param
    if param is None:
        return "an option"
    if param.param_type_name == "argument":
        return str(getattr(param, "metavar", None) or str(param.name).upper())
    return str(param.opts[0])


def _code(error: ApiError) -> int:
    passing = error.status == 0 or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return UNREACHABLE if passing else BAD_INPUT


def _advice(error: ApiError) -> str:
    if error.status == 0:
        return f"{error.message}; start it with `nightshift up`, or name another with --api"
    if error.status == HTTPStatus.UNAUTHORIZED:
        return "the API does not know this key: set NIGHTSHIFT_API_KEY to a valid one"
    return in_commands(error.message)


def in_commands(message: str) -> str:
    """A message of the API with its routes as commands: its reader is at a command line."""
    return _ROUTE.sub(_command, message)


def _command(route: re.Match[str]) -> str:
    noun, verb = route["noun"], route["verb"]
    if noun == "files":
        return "`nightshift files upload`" if route["id"] is None else route[0]
    return f"`nightshift jobs {verb} {route['id']}`" if verb else route[0]


def _reader_gone() -> int:
    """Whatever reads our output has closed it, as ``head`` does; Python must not flush to it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return READER_GONE


def _fault(error: Exception) -> int:
    """An error that no one foresaw: where it arose, for the one who mends it."""
    if os.environ.get(TRACE):
        traceback.print_exception(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    return _say(
        f"a fault of nightshift itself ({type(error).__name__}: {error}; {where}): please report "
        f"it, with the trace that {TRACE}=1 shows",
        code=OUR_FAULT,
    )
