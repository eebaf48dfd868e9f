"""The description of the API at ``/openapi.json``: FastAPI's own, with errors and security.

Which errors an operation can answer with follows from what it has (a key, a path, a body, a range),
so that no route has to name them and none can forget one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.server import scopes
from api.server.schemas.errors import ErrorAnswer
from jobs import names

Schema = dict[str, Any]

SCHEME, TOKEN_SCHEME = "key", "event_token"
EVENTS = "/v1/jobs/{job_id}/events"
TITLE = "Nightshift"
DESCRIPTION = """\
A self-hosted job queue for machine learning: bulk inference and training.

Everything under `/v1` needs a key (`Authorization: Bearer KEY`), which acts for one project and has
scopes; `x-scope` of an operation is the one that it needs. Errors have one shape,
`{"error": {"message", "type", "param", "code"}}`; codes are stable.
"""
REQUEST_ID = "x-request-id"
REQUEST_ID_WORDS = (
    "An id of your own for this request: letters, digits, `.`, `_`, `:` and `-`. Any other value "
    "is replaced."
)
PARTIAL = "206"

PLAIN = f"^{names.PLAIN}$"
"""Texts of a query that the gate lets pass: those without control characters."""

_OF_ANY_TEXT = frozenset({"type", "title", "description", "minLength", "maxLength"})
"""What the schema of a text has that may be any."""

EXAMPLES: dict[int, tuple[str, str, str | None, str]] = {
    400: (
        "classify.top_k: must be greater than or equal to 1, not '0'",
        "invalid_request_error",
        "classify.top_k",
        "bad_spec",
    ),
    401: (
        "a valid API key must be sent as `Authorization: Bearer KEY`",
        "authentication_error",
        None,
        "unauthorized",
    ),
    403: (
        "this needs a key with the scope submit; key_0 has read",
        "permission_error",
        None,
        "scope_missing",
    ),
    404: ("no job 'job_0' in this project", "not_found_error", None, "not_found"),
    409: (
        "job_0 is queued: delete it when it has ended, or cancel it first",
        "conflict_error",
        None,
        "job_not_ended",
    ),
    413: (
        "the body of this request is too large; upload data with POST /v1/files",
        "invalid_request_error",
        None,
        "too_large",
    ),
    416: (
        "the range 'bytes=90-' begins behind the last byte; there are 90 bytes",
        "invalid_request_error",
        "range",
        "range_unsatisfiable",
    ),
    422: (
        "lmit: no such field in the query; there are after, limit, order, state",
        "invalid_request_error",
        "lmit",
        "unknown_parameter",
    ),
    429: (
        "2 verifications may be under way at a time, and this client has that many",
        "rate_limit_error",
        None,
        "too_many_requests",
    ),
    500: (
        "something went wrong here; the server's log has the details under req_0",
        "server_error",
        None,
        "internal_error",
    ),
    503: (
        "the database does not answer at the moment; try again in a few seconds",
        "server_error",
        None,
        "database_unavailable",
    ),
}
"""An error of each status: message, type, param, code."""

_WORDS = {
    400: "A field that cannot be right, named by its path.",
    401: "No key, or one that is not known.",
    403: "The key does not have the scope that the route needs, see `x-scope`.",
    404: "No such thing in this project.",
    409: "The state of the thing does not allow it.",
    413: "The body is too large.",
    416: "The range begins behind the last byte.",
    422: "A query field that the route does not have; or what the request points at is unusable.",
    429: "This client, or all together, have as many requests of this kind as they may: try again.",
    500: "An unexpected error; the message names the request id.",
    503: "The database or the object store does not answer: try again.",
}

_ALWAYS = (400, 422, 429, 500, 503)


def install(app: FastAPI) -> None:
    """Let the application describe itself so; the description is made once."""

    def openapi() -> Schema:
        if app.openapi_schema is None:
            app.openapi_schema = _describe(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way to do it


def methods(app: FastAPI, path: str) -> list[str]:
    """The methods of a path: Starlette itself names those of the first route that matches."""
    paths = app.openapi()["paths"]
    found = (paths[each] for each in paths if _matches(each, path))
    return sorted({method.upper() for operations in found for method in operations})


def _matches(template: str, path: str) -> bool:
    return re.fullmatch(_pattern(template), path) is not None


@functools.cache
def _pattern(template: str) -> str:
    """Of all that a path may hold, a file's path alone may hold slashes."""
    whole = re.escape(template).replace(re.escape("{path}"), ".+")
    return re.sub(r"\\{\w+\\}", "[^/]+", whole)


