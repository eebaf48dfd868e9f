"""Fine-tunes from submit to a registered version, in real processes."""

from __future__ import annotations

from jobs.states import JobState, RunState
from tests.workers.gang.trainer import Trainer, jsonl, labelled

LONG = {"epochs": 20, "evaluate_steps": 100, "checkpoint_steps": 25}


def test_a_finetune_ends_as_a_version_with_its_evaluation_and_lineage(trainer: Trainer) -> None:
    job_id = trainer.submit(train={"epochs": 12, "learning_rate": 3e-3})
    output = trainer.succeeded(job_id).job.output
    assert output is not None
    version = trainer.version(job_id)
    assert output["model"] == f"news@{version.version}"
    assert output["steps"] == max(each.step for each in trainer.checkpoints(job_id))
    assert 0 < output["best_step"] <= output["steps"]
    assert version.metrics["validation"]["accuracy"] > 0.8
    assert version.lineage["job"] == job_id
    assert version.lineage["base"]["reference"] == str(trainer.installation.model)
    assert {file["path"] for file in version.files} >= {"config.json", "model.safetensors"}
    assert [run.state for run in trainer.runs(job_id)] == [RunState.SUCCEEDED]
    losses = trainer.curve(job_id)
    assert losses[max(losses)] < losses[min(losses)]


def test_two_hosts_train_one_model(trainer: Trainer) -> None:
    job_id = trainer.submit(machines=2)
    trainer.succeeded(job_id)
    assert trainer.runs(job_id)[0].machines == 2


def test_an_evaluation_ends_with_a_report(trainer: Trainer) -> None:
    trained = trainer.submit(model="judged")
    trainer.succeeded(trained)
    job_id = trainer.installation.submit(jsonl(labelled(30)), kind="evaluate", model="judged@1")
    output = trainer.succeeded(job_id).job.output
    assert output is not None
    assert output["rows"] == 30
    assert len(output["report"]["confusion"]) == 3


def test_a_paused_job_makes_a_checkpoint_and_goes_on_from_it(trainer: Trainer) -> None:
    undisturbed = trainer.submit(train=LONG, model="calm")
    trainer.succeeded(undisturbed)
    job_id = trainer.submit(train=LONG, model="paused")
    trainer.wait_for_step(job_id, 15)
    trainer.pause(job_id)
    trainer.wait_until_idle(job_id)
    assert trainer.runs(job_id)[0].state is RunState.PREEMPTED
    at = trainer.checkpoints(job_id)[-1].step
    trainer.resume(job_id)
    trainer.succeeded(job_id)
    assert trainer.runs(job_id)[1].checkpoint_id == trainer.checkpoint_at(job_id, at)
    assert trainer.weights(job_id) == trainer.weights(undisturbed)
    assert trainer.curve(job_id) == trainer.curve(undisturbed)


def test_a_host_that_is_stopped_together_with_control_loses_no_step(trainer: Trainer) -> None:
    longer = {**LONG, "epochs": 40, "checkpoint_steps": 2000, "evaluate_steps": 2000}
    undisturbed = trainer.submit(train=longer, model="kept")
    trainer.succeeded(undisturbed)
    job_id = trainer.submit(train=longer, model="drained")
    trainer.wait_for_step(job_id, 1)
    trainer.installation.stop_role("control")
    host = trainer.host_of(trainer.runs(job_id)[0])
    trainer.hosts[host].stop(seconds=60)
    (run,) = trainer.runs(job_id)
    (checkpoint,) = trainer.checkpoints(job_id)
    assert checkpoint.step == run.step  # no step is repeated
    trainer.installation.start_role("control")
    trainer.start(host)
    trainer.succeeded(job_id)
    assert [run.state for run in trainer.runs(job_id)] == [RunState.PREEMPTED, RunState.SUCCEEDED]
    assert trainer.weights(job_id) == trainer.weights(undisturbed)
    assert trainer.curve(job_id) == trainer.curve(undisturbed)


def test_a_cancelled_job_frees_its_hosts(trainer: Trainer) -> None:
    job_id = trainer.submit(train={"epochs": 300})
    trainer.wait_for_step(job_id, 5)
    trainer.cancel(job_id)
    view = trainer.installation.wait(job_id, seconds=60)
    assert view.job.state is JobState.CANCELLED
    trainer.succeeded(trainer.submit())
