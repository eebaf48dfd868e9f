"""Messages as control writes them and as workers read them; pure.

A worker takes five values out of what it received: queue, task, id, arguments and words. It checks
each of them, and their signature, and builds the message that Celery acts on from these alone.
Whatever else was in the bytes is never looked at. Promises P10 and P12, docs/decisions/0035.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jobs.errors import ControlFlow

Arguments = tuple[int | str, ...]

SIGNATURE = "nightshift-signature"
"""The header that carries the signature."""

LONGEST = 16 * 2**10
"""Bytes of a message. The longest that control writes has less than a tenth of that."""

LONGEST_TEXT = 300

TASKS: Mapping[str, tuple[type, ...]] = {
    "plan": (str,),
    "finalize": (str,),
    "chunk": (int,),
    "rank": (str, int, str),
}
"""The types of each task's arguments."""

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Reason(StrEnum):
    """Why a message was refused."""

    TOO_LONG = "too_long"
    MALFORMED = "malformed"
    UNSIGNED = "unsigned"
    BAD_SIGNATURE = "bad_signature"
    NOT_OFFERED = "not_offered"
    QUARANTINED = "quarantined"
    RAISED = "raised"
    NO_QUEUE = "no_queue"
    ENDED_WORKER = "ended_worker"


class Refused(ControlFlow):
    """No worker acts on the message; ``str`` is why, in words of ours alone."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Hint:
    """What a message says: look at this row."""

    queue: str
    task: str
    id: str
    arguments: Arguments
    words: str  # for people who watch the queue

    @property
    def digest(self) -> str:
        """Equal for every message about this row."""
        return hashlib.sha256(_json([self.task, self.arguments])).hexdigest()


def sign(hint: Hint, *, key: bytes) -> str:
    """The signature of everything that the message says."""
    signed = ["1", hint.queue, hint.task, hint.id, hint.arguments, hint.words]
    return hmac.new(key, _json(signed), hashlib.sha256).hexdigest()


def read(raw: bytes, *, queue: str, key: bytes) -> tuple[Hint, str]:
    """The hint in a message from ``queue``, and its signature. Raises ``Refused``."""
    if len(raw) > LONGEST:
        raise Refused(Reason.TOO_LONG, f"it has more than {LONGEST:,} bytes")
    message = _object(_parsed(raw, "it"), "it")
    headers = _object(message.get("headers"), "its headers")
    signature = headers.get(SIGNATURE)
    if not isinstance(signature, str) or not signature.isascii():
        raise Refused(Reason.UNSIGNED, "it has no signature")
    hint = _hint(message, headers, queue=queue)
    if not hmac.compare_digest(signature, sign(hint, key=key)):
        raise Refused(
            Reason.BAD_SIGNATURE,
            "its signature is not made with the key of this installation, for this queue",
        )
    return hint, signature


def celery_message(hint: Hint, *, signature: str, tag: str) -> dict[str, Any]:
    """The message that Celery acts on; ``tag`` names this delivery."""
    embedded = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    body = base64.b64encode(_json([hint.arguments, {}, embedded])).decode()
    return {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {
            "lang": "py",
            "task": hint.task,
            "id": hint.id,
            "root_id": hint.id,
            "parent_id": None,
            "group": None,
            "shadow": None,
            "eta": None,
            "expires": None,
            "retries": 0,
            "timelimit": [None, None],
            "argsrepr": hint.words,
            "kwargsrepr": "",
            "ignore_result": True,
            SIGNATURE: signature,
        },
        "properties": {
            "correlation_id": hint.id,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": hint.queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": tag,
        },
    }


def _hint(message: dict[str, Any], headers: dict[str, Any], *, queue: str) -> Hint:
    task = headers.get("task")
    if not isinstance(task, str) or task not in TASKS:
        raise Refused(Reason.MALFORMED, f"its task must be one of {', '.join(TASKS)}")
    message_id = headers.get("id")
    if not isinstance(message_id, str) or not _ID.fullmatch(message_id):
        raise Refused(Reason.MALFORMED, "its id must be a UUID")
    words = headers.get("argsrepr")
    if not isinstance(words, str) or not _is_text(words):
        raise Refused(Reason.MALFORMED, f"its argsrepr must be at most {LONGEST_TEXT} characters")
    return Hint(queue, task, message_id, _arguments(message.get("body"), task=task), words)


def _arguments(body: object, *, task: str) -> Arguments:
    if not isinstance(body, str):
        raise Refused(Reason.MALFORMED, "its body must be a string")
    try:
        decoded = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(Reason.MALFORMED, "its body must be base64") from None
    match _parsed(decoded, "its body"):
        case [list(arguments), dict(), dict() | None]:
            types = TASKS[task]
            if len(arguments) == len(types) and all(map(_is_of, arguments, types)):
                return tuple(arguments)
    raise Refused(Reason.MALFORMED, f"its body must hold the arguments of {task}")


def _is_of(value: object, wanted: type) -> bool:
    if wanted is int:
        return type(value) is int and 0 <= value < 2**63
    return _is_text(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and value.isprintable()


def _parsed(text: bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(Reason.MALFORMED, f"{what} must be JSON") from None


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(Reason.MALFORMED, f"{what} must be a JSON object")
    return value


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
