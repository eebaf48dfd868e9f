"""The training program: ``python -m workers.training.train W/run.json``, alone or in ranks.

Read it from top to bottom: set up, load or resume, fit, evaluate, save. Accelerate does devices,
ranks, mixed precision and, by its config, FSDP and DeepSpeed; ``TrainState`` is what is saved.
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
from accelerate.utils import (
    DataLoaderConfiguration,
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    set_seed,
)

from jobs import logs
from jobs.errors import JobFailure, NightshiftError
from workers.bulk.prefetch import prefetch
from workers.inference import model_loader
from workers.inference.probes.preflight import check_vocabulary
from workers.training import (
    distributed,
    export,
    faults,
    launch,
    model_init,
    optim,
    preflight,
    reload_check,
    run_config,
    shutdown,
    tasks,
    tokenized_dataset,
)
from workers.training.checkpoint import TrainState, Window, step_of
from workers.training.dataloader import Feed, Step
from workers.training.distributed import Agreement, Wish
from workers.training.messages import Teller
from workers.training.optim import Plan
from workers.training.reload_check import Means, Sample
from workers.training.run_config import Order
from workers.training.shutdown import StopRequest, TrainingStopped
from workers.training.tasks import Family
from workers.training.tokenized_dataset import Tokens
from workers.training.trackers import Curve
from workers.training.validation import Judge

log = structlog.get_logger()

CHECKPOINT_SECONDS = 300.0
"""Between checkpoints at most, where the recipe names no number of steps."""

KEPT = 2
"""Checkpoints that stay on this disk, besides the best: one may still be being uploaded."""


def main(path: Path) -> NoReturn:
    """Run the order and end the process; nothing of the training is torn down before."""
    with shutdown.leaving():
        shutdown.die_with_parent()
        logs.configure()
        order = run_config.read(path)
        teller = Teller(order.folder / "told", name=os.environ.get("RANK", "0"))
        stop = StopRequest(order.folder / "stop")
        try:
            training = setup(order, teller=teller, stop=stop)
            train(training)
            teller.done()
        except NightshiftError as fault:
            teller.fault(fault)
            log.warning("the job itself is at fault", code=fault.code, reason=fault.message)
            shutdown.leave(shutdown.FAULT)
        except TrainingStopped:  # the checkpoint, if there was a step to save, is written
            teller.stopped()
            shutdown.leave(shutdown.STOPPED)
        shutdown.leave(shutdown.DONE)
    raise AssertionError("the process has ended")


def train(training: Training) -> None:
    """One run, from the base or a checkpoint to a result and its report."""
    resume_or_begin(training)
    try:
        check(training)
        fit(training)
        take_best(training)
        evaluate_and_save(training)
    except TrainingStopped:  # all ranks are here, as at the end; after a crash none waits
        training.state.accelerator.end_training()
        raise
    training.state.accelerator.end_training()


@dataclass
class Training:
    """What the parts of the program share."""

    order: Order
    plan: Plan
    state: TrainState
    family: Family
    feed: Feed
    validation: Tokens
    judge: Judge
    metric: str
    agreement: Agreement
    stop: StopRequest
    teller: Teller
    curve: Curve


def setup(order: Order, *, teller: Teller, stop: StopRequest) -> Training:
    """Model, data and everything around them, ready for the first step."""
    options = order.spec.train

    def alive() -> None:
        """Before the first step there is nothing to save: a stop ends the program at once."""
        teller.alive()
        if stop.made:
            raise TrainingStopped

    teller.phase("loading")
    accelerator = start_accelerator(order)
    if order.spec.architecture is not None:
        distributed.once_per_host(
            accelerator,
            lambda: model_init.build_scratch(order),
            made=order.origin.is_dir,
            alive=alive,
        )
    window = model_init.window(order)
    tokenizer = model_loader.tokenizer(order.origin)
    set_seed(options.seed)  # a new head is drawn alike on every rank
    model, new = model_init.model(order)
    check_vocabulary(model, tokenizer, special=True)
    family = tasks.of(
        order.signature,
        tokenizer=tokenizer,
        model=model,
        labels=order.labels,
        max_tokens=window,
    )
    if order.spec.lora is not None:
        model = model_init.adapted(model, order.spec.lora, task=order.spec.task, new=new)

    teller.phase("tokenizing")
    distributed.once_per_host(
        accelerator,
        lambda: tokenized_dataset.write(
            order.data, to=order.tokens, encoder=family, spec=order.spec, alive=alive
        ),
        made=order.tokens.is_dir,
        alive=alive,
    )
    rows = tokenized_dataset.required(order.tokens, tokenized_dataset.TRAIN)
    validation = tokenized_dataset.required(order.tokens, tokenized_dataset.VALIDATION)
    if options.class_weights == "balanced":
        family.balance(rows)

    plan = Plan.of(options, rows=len(rows))
    optimizer = optim.optimizer(model, order.spec, device=accelerator.device)
    scheduler = optim.scheduler(optimizer, options, total=plan.total)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    set_seed(options.seed, device_specific=True)  # dropout differs between ranks
    budget = optim.budget(options, device=accelerator.device)
    teller.steps_total = plan.total
    return Training(
        order=order,
        plan=plan,
        state=TrainState(
            accelerator=accelerator,
            model=model,
            optimizer=optimizer,
            scheduler=scheduler,
            window=Window(torch.zeros((), device=accelerator.device)),
        ),
        family=family,
        feed=Feed(
            family=family,
            tokens=rows,
            seed=options.seed,
            batch_rows=options.batch_rows,
            budget=budget,
            rank=accelerator.process_index,
            ranks=accelerator.num_processes,
            pin=accelerator.device.type == "cuda",
        ),
        validation=validation,
        judge=Judge(
            family=family,
            tokenizer=tokenizer,
            budget=budget,
            max_tokens=window,
            alive=teller.alive,
        ),
        metric=order.spec.metric,
        agreement=Agreement(accelerator),
        stop=stop,
        teller=teller,
        curve=Curve(teller),
    )


def start_accelerator(order: Order) -> Accelerator:
    """Devices and ranks as the launcher says. One scheduler step is one optimizer step."""
    launch.use_interface()
    on_cpu = not torch.accelerator.is_available()
    if on_cpu and order.spec.train.mixed_precision == "fp16":
        raise JobFailure(
            "mixed_precision fp16 needs an accelerator, and this host has none: take bf16 or no",
            code="fp16_needs_accelerator",
        )
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=order.spec.train.mixed_precision,
        log_with="tensorboard",
        project_dir=order.folder,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=distributed.PATIENCE),
            # A model may have weights that its task leaves unused, such as a pooler.
            DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False),
        ],
    )
    if accelerator.num_processes != int(os.environ.get("WORLD_SIZE", "1")):
        raise RuntimeError("the launcher started several ranks, and they do not see each other")
    launch.complete_plugins(accelerator, max_grad_norm=order.spec.train.max_grad_norm)
    accelerator.init_trackers("tensorboard")
    return accelerator


def resume_or_begin(training: Training) -> None:
    """Take the state of the checkpoint in ``resume``, if there is one."""
    order, state = training.order, training.state
    if state.accelerator.is_local_main_process:
        for torn in order.checkpoints.glob("*.tmp"):
            shutil.rmtree(torn)
    if not order.resume.exists():
        return
    exact = state.load(order.resume)
    training.teller.step = state.counters.step
    log.info("resumed", step=state.counters.step)
    if not exact:
        log.warning("another number of ranks wrote the checkpoint: bits may differ from now on")
    if state.accelerator.is_local_main_process:
        forget_later_ones(order.checkpoints, step=state.counters.step)


def forget_later_ones(checkpoints: Path, *, step: int) -> None:
    """What an earlier life of this folder wrote after the step would be taken for newer."""
    for each in checkpoints.glob("step-?????????"):
        if int(each.name.removeprefix("step-")) > step:
            shutil.rmtree(each, ignore_errors=True)


def check(training: Training) -> None:
    """What this model cannot compute of these rows fails the job now, and not at some step."""
    state = training.state
    test = tokenized_dataset.read(training.order.tokens, tokenized_dataset.TEST)
    splits = [training.feed.tokens, training.validation]
    preflight.check(
        state.model if state.sharded else state.module,
        training.family,
        [*splits, test] if test is not None and len(test) else splits,
        budget=training.judge.budget,
        beat=training.teller.alive,
    )


def fit(training: Training) -> None:
    """Optimizer steps from where the state is to the end, or until a stop is asked for."""
    state, plan, counters = training.state, training.plan, training.state.counters
    training.teller.phase("training")
    save_at = time.monotonic() + CHECKPOINT_SECONDS
    state.model.train()
    training.curve.begin()
    with prefetch(training.feed.steps(epoch=counters.epoch, place=counters.place)) as steps:
        while counters.step < plan.total and not counters.ended_early:
            step = next(steps)
            norm = optimize(training, step)
            counters.advance(epoch_steps=plan.epoch_steps)
            training.teller.step = counters.step
            training.teller.alive()
            training.curve.count(step)
            if plan.reports(counters.step):
                training.curve.point(state, norm=norm, epoch_steps=plan.epoch_steps)
            due = plan.checkpoint_every is None and time.monotonic() > save_at
            wish = training.agreement.after_step(stop=training.stop.made, save=due)
            begun = time.monotonic()
            if look_and_save(training, wish=wish):
                training.curve.leave_out(time.monotonic() - begun)
                save_at = time.monotonic() + CHECKPOINT_SECONDS
            if wish.stop:
                raise TrainingStopped


def optimize(training: Training, step: Step) -> torch.Tensor | None:
    """One optimizer step; the gradient's norm before it was clipped, on the device.

    Ranks are averaged over, so each rank's sum of losses counts as often as there are ranks.
    """
    state, accelerator = training.state, training.state.accelerator
    scale = accelerator.num_processes / step.weight if step.counts else 0.0
    for place, batch in enumerate(step.batches, start=1):
        last = place == len(step.batches)
        accelerator.sync_gradients = last
        with nullcontext() if last else accelerator.no_sync(state.model):
            there = batch.to(accelerator.device)
            with faults.of_model():
                logits = state.model(**there.inputs).logits
                loss = training.family.losses(logits, there, weighted=True).sum() * scale
            accelerator.backward(loss)
        state.window.loss += loss.detach() / accelerator.num_processes
        training.teller.alive()
    options = training.order.spec.train
    norm: torch.Tensor | None = accelerator.clip_grad_norm_(
        state.model.parameters(), options.max_grad_norm
    )
    state.optimizer.step()
    state.scheduler.step()
    state.optimizer.zero_grad()
    state.window.steps += 1
    return norm


def look_and_save(training: Training, *, wish: Wish) -> bool:
    """What is due after a step: evaluation and checkpoint, a checkpoint, or nothing: false."""
    step = training.state.counters.step
    if training.plan.evaluates(step):
        value, best = validate(training)
        save(training, value=value, best=best)
    elif wish.stop or wish.save or training.plan.saves(step):
        save(training, value=None, best=False)
    else:
        return False
    training.teller.phase("training")
    return True


def validate(training: Training) -> tuple[float | None, bool]:
    """The metric on the validation rows, and whether it is the best so far."""
    training.teller.phase("evaluating")
    writes = training.metric in optim.WRITTEN
    report = training.judge.report(training.state, training.validation, writes=writes)
    training.curve.evaluation(training.state, report)
    counters, value = training.state.counters, report[training.metric]
    if optim.better(training.metric, value, than=counters.best):
        counters.best, counters.best_step = value, counters.step
        counters.evaluations_without_better = 0
        return value, True
    counters.evaluations_without_better += 1
    patience = training.order.spec.train.patience
    counters.ended_early = patience is not None and counters.evaluations_without_better >= patience
    return value, False


def save(training: Training, *, value: float | None, best: bool) -> None:
    """A checkpoint of this step; older ones go once it is complete, but for the best."""
    training.teller.phase("saving")
    counters, order = training.state.counters, training.order
    folder = order.checkpoint(counters.step)
    training.state.save(folder)
    if not training.state.accelerator.is_local_main_process:
        return
    training.teller.checkpoint(folder.name, metric=value, best=best)
    best_step = -1 if counters.best_step is None else counters.best_step
    made = sorted(order.checkpoints.glob("step-?????????"))
    older = [each for each in made[:-KEPT] if each != order.checkpoint(best_step)]
    for each in older:  # renamed first: who links its files takes all of them or none
        shutil.rmtree(each.rename(each.with_name(f"{each.name}.tmp")), ignore_errors=True)


def take_best(training: Training) -> None:
    """Give the model the best weights that an evaluation has seen."""
    state, order = training.state, training.order
    best = state.counters.best_step
    if best is None or best == state.counters.step:
        return
    here = (order.checkpoint(best), order.best, order.resume)
    folder = next((each for each in here if step_of(each) == best), None)
    if state.sharded or state.accelerator.is_main_process:
        if folder is None:
            raise RuntimeError(f"the best checkpoint, of step {best}, is not in the work folder")
        state.load_weights(folder)
    if not state.sharded and state.accelerator.num_processes > 1:
        for tensor in state.module.state_dict().values():
            torch.distributed.broadcast(tensor, src=0)


def evaluate_and_save(training: Training) -> None:
    """The result's report on the validation rows and on those that nothing was chosen by."""
    order, state = training.order, training.state
    training.teller.phase("evaluating")
    reports = {"validation": training.judge.report(state, training.validation, writes=True)}
    test = tokenized_dataset.read(order.tokens, tokenized_dataset.TEST)
    if test is not None and len(test):
        reports["test"] = training.judge.report(state, test, writes=True)
    sample = Sample.of(order)
    losses = training.judge.losses(state, sample.rows, rows=len(sample.texts))
    training.teller.phase("saving")
    if state.accelerator.is_main_process:
        text = json.dumps(reports, ensure_ascii=False)
        (order.folder / "report.json").write_text(text + "\n")
        steps = {"steps": state.counters.step, "best_step": state.counters.best_step}
        (order.folder / "steps.json").write_text(json.dumps(steps) + "\n")
    export.save(state, tokenizer=training.judge.tokenizer, order=order)
    if state.accelerator.is_main_process:
        assert losses is not None
        reload_check.check(order, sample, losses=losses, means=means(training))
    distributed.wait(state.accelerator, alive=training.teller.alive)


def means(training: Training) -> Means:
    """How the evaluation was computed, for the one that repeats it."""
    accelerator = training.state.accelerator
    return Means(
        device=accelerator.device,
        autocast=accelerator.autocast,
        budget=training.judge.budget,
        max_tokens=training.judge.max_tokens,
        beat=training.teller.alive,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