def _describe(app: FastAPI) -> Schema:
    schema: Schema = get_openapi(
        title=TITLE, version=app.version, description=DESCRIPTION, routes=app.routes
    )
    components = schema["components"]
    definition = ErrorAnswer.model_json_schema(ref_template="#/components/schemas/{model}")
    components["schemas"] |= {**definition.pop("$defs"), ErrorAnswer.__name__: definition}
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["securitySchemes"] = {
        SCHEME: {"type": "http", "scheme": "bearer", "description": "A key of a project."},
        TOKEN_SCHEME: {
            "type": "apiKey",
            "in": "query",
            "name": "token",
            "description": "For a browser's `EventSource`: a token of this job.",
        },
    }
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _complete(operation, method=method, path=path)
    return schema


def _complete(operation: Schema, *, method: str, path: str) -> None:
    """Add the errors that can come, the key that is needed, and the request id."""
    operation["security"] = [{SCHEME: []}] if _is_closed(path) else []
    if scope := scopes.needed(method.upper(), path):
        operation["x-scope"] = scope.value
    responses, parameters = operation["responses"], operation.setdefault("parameters", [])
    for parameter in parameters:
        parameter["schema"] = _given(parameter["schema"])
        if parameter["in"] == "query" and _is_any_text(parameter["schema"]):
            parameter["schema"]["pattern"] = PLAIN
    parameters.append(_header(REQUEST_ID, REQUEST_ID_WORDS))
    if path == EVENTS:
        operation["security"].append({TOKEN_SCHEME: []})
        parameters[:] = [each for each in parameters if each["name"] != "token"]
    if PARTIAL in responses:
        parameters.append(_header("range", "`bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-LAST`."))
        parameters.append(_header("if-range", "The `ETag` without which the whole is sent."))
    for status in _statuses(operation, method=method, path=path):
        responses[str(status)] = _error(status, with_body=method != "head")
    if method == "head":
        for answer in responses.values():
            answer.pop("content", None)
    for answer in responses.values():
        answer.setdefault("headers", {})[REQUEST_ID] = {
            "description": "As the request had it, or a new one; it stands in the server's log.",
            "schema": {"type": "string"},
        }


def _is_any_text(schema: Schema) -> bool:
    return schema.get("type") == "string" and schema.keys() <= _OF_ANY_TEXT


def _statuses(operation: Schema, *, method: str, path: str) -> Iterator[int]:
    yield from _ALWAYS
    if _is_closed(path):
        yield 401
        yield 403
        yield 404
    if method in ("post", "put", "patch", "delete"):
        yield 409
    if "requestBody" in operation:
        yield 413
    if PARTIAL in operation["responses"]:
        yield 416


def _is_closed(path: str) -> bool:
    return path.startswith("/v1/")


def _error(status: int, *, with_body: bool) -> Schema:
    answer: Schema = {"description": _WORDS[status]}
    if with_body:
        message, kind, param, code = EXAMPLES[status]
        error = {"message": message, "type": kind, "param": param, "code": code}
        answer["content"] = {
            "application/json": {
                "schema": {"$ref": f"#/components/schemas/{ErrorAnswer.__name__}"},
                "example": {"error": error},
            }
        }
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        answer["headers"] = {
            "retry-after": {
                "description": "Seconds to wait.",
                "schema": {"type": "string"},
            }
        }
    return answer


def _given(schema: Schema) -> Schema:
    """The schema of a parameter that is there: one that is null is left out of a request."""
    kinds = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return {**rest, **kinds[0]}


def _header(name: str, words: str) -> Schema:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": words,
        "schema": {"type": "string"},
    }
