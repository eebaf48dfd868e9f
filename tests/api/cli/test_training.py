"""``nightshift finetune``, ``evaluate``, ``hosts``, and ``jobs`` of those kinds."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.api.cli.conftest import Run
from tests.api.server.conftest import FakeWorkers
from tests.api.server.gang import REPORT, Gang, trained
from tests.api.server.installation import Tenant
from tests.support.waiting import wait_until

PROMOTION = {
    "alias": "champion",
    "promoted": False,
    "reason": "not better by more than 0.01",
    "metric": "macro_f1",
    "value": 0.7333,
    "incumbent": "news@2",
    "incumbent_value": 0.91,
}


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    path = tmp_path / "labelled.csv"
    path.write_text("text,label\none,news\ntwo,sport\n", encoding="utf-8")
    return path


@pytest.fixture
def job_id(tenant: Tenant) -> str:
    return tenant.train()


@pytest.fixture
def gang(fake_workers: FakeWorkers, job_id: str) -> Gang:
    made = fake_workers.gang(job_id)
    made.plan(rejected=2)
    return made


def _newest(tenant: Tenant) -> str | None:
    jobs = tenant.http.get("/v1/jobs").json()["data"]
    return jobs[0]["id"] if jobs else None


def _meanwhile(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def _spec(tenant: Tenant, job_id: str) -> dict[str, Any]:
    return dict(tenant.job(job_id)["spec"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv", "--base", "/m", "--name", "n"], "there is no file nowhere.csv"),
        (["labelled.csv", "--base", "/m"], "--name must say under which name"),
        (["labelled.csv", "--name", "n"], "a fine-tune starts from a --base, or from scratch"),
        (
            ["labelled.csv", "--name", "n", "--base", "/m", "--architecture", "lstm"],
            "give exactly one",
        ),
        (["labelled.csv", "--name", "n", "--base", "a/b"], "there is no model folder a/b; a model"),
        (["labelled.csv", "--name", "n", "--base", "/m", "--machines", "two"], "such as 2..4"),
        (["labelled.csv", "--name", "n", "--base", "/m", "--epochs", "0"], "--epochs must be"),
        (["labelled.csv", "--name", "n", "--base", "/m", "--test", "no"], "there is no file no"),
        (
            ["labelled.csv", "--name", "n", "--base", "/m", "--promote-margin", "0.1"],
            "need --promote ALIAS",
        ),
        (["labelled.csv", "--spec", "none.json"], "there is no file none.json"),
        (["labelled.csv", "--spec", "labelled.csv"], "must be JSON, or YAML if its name says so"),
        (
            ["labelled.csv", "--name", "n", "--base", "/m", "--accelerate-config", "bad.yaml"],
            "--accelerate-config fdsp_config: no such entry",
        ),
    ],
)
def test_a_bad_recipe_is_one_line_and_nothing_is_uploaded(
    run: Run, tenant: Tenant, labelled: Path, arguments: list[str], message: str
) -> None:
    labelled.with_name("bad.yaml").write_text("fdsp_config: {}\n", encoding="utf-8")
    ran = run("finetune", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert tenant.http.get("/v1/files").json()["data"] == []


def test_the_options_reach_the_spec(run: Run, tenant: Tenant, labelled: Path) -> None:
    labelled.write_text("body,topics\none,news|home\n", encoding="gb18030")
    ran = run(
        *("finetune", str(labelled), "--base", "hf:org/name", "--name", "news"),
        *("--task", "classify", "--multi-label", "--text-column", "body"),
        *("--target-column", "topics", "--format", "csv", "--encoding", "gb18030"),
        *("--epochs", "2", "--max-steps", "50", "--batch-rows", "8", "--learning-rate", "1e-4"),
        *("--seed", "7", "--max-tokens", "64", "--class-weights", "--mixed-precision", "bf16"),
        *("--evaluate-steps", "5", "--checkpoint-steps", "10", "--metric", "accuracy"),
        *("--patience", "3", "--machines", "2..4", "--lora", "--lora-r", "4", "--lora-merge"),
        *("--promote", "best", "--promote-metric", "accuracy", "--promote-margin", "0.01"),
        *("--promote-newest", "10%", "--promote-min-rows", "50", "--promote-keep-rejected", "3"),
        *("--promote-floors-recall-drop", "0.02", "--promote-floors-rows", "5"),
        *("--promote-keep-rejected-for", "14d", "--labels", 'home, "a, b",news'),
        *("--new-labels", "add", "--pool", "gpu", "--priority", "5"),
    )
    assert ran.code == 0, ran.err
    spec = _spec(tenant, ran.out.strip())
    assert (spec["base"], spec["model"], spec["multi_label"]) == ("hf:org/name", "news", True)
    assert (spec["corpus"]["text_column"], spec["corpus"]["target_column"]) == ("body", "topics")
    assert (spec["corpus"]["format"], spec["corpus"]["encoding"]) == ("csv", "gb18030")
    recipe = spec["train"]
    assert (recipe["epochs"], recipe["max_steps"], recipe["batch_rows"]) == (2, 50, 8)
    assert (recipe["learning_rate"], recipe["seed"], recipe["max_tokens"]) == (1e-4, 7, 64)
    assert (recipe["class_weights"], recipe["mixed_precision"]) == ("balanced", "bf16")
    assert (recipe["evaluate_steps"], recipe["checkpoint_steps"]) == (5, 10)
    assert (recipe["metric"], recipe["patience"]) == ("accuracy", 3)
    assert spec["machines"] == {"min": 2, "max": 4}
    assert (spec["lora"]["r"], spec["lora"]["merge"]) == (4, True)
    assert (spec["promote"]["alias"], spec["promote"]["metric"]) == ("best", "accuracy")
    assert (spec["promote"]["margin"], spec["promote"]["corpus"]) == (0.01, None)
    assert (spec["promote"]["newest"], spec["promote"]["min_rows"]) == ("10%", 50)
    assert spec["promote"]["floors"] == {
        **dict.fromkeys(("recall", "precision", "f1", "precision_drop", "f1_drop")),
        "recall_drop": 0.02,
        "rows": 5,
    }
    assert (spec["promote"]["keep_rejected"], spec["promote"]["keep_rejected_for"]) == (3, "14d")
    assert (spec["labels"], spec["new_labels"]) == (["home", "a, b", "news"], "add")
    assert (spec["pool"], spec["priority"]) == ("gpu", 5)


def test_what_is_not_said_is_the_specs_default(run: Run, tenant: Tenant, labelled: Path) -> None:
    ran = run("finetune", str(labelled), "--architecture", "textcnn", "--name", "news")
    spec = _spec(tenant, ran.out.strip())
    assert (spec["architecture"], spec["base"], spec["pool"]) == ("textcnn", None, "train")
    assert (spec["train"]["epochs"], spec["lora"], spec["promote"]) == (3, None, None)


def test_local_files_are_uploaded_each_once(run: Run, tenant: Tenant, labelled: Path) -> None:
    other = labelled.with_name("other.csv")
    other.write_bytes(labelled.read_bytes())
    ran = run(
        *("finetune", str(labelled), "--base", "/m", "--name", "news", "--validation", str(other)),
        *("--test", "file:///allowed/test.csv", "--promote", "best", "--promote-on", str(other)),
    )
    assert ran.code == 0, ran.err
    spec = _spec(tenant, ran.out.strip())
    assert spec["test"]["uri"] == "file:///allowed/test.csv"
    assert spec["validation"]["file"] == spec["promote"]["corpus"]["file"]
    assert spec["corpus"]["file"] != spec["validation"]["file"]
    assert len(tenant.http.get("/v1/files").json()["data"]) == 2


def test_a_spec_file_says_the_rest_and_options_overrule_it(
    run: Run, tenant: Tenant, labelled: Path, tmp_path: Path
) -> None:
    labelled.write_text("body,label\none,news\n")
    (tmp_path / "recipe.json").write_text(
        json.dumps(
            {
                "model": "news",
                "base": "/m",
                "corpus": {"uri": "s3://elsewhere/x", "text_column": "body"},
                "train": {"epochs": 9, "warmup": 0.2},
            }
        )
    )
    ran = run("finetune", str(labelled), "--spec", "recipe.json", "--epochs", "1")
    assert ran.code == 0, ran.err
    spec = _spec(tenant, ran.out.strip())
    assert (spec["train"]["epochs"], spec["train"]["warmup"], spec["model"]) == (1, 0.2, "news")
    assert (spec["corpus"]["uri"], spec["corpus"]["text_column"]) == (None, "body")


def test_an_accelerate_config_gives_its_recipe_and_leaves_the_gang_alone(
    run: Run, tenant: Tenant, labelled: Path, tmp_path: Path
) -> None:
    (tmp_path / "fsdp.yaml").write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\nmixed_precision: bf16\n"
        "num_machines: 1\nmachine_rank: 0\nfsdp_config:\n  fsdp_version: 2\n"
    )
    ran = run(
        *("finetune", str(labelled), "--base", "/m", "--name", "news"),
        *("--accelerate-config", "fsdp.yaml"),
    )
    assert ran.code == 0, ran.err
    recipe = _spec(tenant, ran.out.strip())["train"]
    assert recipe["accelerate"] == {"fsdp_config": {"fsdp_version": 2}}
    assert recipe["mixed_precision"] == "bf16"
    assert "compute_environment, distributed_type, machine_rank, num_machines" in ran.err


def test_a_fine_tune_is_watched_to_its_report(
    run: Run, tenant: Tenant, fake_workers: FakeWorkers, labelled: Path
) -> None:
    def work() -> None:
        wait_until(lambda: _newest(tenant))
        gang = fake_workers.gang(str(_newest(tenant)))
        gang.plan()
        gang.form(machines=2)
        gang.measure([(50, {"validation/macro_f1": 0.7})])
        gang.progress(100)
        gang.succeed(**trained(promotion=PROMOTION))

    worker = _meanwhile(work)
    ran = run("finetune", str(labelled), "--base", "/m", "--name", "news", "--watch")
    worker.join()
    assert ran.code == 4, ran.err
    assert ran.err.endswith("news@3 was not promoted: not better by more than 0.01\n")
    assert "succeeded: 100 steps" in ran.out
    assert "validation: 4 rows, accuracy 0.7500, macro F1 0.7333" in ran.out
    assert "test: 4 rows, accuracy 0.5000" in ran.out
    assert "LABEL  ROWS  PRECISION  RECALL  F1" in ran.out
    assert "sport  2     1.0000     0.5000  0.6667" in ran.out
    assert "sport  1     1" in ran.out  # of the confusion matrix
    assert "registered news@3, 4.0 KiB, the weights of step 80, 100 steps trained" in ran.out
    assert ran.out.splitlines()[-2:] == [
        "champion: still news@2, macro_f1 0.7333 of news@3 against 0.9100 of news@2",
        "  not better by more than 0.01",
    ]
    assert ran.out.index("\nvalidation: ") < ran.out.index("\ntest: ")


def test_json_tells_not_promoted_from_succeeded(run: Run, job_id: str, gang: Gang) -> None:
    gang.form()
    gang.succeed(**trained(promotion=PROMOTION))
    ran = run("jobs", "watch", job_id, "--json")
    told = json.loads(ran.out)
    assert (ran.code, told["outcome"], told["state"]) == (4, "not_promoted", "succeeded")
    assert told["output"]["promotion"]["reason"] == PROMOTION["reason"]


def test_a_promoted_version_is_a_success(run: Run, job_id: str, gang: Gang) -> None:
    gang.form()
    gang.succeed(**trained(promotion={**PROMOTION, "promoted": True}))
    ran = run("jobs", "watch", job_id, "--json")
    assert (ran.code, json.loads(ran.out)["outcome"]) == (0, "succeeded")


def test_the_labels_of_a_version_are_named_by_it(run: Run, tenant: Tenant, labelled: Path) -> None:
    ran = run(
        *("finetune", str(labelled), "--base", "/m", "--name", "news"),
        *("--labels", "news@champion"),
    )
    assert _spec(tenant, ran.out.strip())["labels"] == "news@champion"


def test_an_evaluation_is_watched_to_its_report(
    run: Run, tenant: Tenant, fake_workers: FakeWorkers, labelled: Path
) -> None:
    def work() -> None:
        wait_until(lambda: _newest(tenant))
        gang = fake_workers.gang(str(_newest(tenant)))
        gang.plan()
        gang.form()
        gang.succeed(report=REPORT, rows=4)

    worker = _meanwhile(work)
    ran = run(
        *("evaluate", str(labelled), "--model", "/models/tiny", "--max-tokens", "32"),
        *("--target-column", "label", "--watch", "--json"),
    )
    worker.join()
    assert ran.code == 0, ran.err
    job = json.loads(ran.out)
    assert (job["kind"], job["report"]) == ("evaluate", REPORT)
    assert (job["spec"]["max_tokens"], job["spec"]["corpus"]["target_column"]) == (32, "label")


def test_an_evaluation_needs_a_model(run: Run, labelled: Path) -> None:
    ran = run("evaluate", str(labelled))
    assert (ran.code, ran.err) == (2, "nightshift: --model must say which model is evaluated\n")


def test_a_training_job_is_listed_and_shown_by_its_steps(run: Run, job_id: str, gang: Gang) -> None:
    (host,) = gang.form()
    gang.measure([(20, {"loss": 0.25, "learning_rate": 5e-5, "validation/accuracy": 0.5})])
    gang.progress(20)
    assert "20/100 steps" in run("jobs", "list").out
    shown = run("jobs", "show", job_id).out
    assert "90 train (2 rejected)" in shown
    assert "run 1 on 1 host\n" in shown
    assert "loss 0.2500, learning rate 5e-05" in shown
    assert "accuracy 0.5000" in shown
    hosts = run("hosts", "list").out
    line = next(line for line in hosts.splitlines() if line.startswith(host))
    assert f"run 1 of {job_id}" in line
    assert host in {each["name"] for each in json.loads(run("hosts", "list", "--json").out)}


def test_an_evaluation_counts_rows_and_no_steps(
    run: Run, tenant: Tenant, job_id: str, gang: Gang
) -> None:
    gang.form()
    gang.progress(100)
    gang.evaluate(0, total=110)
    gang.evaluate(55, total=110)
    training = tenant.http.get(f"/v1/jobs/{job_id}").json()["training"]
    assert (training["step"], training["steps_total"]) == (100, 100)
    assert training["evaluated"] == {"rows": 55, "rows_total": 110, "under_way": True}
    shown = run("jobs", "show", job_id).out
    assert re.search(r"^done +100/100 steps$", shown, re.MULTILINE)
    assert re.search(r"^evaluated +55/110 rows$", shown, re.MULTILINE)
    assert "100/100 steps" in run("jobs", "list").out
    gang.progress(100, phase="saving")
    assert "55/110" not in run("jobs", "show", job_id).out


def test_rows_that_were_left_out_are_shown_with_their_lines(
    run: Run, tenant: Tenant, job_id: str, fake_workers: FakeWorkers
) -> None:
    gang = fake_workers.gang(job_id)
    gang.plan(rejected=25)
    split = tenant.http.get(f"/v1/jobs/{job_id}").json()["training"]["splits"]["train"]
    assert split["rejected"] == 25
    first = {"line": 2, "code": "bad_row", "message": "line 2 is bad", "source": None}
    assert split["examples"][0] == first
    assert len(split["examples"]) == 20
    (listed,) = tenant.http.get("/v1/jobs").json()["data"]
    assert listed["training"]["splits"]["train"]["examples"] == []
    shown = run("jobs", "show", job_id).out
    assert "25 train rows were left out, the first 20 of them:" in shown
    assert shown.count("is bad\n") == 20


def test_runs_checkpoints_and_curves_are_listed(run: Run, job_id: str, gang: Gang) -> None:
    (first,) = gang.form()
    gang.checkpoint(30, metric=0.5, best=True)
    gang.measure([(30, {"loss": 0.5}), (40, {"loss": 0.25, "epoch": 1.0})])
    gang.progress(40)
    gang.lose("rank 0 went silent")
    gang.form()
    newest, lost = run("jobs", "runs", job_id).out.splitlines()[1:]
    assert newest.split()[:3] == ["2", "running", "30"]
    assert first in lost
    assert lost.endswith("rank 0 went silent")
    assert run("jobs", "checkpoints", job_id).out.splitlines()[1].split()[:3] == [
        "30",
        "best",
        "0.5000",
    ]
    (point,) = run("jobs", "points", job_id).out.splitlines()[1:]
    assert point.split()[:4] == ["loss", "30", "0.5", "1"]
    curve = json.loads(run("jobs", "points", job_id, "--name", "loss", "--json").out)
    assert [each["step"] for each in curve] == [30, 40]
    assert len(json.loads(run("jobs", "runs", job_id, "--json").out)) == 2
    assert len(json.loads(run("jobs", "checkpoints", job_id, "--json").out)) == 1


def test_logs_are_followed_until_the_job_has_ended(
    run: Run, tenant: Tenant, job_id: str, gang: Gang
) -> None:
    gang.form(machines=2)
    gang.say("loading")

    def work() -> None:
        wait_until(lambda: tenant.http.get(f"/v1/jobs/{job_id}/logs").json()["data"])
        gang.say("training", rank=1)
        gang.succeed(**trained())

    worker = _meanwhile(work)
    lines = run("jobs", "logs", job_id, "--follow").out.splitlines()
    worker.join()
    assert [line.split(maxsplit=2)[2] for line in lines] == [
        "run 1 rank 0  loading",
        "run 1 rank 1  training",
    ]
    (line,) = run("jobs", "logs", job_id, "--rank", "1", "--json").out.splitlines()
    assert (json.loads(line)["text"], json.loads(line)["rank"]) == ("training", 1)


def test_a_report_is_printed_and_before_it_is_there_one_line_says_so(
    run: Run, job_id: str, gang: Gang
) -> None:
    gang.form()
    ran = run("jobs", "report", job_id)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "is running and has no report" in ran.err
    gang.succeed(**trained())
    assert "macro F1 0.7333" in run("jobs", "report", job_id).out
    assert json.loads(run("jobs", "report", job_id, "--json").out)["validation"] == REPORT


def test_commands_for_the_other_kind_of_job_are_one_line(
    run: Run, tenant: Tenant, job_id: str
) -> None:
    bulk = tenant.submit()
    for command, job in (("results", job_id), ("chunks", job_id), ("runs", bulk), ("logs", bulk)):
        ran = run("jobs", command, job)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert "is a job of kind" in ran.err
