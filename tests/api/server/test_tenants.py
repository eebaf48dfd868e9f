"""Every route and method with every kind of key that must not open it (promise P9).

The matrix comes from the routes of the application: a new one is tried as it is added.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from api.server import scopes, traffic
from api.server.app import create_app
from jobs.rights import Scope
from jobs.settings import Settings
from tests.api.server.conftest import FakeWorkers
from tests.api.server.furniture import furnish
from tests.api.server.installation import Installation, Tenant, new_tenant

BODIES: Mapping[str, Any] = {
    "PUT /v1/models/{name}/aliases/{alias}": {"version": 1},
    "POST /v1/models/{name}/aliases/{alias}/rollback": {"from_version": 1},
    "PATCH /v1/schedules/{schedule}": {},
    "POST /v1/schedules/{schedule}/backfill": {
        "since": "2026-01-01T00:00:00Z",
        "until": "2026-01-02T00:00:00Z",
    },
    "POST /v1/webhook_endpoints/{endpoint}": {"name": "theirs"},
    "PUT /v1/jobs/{job_id}/retention": {"keep": True},
}
"""Bodies that are right, so that the id alone is wrong."""

OF_A_PROJECT = frozenset(
    {
        *("job_id", "file_id", "group_id", "schedule", "endpoint", "delivery", "model", "version"),
        *("alias", "decision", "path", "project", "key_id"),
    }
)
"""Parameters that name something of one project. A `name` may have no versions yet."""

NOT_COMPARED = frozenset({"date", "x-request-id"})


PATHS: Mapping[str, Any] = create_app(Settings()).openapi()["paths"]
ROUTES = sorted(
    f"{method.upper()} {path}"
    for path, methods in PATHS.items()
    for method in methods
    if traffic.needs_key(path)
)


@dataclass(frozen=True)
class World:
    """A furnished project, and keys of another one that must not open it."""

    http: httpx.Client
    places: Mapping[str, list[str]]
    scoped: Mapping[Scope, str]
    invalid: Mapping[str, str | None]

    def ask(self, row: str, key: str | None, *, known: bool) -> httpx.Response:
        """Ask with the furniture's ids, or with others that nothing has."""
        method, template = row.split()
        first, *_ = re.findall(r"{(\w+)}", template) or [""]
        values = {name: found[0] for name, found in self.places.items()}
        if first and not known:
            values[first] = unknown(values[first])
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        body = BODIES.get(row, {})
        given = {} if method in {"GET", "HEAD", "DELETE"} else {"json": body}
        path = template.format(**values)
        return self.http.request(method, path, headers=headers, **given)

    def seen(self, row: str, key: str | None, *, known: bool) -> tuple[Any, ...]:
        """Status, headers and content, with one word in the place of the id."""
        answer = self.ask(row, key, known=known)
        text, (first, *_) = answer.text, re.findall(r"{(\w+)}", row) or [""]
        if first:
            value = self.places[first][0]
            text = text.replace(value if known else unknown(value), "ID")
        headers = {key: value for key, value in answer.headers.items() if key not in NOT_COMPARED}
        return answer.status_code, headers, text


def unknown(value: str) -> str:
    """Something else of the same form and length."""
    turned = value.translate(str.maketrans("0123456789abcdef", "1032547698badcfe"))
    kept = re.match(r"(?:job_|file-|group_|sched_|we_|key_|p-)?", value)
    assert kept is not None
    return kept[0] + turned[kept.end() :]


@pytest.fixture(scope="module")
def world(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        owner = stack.enter_context(new_tenant(installation))
        stranger = stack.enter_context(new_tenant(installation))
        workers = FakeWorkers(installation)
        stack.callback(workers.close)
        places = furnish(owner, workers, tmp_path_factory.mktemp("model") / "model")
        made = {scope: _key(stranger, scopes=[scope]) for scope in Scope}
        every = [scope.value for scope in Scope]
        revoked = _key(owner, scopes=every)
        ended = owner.http.post(f"/v1/keys/{revoked['id']}/revoke")
        assert ended.json()["state"] == "revoked"
        expired = _key(owner, scopes=every)
        owner.http.post(f"/v1/keys/{expired['id']}/rotate", json={"overlap": 0}).raise_for_status()
        yield World(
            http=stack.enter_context(httpx.Client(base_url=installation.url, timeout=30)),
            places=places,
            scoped={scope: key["key"] for scope, key in made.items()},
            invalid={
                "none": None,
                "unknown": f"ns_{'0' * 48}",
                "revoked": revoked["key"],
                "expired": expired["key"],
            },
        )


def _key(tenant: Tenant, **fields: Any) -> dict[str, Any]:
    answer = tenant.http.post("/v1/keys", json=fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_every_route_has_a_scope_and_every_scope_a_route() -> None:
    served = {each.replace("HEAD", "GET") for each in ROUTES}
    assert served == scopes.ROUTES.keys()


@pytest.mark.parametrize("row", ROUTES)
def test_a_key_that_is_not_valid_opens_nothing(world: World, row: str) -> None:
    answers = [world.seen(row, key, known=True) for key in world.invalid.values()]
    assert answers[0][0] == 401
    assert [each for each in answers if each != answers[0]] == []


@pytest.mark.parametrize("row", ROUTES)
def test_a_key_without_the_scope_is_refused_whatever_the_id(world: World, row: str) -> None:
    method, path = row.split()
    for scope, key in world.scoped.items():
        if scope is scopes.needed(method, path):
            continue
        found, other = (world.seen(row, key, known=known) for known in (True, False))
        assert found == other
        assert found[0] == 403
        assert method == "HEAD" or '"scope_missing"' in found[2]


@pytest.mark.parametrize("row", [each for each in ROUTES if "{" in each and "{pool}" not in each])
def test_a_foreign_id_looks_like_one_that_there_is_not(world: World, row: str) -> None:
    method, path = row.split()
    scope = scopes.needed(method, path)
    assert scope is not None
    if scope is Scope.OPERATE:
        pytest.skip("operators see every project")
    key = world.scoped[scope]
    found, other = (world.seen(row, key, known=known) for known in (True, False))
    assert found == other
    if OF_A_PROJECT & set(re.findall(r"{(\w+)}", path)):
        assert found[0] == 404


def test_listings_show_nothing_of_another_project(world: World) -> None:
    theirs = [
        value
        for name, values in world.places.items()
        if name in OF_A_PROJECT - {"path", "alias", "version", "decision", "delivery", "schedule"}
        for value in values
    ]
    for row in (each for each in ROUTES if each.startswith("GET") and "{" not in each):
        scope = scopes.needed(*row.split())
        assert scope is not None
        if scope is Scope.OPERATE or row == "GET /v1/audit":  # it has what this module has tried
            continue
        answer = world.ask(row, world.scoped[scope], known=True)
        assert answer.status_code == 200
        assert (row, [each for each in theirs if each in answer.text]) == (row, [])


def test_a_model_and_a_file_of_another_project_are_none(
    installation: Installation, world: World
) -> None:
    with new_tenant(installation) as stranger:
        for fields in (
            {"model": world.places["model"][1]},
            {"model": f"{world.places['name'][0]}@champion"},
            {"corpus": {"file": world.places["file_id"][0]}},
            {"depends_on": [world.places["job_id"][0]]},
        ):
            answer = stranger.http.post("/v1/jobs", json=stranger.spec(**fields))
            code = answer.json()["error"]["code"]
            assert code in {"model_not_found", "file_not_found", "job_not_found"}, answer.text
