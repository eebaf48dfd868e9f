"""The training program: ``python -m workers.training.train W/run.json``, in one process or many.

It reads from top to bottom: set up, resume, check, fit, take the best weights, evaluate and save.
Accelerate handles devices, ranks, mixed precision and, by its config, FSDP and DeepSpeed.
``TrainState`` is what a checkpoint holds (promise P7).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import structlog
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from jobs import logs
from jobs.errors import NightshiftError
from jobs.progress import Beat
from workers.prefetch import prefetch
from workers.training import (
    checkpoint,
    distributed,
    export,
    extreme_rows,
    forward_faults,
    model_init,
    optim,
    reload_check,
    run_config,
    shutdown,
    tokenized_dataset,
)
from workers.training.checkpoint import CheckpointUnusable, TrainState
from workers.training.dataloader import StepLoader, TrainingStep
from workers.training.distributed import RankConsensus, StepDecision
from workers.training.distributed_evaluation import EvaluationProgress, Evaluator
from workers.training.messages import MessageWriter
from workers.training.model_init import BaseModel
from workers.training.objectives.objective import Objective
from workers.training.optim import StepPlan
from workers.training.reload_check import EvaluationSettings, ReloadSample
from workers.training.run_config import RunConfig
from workers.training.shutdown import StopRequest, TrainingStopped
from workers.training.tokenized_dataset import TokenizedSplit
from workers.training.trackers import MetricTracker

log = structlog.get_logger()

CHECKPOINT_SECONDS = 300.0
"""Time between checkpoints, unless the recipe names a number of steps."""


def main(path: Path) -> NoReturn:
    """Run the program and end the process, without tearing the training down."""
    with shutdown.leaving():
        shutdown.die_with_parent()
        logs.configure()
        run = run_config.read(path)
        messages = MessageWriter(run.messages, name=os.environ.get("RANK", "0"))
        stop = StopRequest(run.folder / "stop")
        try:
            training = setup(run, messages=messages, stop=stop)
            train(training)  # the name keeps it alive until the process has ended
            messages.done()
        except NightshiftError as fault:
            messages.fault(fault)
            log.warning("the job itself is at fault", code=fault.code, reason=fault.message)
            shutdown.leave(shutdown.FAULT)
        except CheckpointUnusable as unusable:  # the agent marks it; the next run takes another
            messages.unusable(str(unusable))
            log.warning("the checkpoint cannot be resumed from", reason=str(unusable))
            shutdown.leave(shutdown.CRASHED)
        except TrainingStopped:  # the checkpoint is written, if there was a step to save
            messages.stopped()
            shutdown.leave(shutdown.STOPPED)
        shutdown.leave(shutdown.DONE)
    raise AssertionError("the process has ended")


@dataclass
class TrainingRun:
    """What the phases of the program share."""

    run: RunConfig
    plan: StepPlan
    state: TrainState
    objective: Objective
    loader: StepLoader
    validation: TokenizedSplit
    evaluator: Evaluator
    consensus: RankConsensus
    stop: StopRequest
    messages: MessageWriter
    tracker: MetricTracker


def train(training: TrainingRun) -> None:
    """One run: from the base or a checkpoint to a result and its report."""
    resume(training)
    try:
        check(training)
        fit(training)
        take_best(training)
        evaluate_and_save(training)
    except TrainingStopped:  # all ranks stop at the same step; after a crash no rank waits
        training.state.accelerator.end_training()
        raise
    training.state.accelerator.end_training()


def setup(run: RunConfig, *, messages: MessageWriter, stop: StopRequest) -> TrainingRun:
    """Model, data, optimizer and everything around them, ready for the first step."""
    options = run.spec.train

    def beat() -> None:
        """Before the first step there is nothing to save: a stop ends the program at once."""
        messages.heartbeat()
        if stop.requested:
            raise TrainingStopped

    messages.phase("loading")
    accelerator = distributed.start_accelerator(run)
    base = load_base(run, accelerator, beat=beat)
    messages.phase("tokenizing")
    rows, validation = tokenize(run, base.objective, accelerator, beat=beat)
    plan = StepPlan.of(options, rows=len(rows))
    messages.steps_total = plan.total
    state = prepare(run, base, accelerator, plan=plan)
    budget = optim.budget(options, device=accelerator.device)
    loader = StepLoader(
        objective=base.objective,
        split=rows,
        seed=options.seed,
        batch_rows=options.batch_rows,
        budget=budget,
        rank=accelerator.process_index,
        ranks=accelerator.num_processes,
        pin=accelerator.device.type == "cuda",
    )
    evaluator = Evaluator(
        objective=base.objective,
        tokenizer=base.tokenizer,
        budget=budget,
        max_tokens=base.max_tokens,
        progress=EvaluationProgress(messages, stop, single_process=accelerator.num_processes == 1),
    )
    return TrainingRun(
        run=run,
        plan=plan,
        state=state,
        objective=base.objective,
        loader=loader,
        validation=validation,
        evaluator=evaluator,
        consensus=RankConsensus(accelerator),
        stop=stop,
        messages=messages,
        tracker=MetricTracker(messages),
    )


def load_base(run: RunConfig, accelerator: Accelerator, *, beat: Beat) -> BaseModel:
    """The model that training starts from; one process of each host builds it from scratch."""
    if run.spec.architecture is not None:
        distributed.once_per_host(
            accelerator, lambda: model_init.build_scratch(run), done=run.origin.is_dir, beat=beat
        )
    return model_init.load(run)


def tokenize(
    run: RunConfig, objective: Objective, accelerator: Accelerator, *, beat: Beat
) -> tuple[TokenizedSplit, TokenizedSplit]:
    """The training and validation rows; one process of each host tokenizes them."""
    distributed.once_per_host(
        accelerator,
        lambda: tokenized_dataset.write(
            run.data, to=run.tokens, encoder=objective, spec=run.spec, beat=beat
        ),
        done=run.tokens.is_dir,
        beat=beat,
    )
    rows = tokenized_dataset.required(run.tokens, tokenized_dataset.TRAIN)
    validation = tokenized_dataset.required(run.tokens, tokenized_dataset.VALIDATION)
    if run.spec.train.class_weights == "balanced":
        objective.balance(rows)
    return rows, validation


def prepare(
    run: RunConfig, base: BaseModel, accelerator: Accelerator, *, plan: StepPlan
) -> TrainState:
    """Model, optimizer and scheduler, wrapped by Accelerate for this rank."""
    options = run.spec.train
    optimizer = optim.optimizer(base.model, run.spec, device=accelerator.device)
    scheduler = optim.scheduler(optimizer, options, total=plan.total)
    model, optimizer, scheduler = accelerator.prepare(base.model, optimizer, scheduler)
    set_seed(options.seed, device_specific=True)  # dropout differs between ranks
    return TrainState.begin(accelerator, model=model, optimizer=optimizer, scheduler=scheduler)


def resume(training: TrainingRun) -> None:
    """Load the checkpoint in ``resume``, if there is one."""
    run, state = training.run, training.state
    if state.accelerator.is_local_main_process:
        for torn in run.checkpoints.glob("*.tmp"):
            shutil.rmtree(torn)
    if not run.resume.exists():
        return
    exact = state.load(run.resume)
    training.messages.step = state.counters.step
    log.info("resumed", step=state.counters.step)
    if not exact:
        log.warning("another number of ranks wrote the checkpoint: bits may differ from now on")
    if state.accelerator.is_local_main_process:
        checkpoint.delete_later(run.checkpoints, step=state.counters.step)


def check(training: TrainingRun) -> None:
    """Fail the job now, not at some step, for rows that this model cannot compute."""
    state = training.state
    test = tokenized_dataset.read(training.run.tokens, tokenized_dataset.TEST)
    splits = [training.loader.split, training.validation]
    extreme_rows.check(
        state.model if state.sharded else state.module,
        training.objective,
        [*splits, test] if test is not None and len(test) else splits,
        budget=training.evaluator.budget,
        beat=training.messages.heartbeat,
    )


def fit(training: TrainingRun) -> None:
    """Take optimizer steps to the end of the plan, or until a stop is requested."""
    state, plan, counters = training.state, training.plan, training.state.counters
    training.messages.phase("training")
    save_at = time.monotonic() + CHECKPOINT_SECONDS
    state.model.train()
    if counters.evaluation_due:
        counters.evaluation_due = False
        evaluate_or_save(training, decision=StepDecision(stop=False, save=False))
    training.tracker.begin()
    with prefetch(training.loader.steps(epoch=counters.epoch, place=counters.place)) as steps:
        while counters.step < plan.total and not counters.ended_early:
            step = next(steps)
            norm = optimize(training, step)
            counters.advance(epoch_steps=plan.epoch_steps)
            training.messages.step = counters.step
            training.messages.heartbeat()
            training.tracker.count(step)
            if plan.reports(counters.step):
                training.tracker.point(state, norm=norm, epoch_steps=plan.epoch_steps)
            due = plan.checkpoint_every is None and time.monotonic() > save_at
            decision = training.consensus.after_step(stop=training.stop.requested, save=due)
            started = time.monotonic()
            if evaluate_or_save(training, decision=decision):
                training.tracker.exclude(time.monotonic() - started)
                save_at = time.monotonic() + CHECKPOINT_SECONDS
            if decision.stop:
                raise TrainingStopped


def optimize(training: TrainingRun, step: TrainingStep) -> torch.Tensor | None:
    """One optimizer step; returns the gradient norm before clipping, on the device.

    Accelerate averages gradients over ranks, so each rank scales its losses by the world size.
    """
    state, accelerator = training.state, training.state.accelerator
    scale = accelerator.num_processes / step.weight if step.counts else 0.0
    for number, batch in enumerate(step.batches, start=1):
        last = number == len(step.batches)
        accelerator.sync_gradients = last
        with nullcontext() if last else accelerator.no_sync(state.model):
            on_device = batch.to(accelerator.device)
            with forward_faults.of_model():
                logits = state.model(**on_device.inputs).logits
                losses = training.objective.losses(logits, on_device, weighted=True)
                loss = losses.sum() * scale
            accelerator.backward(loss)
        state.window.loss += loss.detach() / accelerator.num_processes
        training.messages.heartbeat()
    options = training.run.spec.train
    norm: torch.Tensor | None = accelerator.clip_grad_norm_(
        state.model.parameters(), options.max_grad_norm
    )
    state.optimizer.step()
    state.scheduler.step()
    state.optimizer.zero_grad()
    state.window.steps += 1
    return norm


def evaluate_or_save(training: TrainingRun, *, decision: StepDecision) -> bool:
    """After a step: evaluate and save, only save, or do nothing and return ``False``."""
    step = training.state.counters.step
    if training.plan.evaluates(step):
        try:
            value, best = validate(training)
        except TrainingStopped:
            training.state.counters.evaluation_due = True
            save(training, value=None, best=False)
            raise
        save(training, value=value, best=best)
    elif decision.stop or decision.save or training.plan.saves(step):
        save(training, value=None, best=False)
    else:
        return False
    training.messages.phase("training")
    return True


def validate(training: TrainingRun) -> tuple[float | None, bool]:
    """The metric on the validation rows, and whether it is the best so far."""
    training.messages.phase("evaluating")
    metric = training.run.spec.metric
    generate = metric in optim.GENERATION_METRICS
    report = training.evaluator.report(training.state, training.validation, generate=generate)
    training.tracker.evaluation(training.state, report)
    counters, value = training.state.counters, report[metric]
    if optim.better(metric, value, than=counters.best):
        counters.best, counters.best_step = value, counters.step
        counters.evaluations_without_better = 0
        return value, True
    counters.evaluations_without_better += 1
    patience = training.run.spec.train.patience
    counters.ended_early = patience is not None and counters.evaluations_without_better >= patience
    return value, False


def save(training: TrainingRun, *, value: float | None, best: bool) -> None:
    """Save a checkpoint of this step, then delete old ones, but not the best."""
    training.messages.phase("saving")
    counters, run = training.state.counters, training.run
    folder = run.checkpoint(counters.step)
    training.state.save(folder)
    if training.state.accelerator.is_local_main_process:
        training.messages.checkpoint(folder.name, metric=value, best=best)
        checkpoint.delete_old(run.checkpoints, best_step=counters.best_step)


def take_best(training: TrainingRun) -> None:
    """Load the weights of the best evaluation."""
    state, run = training.state, training.run
    best = state.counters.best_step
    if best is None or best == state.counters.step:
        return
    candidates = (run.checkpoint(best), run.best, run.resume)
    folder = next((each for each in candidates if checkpoint.step_of(each) == best), None)
    if state.sharded or state.accelerator.is_main_process:
        if folder is None:
            raise RuntimeError(f"the best checkpoint, of step {best}, is not in the work folder")
        state.load_weights(folder)
    if not state.sharded and state.accelerator.num_processes > 1:
        for tensor in state.module.state_dict().values():
            torch.distributed.broadcast(tensor, src=0)


def evaluate_and_save(training: TrainingRun) -> None:
    """Report on the validation and test rows, export the model, and check its files (P13)."""
    run, state = training.run, training.state
    training.messages.phase("evaluating")
    reports = {"validation": training.evaluator.report(state, training.validation, generate=True)}
    test = tokenized_dataset.read(run.tokens, tokenized_dataset.TEST)
    if test is not None and len(test):
        reports["test"] = training.evaluator.report(state, test, generate=True)
    sample = ReloadSample.of(run)
    losses = training.evaluator.losses(state, sample.rows, rows=len(sample.texts))
    training.messages.phase("saving")
    if state.accelerator.is_main_process:
        text = json.dumps(reports, ensure_ascii=False)
        (run.folder / "report.json").write_text(text + "\n")
        steps = {"steps": state.counters.step, "best_step": state.counters.best_step}
        (run.folder / "steps.json").write_text(json.dumps(steps) + "\n")
    export.save(state, tokenizer=training.evaluator.tokenizer, run=run)
    if state.accelerator.is_main_process:
        assert losses is not None
        reload_check.check(run, sample, losses=losses, settings=evaluation_settings(training))
    distributed.barrier(state.accelerator, beat=training.messages.heartbeat)


def evaluation_settings(training: TrainingRun) -> EvaluationSettings:
    """How the evaluation was computed, so that ``reload_check`` repeats it."""
    accelerator = training.state.accelerator
    return EvaluationSettings(
        device=accelerator.device,
        autocast=accelerator.autocast,
        budget=training.evaluator.budget,
        max_tokens=training.evaluator.max_tokens,
        beat=training.messages.heartbeat,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
