"""Training jobs over HTTP: what is refused, what they tell while they run, and what they leave."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from jobs.decisions import accelerate_entries
from jobs.results import reports
from tests.api.server.conftest import FakeWorkers
from tests.api.server.gang import REPORT, Gang, trained
from tests.api.server.installation import Installation, Tenant
from tests.support.waiting import wait_until
from workers.training import launch


def _error(answer: httpx.Response) -> dict[str, Any]:
    return dict(answer.json()["error"])


def _get(tenant: Tenant, job_id: str, what: str, **query: Any) -> dict[str, Any]:
    answer = tenant.http.get(f"/v1/jobs/{job_id}/{what}", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.fixture
def job_id(tenant: Tenant) -> str:
    return tenant.train()


@pytest.fixture
def gang(fake_workers: FakeWorkers, job_id: str) -> Gang:
    made = fake_workers.gang(job_id)
    made.plan()
    return made


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"train": {"epochs": 0}}, "train.epochs", "train.epochs: must be greater than or equal"),
        ({"train": {"epoch": 1}}, "train.epoch", "no such field; there are accelerate, batch_rows"),
        ({"promote": {"corpus": {}}}, "promote.corpus", "promote.corpus: a corpus is"),
        ({"lora": {"rank": 4}}, "lora.rank", "no such field; there are alpha, dropout, merge, r"),
        ({"machines": "4..2"}, "machines", "must be a range such as 2..4, not 4..2"),
        ({"classify": {}}, "classify", "classify: no such field; there are architecture, base"),
        ({"model": "a b"}, "model", "model: must be 1 to 96 letters"),
        ({"base": None}, None, "a fine-tune starts from a `base`, or from scratch"),
        ({"base": "../x"}, "base", "a model is name@version"),
        ({"base": "nobody@2"}, "base", "nobody"),
        (
            {"train": {"accelerate": {"num_machines": 2}}},
            "train.accelerate.num_machines",
            "must not be given: which machines, ranks, processes and addresses take part",
        ),
        (
            {"train": {"accelerate": {"deepspeed_config": {"deepspeed_hostfile": "x"}}}},
            "train.accelerate.deepspeed_config.deepspeed_hostfile",
            "deepspeed_hostfile: must not be given",
        ),
        (
            {"train": {"accelerate": {"deepspeed_config": {}, "fsdp_config": {}}}},
            "train.accelerate.fsdp_config",
            "not both",
        ),
        (
            {"train": {"accelerate": {"fsdp": {}}}},
            "train.accelerate.fsdp",
            "no such entry; there are debug, deepspeed_config",
        ),
    ],
)
def test_a_bad_recipe_is_refused_by_the_path_of_its_field(
    tenant: Tenant, fields: dict[str, Any], param: str | None, message: str
) -> None:
    spec = {"kind": "finetune", "base": "/m", "model": "news", "corpus": {"file": tenant.upload()}}
    answer = tenant.http.post("/v1/jobs", json=spec | fields)
    assert answer.status_code in {400, 404}
    assert (_error(answer)["param"], message in _error(answer)["message"]) == (param, True), (
        answer.text
    )


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("corpus", "corpus.file"),
        ("validation", "validation.file"),
        ("test", "test.file"),
        ("promote", "promote.corpus.file"),
    ],
)
def test_every_corpus_of_a_spec_must_be_there(tenant: Tenant, field: str, param: str) -> None:
    missing: dict[str, Any] = {"file": "file-none"}
    fields = {field: {"corpus": missing} if field == "promote" else missing}
    spec = tenant.spec(kind="finetune", base="/m", model="news", **fields)
    answer = tenant.http.post("/v1/jobs", json=spec)
    assert (answer.status_code, _error(answer)["code"]) == (404, "file_not_found")
    assert _error(answer)["param"] == param


def test_every_uri_of_a_spec_must_be_allowed(tenant: Tenant) -> None:
    spec = tenant.spec(kind="finetune", base="/m", model="n", test={"uri": "file:///etc/passwd"})
    error = _error(tenant.http.post("/v1/jobs", json=spec))
    assert (error["code"], error["param"]) == ("corpus_refused", "test.uri")


def test_an_accelerate_config_may_say_what_is_the_recipes(tenant: Tenant) -> None:
    recipe = {"debug": True, "fsdp_config": {"fsdp_version": 2}}
    spec = tenant.job(tenant.train(train={"accelerate": recipe}))["spec"]
    assert spec["train"]["accelerate"] == recipe


def test_the_entries_that_are_taken_are_those_that_the_launcher_knows() -> None:
    assert accelerate_entries.TAKEN == launch.ALLOWED
    refused = {*launch.OWNED, *launch.LAUNCHER_ENTRIES}
    assert refused <= set(accelerate_entries.REFUSED_OF_DEEPSPEED)


def test_a_job_that_has_no_gang_yet_says_what_it_waits_for(tenant: Tenant, job_id: str) -> None:
    job = tenant.job(job_id)
    assert (job["kind"], job["state"], job["model"]) == ("finetune", "queued", "news")
    training = job["training"]
    assert (training["run"], training["step"], training["steps_total"]) == (None, 0, None)
    assert (training["loss"], training["evaluation"], training["splits"]) == (None, {}, {})
    assert job["waiting_reason"]


def test_a_running_job_tells_its_step_its_numbers_and_when_it_ends(
    tenant: Tenant, job_id: str, gang: Gang
) -> None:
    gang.form(machines=2)
    gang.measure([(10, {"loss": 2.0, "samples_per_second": 800.0})])
    time.sleep(0.6)
    gang.measure([(20, {"loss": 1.5, "learning_rate": 5e-5, "validation/macro_f1": 0.9})])
    gang.progress(20)
    job = tenant.job(job_id)
    training = job["training"]
    assert (training["run"], training["state"], training["machines"]) == (1, "running", 2)
    assert (training["step"], training["steps_total"], training["phase"]) == (20, 100, "training")
    assert (training["loss"], training["learning_rate"]) == (1.5, 5e-5)
    assert (training["samples_per_second"], training["evaluation"]) == (800.0, {"macro_f1": 0.9})
    assert 0 < training["rate"] <= 10 / 0.6
    assert training["eta_seconds"] == pytest.approx(80 / training["rate"])
    assert job["eta_seconds"] == training["eta_seconds"]
    assert training["splits"] == {"train": {"rows": 90, "rejected": 0, "examples": []}}
    assert job["rate"] is None


def test_a_run_that_resumed_does_not_show_what_it_has_yet_to_reach_again(
    tenant: Tenant, job_id: str, gang: Gang
) -> None:
    gang.form()
    gang.measure([(40, {"loss": 1.0}), (60, {"loss": 0.5, "validation/loss": 0.6})])
    gang.checkpoint(40)
    gang.progress(60)
    gang.lose("host-1 went silent")
    gang.form()
    training = tenant.job(job_id)["training"]
    assert (training["run"], training["step"], training["loss"]) == (2, 40, 1.0)
    assert training["evaluation"] == {}
    assert (training["faults"], training["run_error"]) == (1, "host-1 went silent")


def test_a_number_that_is_not_finite_is_null(tenant: Tenant, job_id: str, gang: Gang) -> None:
    gang.form()
    gang.measure([(1, {"loss": float("nan"), "validation/perplexity": float("inf")})])
    gang.progress(1)
    training = tenant.job(job_id)["training"]
    assert (training["loss"], training["evaluation"]) == (None, {"perplexity": None})


def test_runs_are_listed_newest_first_with_their_ranks(
    tenant: Tenant, job_id: str, gang: Gang
) -> None:
    first = gang.form(machines=2)
    gang.checkpoint(30)
    gang.lose("rank 0 on host-1 went silent")
    second = gang.form()
    page = _get(tenant, job_id, "runs", limit=1)
    assert (page["has_more"], page["next"]) == (True, 2)
    (run,) = page["data"]
    assert (run["number"], run["from_step"], run["state"]) == (2, 30, "running")
    assert [rank["host"] for rank in run["ranks"]] == second
    (old,) = _get(tenant, job_id, "runs", limit=1, after=2)["data"]
    assert (old["state"], old["reason"]) == ("lost", "rank 0 on host-1 went silent")
    assert [(rank["rank"], rank["host"]) for rank in old["ranks"]] == list(enumerate(first))


def test_checkpoints_are_listed_newest_first(tenant: Tenant, job_id: str, gang: Gang) -> None:
    gang.form()
    gang.checkpoint(10, metric=0.5, best=True)
    gang.checkpoint(20)
    found = _get(tenant, job_id, "checkpoints")["data"]
    assert [(each["step"], each["best"], each["metric"]) for each in found] == [
        (20, False, None),
        (10, True, 0.5),
    ]


def test_a_curve_is_paged_by_step(tenant: Tenant, job_id: str, gang: Gang) -> None:
    gang.form()
    gang.measure([(step, {"loss": 1 / (step + 1), "epoch": step / 10}) for step in range(5)])
    page = _get(tenant, job_id, "points", name="loss", limit=2)
    assert ([point["step"] for point in page["data"]], page["has_more"]) == ([0, 1], True)
    page = _get(tenant, job_id, "points", name="loss", after=page["next"])
    assert [point["step"] for point in page["data"]] == [2, 3, 4]
    assert (page["has_more"], page["next"], page["data"][0]["value"]) == (False, 4, 1 / 3)
    assert _get(tenant, job_id, "points", name="loss", after=4)["next"] == 4


def test_without_a_name_the_newest_point_of_every_curve_is_told(
    tenant: Tenant, job_id: str, gang: Gang
) -> None:
    gang.form()
    gang.measure([(1, {"loss": 2.0, "epoch": 0.1}), (2, {"loss": 1.0})])
    gang.progress(2)
    found = _get(tenant, job_id, "points")["data"]
    assert [(each["name"], each["step"]) for each in found] == [("epoch", 1), ("loss", 2)]


def test_log_lines_are_told_by_rank_and_run_once_they_have_settled(
    tenant: Tenant, job_id: str, gang: Gang
) -> None:
    gang.form(machines=2)
    gang.say("hello", "from zero")
    gang.say("from one", rank=1)
    assert _get(tenant, job_id, "logs")["data"] == []
    wait_until(lambda: len(_get(tenant, job_id, "logs")["data"]) == 3)
    page = _get(tenant, job_id, "logs", limit=2)
    assert [line["text"] for line in page["data"]] == ["hello", "from zero"]
    assert (page["has_more"], page["complete"]) == (True, False)
    rest = _get(tenant, job_id, "logs", after=page["next"])
    assert [(line["rank"], line["text"]) for line in rest["data"]] == [(1, "from one")]
    assert [line["text"] for line in _get(tenant, job_id, "logs", rank=1)["data"]] == ["from one"]
    assert _get(tenant, job_id, "logs", run=2)["data"] == []


def test_a_report_is_there_when_the_job_has_succeeded(
    tenant: Tenant, job_id: str, gang: Gang
) -> None:
    gang.form()
    answer = tenant.http.get(f"/v1/jobs/{job_id}/report")
    assert (answer.status_code, _error(answer)["code"]) == (404, "report_not_ready")
    assert "is running and has no report; wait until" in _error(answer)["message"]
    gang.progress(100)
    promotion = {
        "alias": "champion",
        "promoted": True,
        "reason": "better",
        "metric": "macro_f1",
        "value": 0.9,
        "incumbent": 2,
        "incumbent_value": 0.8,
        "split": "test",
        "rows": 4,
        "min_rows": 0,
        "floors": {"checked": 1, "broken": 0, "checks": [], "unchecked": ["art"]},
    }
    gang.succeed(**trained(promotion=promotion))
    assert _get(tenant, job_id, "report")["validation"] == REPORT
    output = tenant.job(job_id)["output"]
    assert (output["model"], output["version"], output["best_step"]) == ("news@3", 3, 80)
    assert output["promotion"] == promotion
    assert tenant.job(job_id)["training"]["rate"] > 0


def test_a_report_that_is_too_large_for_a_row_is_read_from_its_object(
    tenant: Tenant, fake_workers: FakeWorkers, installation: Installation
) -> None:
    job_id = tenant.submit(kind="evaluate", model="/models/tiny")
    gang = fake_workers.gang(job_id)
    gang.plan()
    gang.form()
    whole = REPORT | {"confusion": [[1] * 300] * 300}
    kept = reports.stored(installation.store, whole, key=f"reports/{job_id}.json")
    gang.succeed(**kept, rows=4)
    assert _get(tenant, job_id, "report") == whole
    installation.store.delete(f"reports/{job_id}.json")
    answer = tenant.http.get(f"/v1/jobs/{job_id}/report")
    assert _error(answer)["code"] == "damaged"
    assert f"the report of {job_id} is gone from the object store" in _error(answer)["message"]


def test_an_evaluation_ends_with_its_report(tenant: Tenant, fake_workers: FakeWorkers) -> None:
    job_id = tenant.submit(kind="evaluate", model="/models/tiny")
    gang = fake_workers.gang(job_id)
    gang.plan()
    gang.form()
    gang.progress(1, total=4, phase="evaluating")
    gang.succeed(report=REPORT, rows=4)
    assert _get(tenant, job_id, "report") == REPORT
    assert tenant.job(job_id)["output"]["rows"] == 4
    assert tenant.job(job_id)["output"]["model"] is None


@pytest.mark.parametrize("what", ["chunks", "results", "output", "verification"])
def test_a_training_job_has_no_rows(tenant: Tenant, job_id: str, what: str) -> None:
    answer = tenant.http.get(f"/v1/jobs/{job_id}/{what}")
    assert (answer.status_code, _error(answer)["code"]) == (404, "not_bulk")
    assert "kind finetune" in _error(answer)["message"]


@pytest.mark.parametrize("what", ["runs", "checkpoints", "points", "logs", "report"])
def test_bulk_work_has_no_runs(tenant: Tenant, what: str) -> None:
    job_id = tenant.submit()
    answer = tenant.http.get(f"/v1/jobs/{job_id}/{what}")
    assert (answer.status_code, _error(answer)["code"]) == (404, "not_training")
    assert tenant.job(job_id)["training"] is None


def test_another_projects_training_is_not_there(stranger: Tenant, job_id: str) -> None:
    for what in ("runs", "points", "logs", "report"):
        answer = stranger.http.get(f"/v1/jobs/{job_id}/{what}")
        assert (answer.status_code, _error(answer)["code"]) == (404, "not_found")


def test_hosts_tell_whose_run_they_work_on_to_its_owner_alone(
    tenant: Tenant, stranger: Tenant, job_id: str, gang: Gang
) -> None:
    (name,) = gang.form()

    def seen(by: Tenant) -> dict[str, Any]:
        hosts = by.http.get("/v1/hosts").json()["data"]
        return next(host for host in hosts if host["name"] == name)

    mine, theirs = seen(tenant), seen(stranger)
    assert (mine["busy"], mine["job"], mine["run"], mine["alive"]) == (True, job_id, 1, True)
    assert (theirs["busy"], theirs["job"], theirs["run"]) == (True, None, None)


def test_the_listing_tells_of_jobs_of_every_kind(tenant: Tenant, job_id: str) -> None:
    bulk = tenant.submit()
    found = tenant.http.get("/v1/jobs").json()["data"]
    assert [(job["id"], job["training"] is None) for job in found] == [
        (bulk, True),
        (job_id, False),
    ]
