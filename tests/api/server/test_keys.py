"""Projects and keys over HTTP: made, used, rotated, revoked, and refused in one clear sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from api.stack import ports
from jobs.rights import Scope
from jobs.tables import ApiKey
from tests.api.server.installation import Installation, Tenant
from tests.support.waiting import wait_until

EVERY = [scope.value for scope in Scope]


def make(tenant: Tenant, **fields: Any) -> dict[str, Any]:
    answer = tenant.http.post("/v1/keys", json=fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return dict(answer.json()["error"])


@contextmanager
def opened(url: str, key: str) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as http:
        yield http


def test_a_key_is_shown_when_it_is_made_and_never_again(
    installation: Installation, tenant: Tenant
) -> None:
    made = make(tenant, name="ci", expires_in="90d")
    text = made.pop("key")
    assert text.startswith(made["hint"])
    assert (made["project"], made["state"], made["last_used_at"]) == (
        tenant.project,
        "active",
        None,
    )
    assert made["scopes"] == ["read", "submit"]
    shown = tenant.http.get(f"/v1/keys/{made['id']}")
    assert shown.json() == made
    page = tenant.http.get("/v1/keys")
    assert page.json()["data"][0] == made
    assert text not in shown.text + page.text + installation.log
    with opened(installation.url, text) as http:
        assert http.get("/v1/keys/current").json() == {
            "id": made["id"],
            "object": "current_key",
            "project": tenant.project,
            "scopes": ["read", "submit"],
        }
    assert tenant.http.get(f"/v1/keys/{made['id']}").json()["last_used_at"] is not None


def test_the_use_of_a_key_is_noted_once_a_minute(
    installation: Installation, tenant: Tenant
) -> None:
    lately, before = make(tenant), make(tenant)
    _use(installation, lately, seconds_ago=30)
    _use(installation, before, seconds_ago=90)
    shown = [_shown(tenant, key)["last_used_at"] for key in (lately, before)]
    for key in (lately, before):
        with opened(installation.url, key["key"]) as http:
            assert http.get("/v1/jobs").is_success
    assert _shown(tenant, lately)["last_used_at"] == shown[0]
    assert _shown(tenant, before)["last_used_at"] > shown[0]


def _use(installation: Installation, key: dict[str, Any], *, seconds_ago: int) -> None:
    with installation.sessions() as sessions, sessions.begin() as session:
        ago = sa.func.now() - timedelta(seconds=seconds_ago)
        session.execute(sa.update(ApiKey).where(ApiKey.id == key["id"]).values(last_used_at=ago))


def _refused(http: httpx.Client) -> bool:
    return http.get("/v1/jobs").status_code == HTTPStatus.UNAUTHORIZED


def _shown(tenant: Tenant, key: dict[str, Any]) -> dict[str, Any]:
    return dict(tenant.http.get(f"/v1/keys/{key['id']}").json())


def test_a_revoked_key_is_refused_by_every_process(
    installation: Installation, tenant: Tenant, tmp_path: Path
) -> None:
    other = Installation(database_url=installation.database_url, home=tmp_path, port=ports.choose())
    other.start()
    try:
        made = make(tenant)
        with opened(installation.url, made["key"]) as one, opened(other.url, made["key"]) as two:
            assert one.get("/v1/jobs").status_code == two.get("/v1/jobs").status_code == 200
            revoked = tenant.http.post(f"/v1/keys/{made['id']}/revoke").json()
            assert revoked["state"] == "revoked"
            for http in (one, two):
                wait_until(partial(_refused, http))
            again = tenant.http.post(f"/v1/keys/{made['id']}/revoke").json()
            assert again == revoked
    finally:
        other.stop()


def test_a_rotated_key_stays_valid_for_the_overlap(
    installation: Installation, tenant: Tenant
) -> None:
    old = make(tenant, name="ci", scopes=["read"], expires_in="2h")
    new = tenant.http.post(f"/v1/keys/{old['id']}/rotate", json={"overlap": "1h"}).json()
    assert (new["name"], new["scopes"]) == ("ci", ["read"])
    shown = tenant.http.get(f"/v1/keys/{old['id']}").json()
    assert (shown["state"], shown["replaced_by"]) == ("replaced", new["id"])
    assert shown["expires_at"] < new["expires_at"]
    for key in (old, new):
        with opened(installation.url, key["key"]) as http:
            assert http.get("/v1/jobs").status_code == 200
    again = tenant.http.post(f"/v1/keys/{old['id']}/rotate")
    assert error(again, 409)["code"] == "key_replaced"
    newest = tenant.http.post(f"/v1/keys/{new['id']}/rotate", json={"overlap": 0}).json()
    assert tenant.http.get(f"/v1/keys/{new['id']}").json()["state"] == "expired"
    ended = tenant.http.post(f"/v1/keys/{new['id']}/rotate")
    assert error(ended, 409)["code"] == "key_not_valid"
    assert newest["state"] == "active"


def test_a_key_gives_no_scope_that_it_does_not_have(
    installation: Installation, tenant: Tenant
) -> None:
    operator = make(tenant, scopes=EVERY)
    admin = make(tenant, scopes=["admin", "read"])
    with opened(installation.url, admin["key"]) as http:
        refused = error(http.post("/v1/keys", json={"scopes": ["read", "submit"]}), 403)
        assert refused["message"] == f"a key gives no more than it has: {admin['id']} lacks submit"
        assert (refused["code"], refused["param"]) == ("scope_missing", "scopes")
        assert error(http.post(f"/v1/keys/{operator['id']}/rotate"), 403)["param"] == "scopes"
        assert http.post("/v1/keys", json={"scopes": ["read"]}).status_code == 201


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["all"]}, "scopes.0"),
        ({"expires_in": 0}, "expires_in"),
        ({"name": "a\nb"}, "name"),
        ({"overlap": 1}, "overlap"),
    ],
)
def test_a_key_that_cannot_be_is_refused(
    tenant: Tenant, fields: dict[str, Any], param: str
) -> None:
    assert error(tenant.http.post("/v1/keys", json=fields), 400)["param"] == param


def test_an_operator_makes_a_project_and_its_first_key(
    installation: Installation, tenant: Tenant, stranger: Tenant
) -> None:
    project = f"{tenant.project}-b"
    made = tenant.http.post("/v1/projects", json={"id": project, "name": "Team B", "weight": 2})
    assert made.status_code == 201, made.text
    assert tenant.http.get(f"/v1/projects/{project}").json() == made.json()
    twice = tenant.http.post("/v1/projects", json={"id": project})
    assert error(twice, 409)["code"] == "project_exists"
    edited = tenant.http.patch(f"/v1/projects/{project}", json={"weight": 0.5}).json()
    assert (edited["name"], edited["weight"]) == ("Team B", 0.5)
    assert project in {each["id"] for each in _projects(tenant)}
    key = make(tenant, project=project, scopes=["read", "submit", "admin"])
    with opened(installation.url, key["key"]) as http:
        assert http.get("/v1/keys/current").json()["project"] == project
        assert http.get(f"/v1/projects/{project}").json()["id"] == project
        other = http.get(f"/v1/projects/{stranger.project}")
        assert error(other, 404)["message"] == f"no project '{stranger.project}' here"
        theirs = {"project": stranger.project, "scopes": ["read"]}
        assert error(http.post("/v1/keys", json=theirs), 404)["param"] == "project"
        listed = http.get("/v1/keys", params={"project": stranger.project})
        assert error(listed, 404)["param"] == "project"
    listed = tenant.http.get("/v1/keys", params={"project": project}).json()["data"]
    assert [each["id"] for each in listed] == [key["id"]]


def _projects(tenant: Tenant) -> list[dict[str, Any]]:
    return list(tenant.http.get("/v1/projects", params={"limit": 1000}).json()["data"])


def test_keys_are_listed_page_by_page(tenant: Tenant) -> None:
    made = [make(tenant, name=str(number))["id"] for number in range(3)]
    first = tenant.http.get("/v1/keys", params={"limit": 2}).json()
    assert [each["id"] for each in first["data"]] == [made[2], made[1]]
    assert first["has_more"]
    second = tenant.http.get("/v1/keys", params={"limit": 2, "after": first["last_id"]}).json()
    assert second["data"][0]["id"] == made[0]
