"""The description of the API is true: errors, security, and a page that needs no other server."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from api.server.app import create_app
from jobs.settings import Settings
from tests.api.server.installation import Installation, Tenant

SCHEMA: dict[str, Any] = create_app(Settings()).openapi()
OPERATIONS = [
    (path, method, operation)
    for path, operations in SCHEMA["paths"].items()
    for method, operation in operations.items()
]


def _body_schemas() -> set[str]:
    bodies = str([operation.get("requestBody") for *_, operation in OPERATIONS])
    return set(re.findall(r"#/components/schemas/(\w+)", bodies))


OPEN = {"/healthz", "/readyz"}


@pytest.mark.parametrize(
    ("path", "method", "operation"), OPERATIONS, ids=[f"{m} {p}" for p, m, _ in OPERATIONS]
)
def test_an_operation_names_its_key_and_its_errors(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    closed = path not in OPEN
    assert ({"key": []} in operation["security"]) == closed
    assert ("401" in operation["responses"]) == closed
    for status, answer in operation["responses"].items():
        assert "x-request-id" in answer["headers"]
        if status >= "400" and method != "head":
            content = answer["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}
            assert set(content["example"]["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("name", sorted(_body_schemas()))
def test_a_body_with_a_field_that_there_is_not_is_refused(name: str) -> None:
    assert SCHEMA["components"]["schemas"][name]["additionalProperties"] is False


def test_fastapis_own_error_shape_is_not_described() -> None:
    assert "HTTPValidationError" not in str(SCHEMA)


def test_the_page_loads_nothing_from_another_server(installation: Installation) -> None:
    page = httpx.get(f"{installation.url}/docs").text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert "http" not in re.sub(r"<title>.*</title>", "", page).replace("http-equiv", "")
    kinds = {}
    for asset in assets:
        if not asset.startswith("data:"):
            answer = httpx.get(f"{installation.url}{asset}")
            assert answer.status_code == 200, asset
            kinds[asset.rpartition(".")[2]] = answer.headers["content-type"].partition(";")[0]
    assert kinds == {"css": "text/css", "js": "text/javascript"}


def test_an_error_of_the_running_api_has_the_described_shape(tenant: Tenant) -> None:
    fields = set(SCHEMA["components"]["schemas"]["ErrorDetail"]["required"])
    assert set(tenant.http.get("/v1/jobs/none").json()["error"]) == fields
