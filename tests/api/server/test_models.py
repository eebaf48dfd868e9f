"""The registry over HTTP: OpenAI's shape, aliases, promotions, files, deletion, other projects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from api.client import ApiError, Client
from jobs.ledger import registry
from jobs.ledger.promotions import PromotionRecord, record_promotion
from jobs.models import bundles
from tests.api.server.installation import Tenant

WEIGHTS = bytes(range(256)) * 40
FILES = {"config.json": b"{}", "1_Pooling/config.json": b"{ }", "model.safetensors": WEIGHTS}


class Trained:
    """Registers versions as a training host does, as one project."""

    def __init__(self, tenant: Tenant, folder: Path) -> None:
        self._tenant = tenant
        self._folder = folder
        for name, content in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def register(self, name: str, **fields: Any) -> int:
        installation, project = self._tenant.installation, self._tenant.project
        prefix = f"models/{project}/{name}"
        facts: dict[str, Any] = {
            "task": "classify",
            "kind": "full",
            "base": "hf:org/name",
            "metrics": {"test": {"accuracy": 0.9, "confusion": [[1]]}},
            "lineage": {"code_version": "1", "data": {"train": {"sha256": "ab", "rows": 8}}},
            "job_id": None,
            **fields,
        }
        with installation.sessions() as sessions, sessions.begin() as session:
            files = bundles.upload(installation.store, self._folder, prefix=prefix)
            return registry.register(session, project_id=project, name=name, files=files, **facts)

    def decide(
        self, name: str, version: int, *, value: float, promoted: bool, **facts: Any
    ) -> None:
        job_id = self._tenant.submit()
        with self._tenant.installation.sessions() as sessions, sessions.begin() as session:
            assert record_promotion(
                session,
                PromotionRecord(
                    alias="champion",
                    version=version,
                    value=value,
                    incumbent=1,
                    incumbent_value=0.8,
                    metric="accuracy",
                    margin=0.01,
                    promoted=promoted,
                    reason="because",
                    **facts,
                ),
                project_id=self._tenant.project,
                name=name,
                job_id=job_id,
            )


@pytest.fixture
def trained(tenant: Tenant, tmp_path: Path) -> Trained:
    return Trained(tenant, tmp_path / "model")


@pytest.fixture
def client(tenant: Tenant) -> Iterator[Client]:
    with Client(tenant.installation.url, tenant.key, patience_seconds=20) as made:
        yield made


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return dict(answer.json()["error"])


def test_the_official_client_lists_and_finds_models(tenant: Tenant, trained: Trained) -> None:
    trained.register("news")
    trained.register("news")
    trained.register("mail")
    official = openai.OpenAI(base_url=f"{tenant.installation.url}/v1", api_key=tenant.key)
    assert [model.id for model in official.models.list()] == ["mail@1", "news@2", "news@1"]
    model = official.models.retrieve("news@1")
    assert (model.object, model.owned_by) == ("model", tenant.project)
    assert model.created > 1_700_000_000


def test_a_model_is_shown_in_full_with_its_lineage(client: Client, trained: Trained) -> None:
    trained.register("news")
    client.models.set_alias("news", "champion", version=1)
    model = client.models.get("news@champion")
    assert model["id"] == "news@1"
    version = model["nightshift"]
    assert (version["aliases"], version["kind"], version["base"]) == (
        ["champion"],
        "full",
        "hf:org/name",
    )
    assert version["bytes"] == sum(map(len, FILES.values()))
    assert version["metrics"]["test"]["accuracy"] == 0.9
    assert version["lineage"]["code_version"] == "1"
    assert {file["path"]: file["sha256"] for file in version["files"]} == {
        name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()
    }


def test_keys_of_objects_are_not_told(client: Client, trained: Trained) -> None:
    trained.register("news")
    assert all("key" not in file for file in client.models.get("news")["nightshift"]["files"])


def test_versions_are_paged_newest_first(tenant: Tenant, client: Client, trained: Trained) -> None:
    for _ in range(5):
        trained.register("news")
    page = tenant.http.get("/v1/models/news/versions", params={"limit": 2}).json()
    assert [version["version"] for version in page["data"]] == [5, 4]
    assert (page["has_more"], page["next"]) == (True, 4)
    assert [version["version"] for version in client.models.versions("news")] == [5, 4, 3, 2, 1]


def test_an_alias_is_set_moved_shown_and_forgotten(client: Client, trained: Trained) -> None:
    trained.register("news")
    trained.register("news")
    client.models.set_alias("news", "best", version=1)
    assert client.models.set_alias("news", "best", version=2)["version"] == 2
    assert client.models.alias("news", "best")["version"] == 2
    assert client.models.remove_alias("news", "best")["deleted"]
    with pytest.raises(ApiError, match="has no alias 'best'"):
        client.models.alias("news", "best")


@pytest.mark.parametrize("body", [{}, {"version": 0}, {"version": "x"}, {"version": 2**70}])
def test_an_alias_needs_a_version(tenant: Tenant, trained: Trained, body: object) -> None:
    trained.register("news")
    answer = tenant.http.put("/v1/models/news/aliases/best", json=body)
    assert error(answer, 400)["param"] == "version"


def test_an_alias_to_nothing_is_not_found(tenant: Tenant, trained: Trained) -> None:
    trained.register("news")
    answer = tenant.http.put("/v1/models/news/aliases/best", json={"version": 9})
    assert error(answer, 404)["message"] == "the model 'news' has no version 9"


def test_a_misspelt_alias_is_refused(tenant: Tenant, trained: Trained) -> None:
    trained.register("news")
    answer = tenant.http.put("/v1/models/news/aliases/Best", json={"version": 1})
    assert error(answer, 400)["param"] == "alias"


def test_promotions_are_shown_with_both_numbers(client: Client, trained: Trained) -> None:
    for _ in range(3):
        trained.register("news")
    client.models.set_alias("news", "champion", version=1)
    trained.decide("news", 2, value=0.75, promoted=False)
    assert client.models.get("news@champion")["id"] == "news@1"
    trained.decide("news", 3, value=0.95, promoted=True)
    assert client.models.get("news@champion")["id"] == "news@3"
    shown = [
        (one["version"], one["value"], one["incumbent"], one["incumbent_value"], one["promoted"])
        for one in client.models.promotions("news")
    ]
    assert shown == [(3, 0.95, 1, 0.8, True), (2, 0.75, 1, 0.8, False)]


def test_an_alias_is_rolled_back_and_its_history_is_shown(client: Client, trained: Trained) -> None:
    for version in (1, 2, 3):
        trained.register("news")
        client.models.set_alias("news", "champion", version=version)
    done = client.models.rollback("news", "champion", from_version=3)
    assert (done["version"], done["previous"], done["skipped"]) == (2, 3, [])
    assert client.models.rollback("news", "champion", from_version=3)["version"] == 2
    assert client.models.rollback("news", "champion")["version"] == 1
    with pytest.raises(ApiError) as caught:
        client.models.rollback("news", "champion", from_version=3)
    assert (caught.value.status, caught.value.code) == (409, "alias_moved")
    history = list(client.models.history("news", "champion"))
    assert [(one["version"], one["how"]) for one in history] == [
        (1, "rollback"),
        (2, "rollback"),
        (3, "set"),
        (2, "set"),
        (1, "set"),
    ]
    assert [one["until"] for one in history] == [None, *(one["since"] for one in history[:-1])]


@pytest.mark.parametrize("body", [{"from_version": 0}, {"from_version": "x"}, {"version": 1}, []])
def test_a_rollback_takes_no_other_body(tenant: Tenant, trained: Trained, body: object) -> None:
    trained.register("news")
    answer = tenant.http.post("/v1/models/news/aliases/champion/rollback", json=body)
    assert answer.status_code == 400, answer.text


def test_one_decision_has_both_reports(client: Client, trained: Trained) -> None:
    for _ in range(2):
        trained.register("news")
    client.models.set_alias("news", "champion", version=1)
    both = {"candidate": {"accuracy": 0.9}, "incumbent": {"accuracy": 0.8}}
    trained.decide("news", 2, value=0.9, promoted=True, reports=both, rows=70, split="test")
    (listed,) = client.models.promotions("news")
    assert (listed["rows"], listed["split"], "reports" in listed) == (70, "test", False)
    assert client.models.promotion("news", listed["id"])["reports"] == both
    with pytest.raises(ApiError, match="has no decision 999999999 about a promotion"):
        client.models.promotion("news", 999_999_999)


def test_a_number_that_json_lacks_is_null(client: Client, trained: Trained) -> None:
    trained.register("news")
    client.models.set_alias("news", "champion", version=1)
    trained.decide("news", 1, value=float("nan"), promoted=False)
    (decision,) = client.models.promotions("news")
    assert decision["value"] is None


def test_a_version_is_downloaded_whole(client: Client, trained: Trained, tmp_path: Path) -> None:
    trained.register("news")
    seen: list[tuple[int, int]] = []
    client.models.download("news", tmp_path / "out", progress=lambda *done: seen.append(done))
    for name, content in FILES.items():
        assert (tmp_path / "out" / name).read_bytes() == content
    total = sum(map(len, FILES.values()))
    assert seen[-1] == (total, total)


def test_a_file_that_a_version_has_not_is_not_found(tenant: Tenant, trained: Trained) -> None:
    trained.register("news")
    answer = tenant.http.get("/v1/models/news/versions/1/files/none.bin")
    assert error(answer, 404)["message"].startswith("news@1 has no file 'none.bin'; it has 1_Pool")


def test_a_deleted_version_is_gone_with_its_objects_and_its_number(
    tenant: Tenant, client: Client, trained: Trained
) -> None:
    trained.register("news")
    assert client.models.delete("news", 1) == {"id": "news@1", "object": "model", "deleted": True}
    assert list(tenant.installation.store.keys(f"models/{tenant.project}")) == []
    assert client.models.delete("news", 1)["deleted"]
    with pytest.raises(ApiError) as caught:
        client.models.get("news@1")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
    assert trained.register("news") == 2
    assert [one["version"] for one in client.models.versions("news")] == [2, 1]
    assert [model["id"] for model in client.models.list()] == ["news@2"]


def test_a_version_in_use_is_not_deleted(tenant: Tenant, client: Client, trained: Trained) -> None:
    trained.register("news")
    job_id = tenant.submit(model="news")
    with pytest.raises(ApiError) as caught:
        client.models.delete("news", 1)
    assert (caught.value.status, caught.value.code) == (409, "model_in_use")
    assert job_id in caught.value.message


def test_a_job_names_a_registered_model_and_unknown_ones_are_refused(
    tenant: Tenant, trained: Trained
) -> None:
    trained.register("news")
    tenant.submit(model="news@1")
    answer = tenant.http.post("/v1/jobs", json=tenant.spec(model="news@7"))
    assert error(answer, 400)["code"] == "model_not_found"
    assert error(answer, 400)["param"] == "model"
    answer = tenant.http.post("/v1/jobs", json=tenant.spec(model="a/b"))
    assert error(answer, 400)["code"] == "model_refused"


ROUTES = [
    ("GET", "/v1/models/news"),
    ("GET", "/v1/models/news@1"),
    ("GET", "/v1/models/news@champion"),
    ("GET", "/v1/models/news/versions"),
    ("GET", "/v1/models/news/promotions"),
    ("GET", "/v1/models/news/promotions/1"),
    ("GET", "/v1/models/news/aliases/champion/history"),
    ("POST", "/v1/models/news/aliases/champion/rollback"),
    ("GET", "/v1/models/news/aliases/champion"),
    ("PUT", "/v1/models/news/aliases/champion"),
    ("DELETE", "/v1/models/news/aliases/champion"),
    ("GET", "/v1/models/news/versions/1/files/config.json"),
    ("DELETE", "/v1/models/news/versions/1"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_another_projects_models_are_not_there(
    stranger: Tenant, client: Client, trained: Trained, method: str, path: str
) -> None:
    trained.register("news")
    client.models.set_alias("news", "champion", version=1)
    body = {"version": 1} if method == "PUT" else None
    answer = stranger.http.request(method, path, json=body)
    assert error(answer, 404)["code"] == "model_not_found"
    assert stranger.http.get("/v1/models").json()["data"] == []
    assert client.models.get("news@champion")["id"] == "news@1"


@pytest.mark.parametrize(
    "path", ["/v1/models/-", "/v1/models/a@B", "/v1/models/hf:name", "/v1/models/%00/versions"]
)
def test_what_cannot_be_a_models_name_is_not_found_or_refused(tenant: Tenant, path: str) -> None:
    assert tenant.http.get(path).status_code in {400, 404}


@pytest.mark.parametrize("version", ["0", "x", "99999999999999999999"])
def test_what_cannot_be_a_version_is_not_found(
    tenant: Tenant, trained: Trained, version: str
) -> None:
    trained.register("news")
    assert tenant.http.delete(f"/v1/models/news/versions/{version}").status_code == 404
