"""The evaluation program: ``python -m workers.training.evaluate W/evaluate.json``.

It evaluates each model of the list on the same rows and writes ``reports.json``. One model and a
few thousand rows are in memory at a time. Exit status: 0 done; 65 the job is at fault, as a message
says; 75 stopped on request; anything else is a crash.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from jobs.corpora import values
from jobs.errors import CorpusFailure, NightshiftError
from jobs.kinds import Task, TrainOptions
from jobs.models import inspection
from jobs.models.inspection import ModelFacts
from jobs.models.signatures import Signature
from workers.inference import model_loader
from workers.inference.batching import memory
from workers.inference.batching.tokenization import DEFAULT_WINDOW
from workers.training import evaluation, optim, shutdown, tokenized_dataset
from workers.training.evaluation import EvaluationPart, GreedyDecoder
from workers.training.messages import MessageWriter
from workers.training.metrics import Report
from workers.training.model_init import AUTO
from workers.training.objectives.objective import Objective, objective_for
from workers.training.shutdown import StopRequest, TrainingStopped
from workers.training.tokenized_dataset import InMemorySplit, SkippedRows, TokenizedSplit


def main(path: Path) -> int:
    """Evaluate the models of the config; returns the exit status."""
    shutdown.die_with_parent()
    config = read(path)
    messages = MessageWriter(config.folder / "told", name="evaluate", has_steps=False)
    stop = StopRequest(config.folder / "stop")
    progress = EvaluationProgress(messages, stop_requested=lambda: stop.requested)
    try:
        write(config, progress=progress)
    except TrainingStopped:
        messages.stopped()
        return shutdown.STOPPED
    except NightshiftError as error:
        messages.fault(error)
        return shutdown.FAULT
    messages.done()
    return shutdown.DONE


def write(config: EvaluationConfig, *, progress: EvaluationProgress) -> None:
    """Write ``reports.json`` atomically. Raises ``JobFailure`` and ``TrainingStopped``."""
    reports = {
        model.name: evaluated(model, config=config, progress=progress) for model in config.models
    }
    draft = config.folder / "reports.tmp"
    draft.write_text(json.dumps(reports, ensure_ascii=False, allow_nan=False) + "\n")
    draft.rename(config.folder / "reports.json")


@dataclass(frozen=True)
class NamedModel:
    """A model of the list."""

    name: str
    folder: Path


@dataclass(frozen=True)
class EvaluationConfig:
    """The content of ``evaluate.json``."""

    folder: Path  # the work folder, which holds the file
    task: Task
    multi_label: bool
    split: str
    batch_tokens: int  # 0: the default of the device
    max_tokens: int | None
    signature: Signature | None  # how rows are read; null: by each model's own signature
    models: tuple[NamedModel, ...]

    @cached_property
    def shards(self) -> list[Path]:
        """The split's files, in order."""
        return sorted((self.folder / "data" / self.split).glob("*.parquet"))

    @cached_property
    def rows(self) -> int:
        """The number of rows, from the metadata of the files."""
        return sum(pq.read_metadata(shard).num_rows for shard in self.shards)


def read(path: Path) -> EvaluationConfig:
    """Read the config; model folders are absolute or relative to the work folder."""
    given = json.loads(path.read_bytes())
    folder = path.resolve().parent
    return EvaluationConfig(
        folder=folder,
        task=Task(given["task"] or Task.CLASSIFY),
        multi_label=bool(given["multi_label"]),
        split=given["split"],
        batch_tokens=given["batch_tokens"],
        max_tokens=given["max_tokens"],
        signature=given.get("signature") and Signature.model_validate(given["signature"]),
        models=tuple(NamedModel(each["name"], folder / each["folder"]) for each in given["models"]),
    )


class EvaluationProgress:
    """Reports progress, in rows of all models, and checks for a stop request."""

    def __init__(self, messages: MessageWriter, *, stop_requested: Callable[[], bool]) -> None:
        self.messages = messages
        self._stop_requested = stop_requested
        self._rows = self._total = 0

    def begin(self, total: int) -> None:
        """The rows of all models together."""
        self._total = total

    def beat(self) -> None:
        """Send a heartbeat. Raises ``TrainingStopped``."""
        self.messages.heartbeat()
        if self._stop_requested():
            raise TrainingStopped

    def advance(self, rows: int) -> None:
        """Count rows. Raises ``TrainingStopped``."""
        self._rows += rows
        self.messages.evaluated(self._rows, total=self._total)
        self.beat()


def evaluated(
    model: NamedModel, *, config: EvaluationConfig, progress: EvaluationProgress
) -> Report:
    """The report on one model. Raises ``ModelFailure`` and ``CorpusFailure``."""
    if not config.rows:
        raise CorpusFailure(
            f"the {config.split} rows must be one at least, and are none", code="split_empty"
        )
    progress.begin(config.rows * len(config.models))
    progress.messages.phase("loading")
    loaded = _load(model, config=config)
    progress.messages.phase("evaluating")
    parts = []
    skipped = SkippedRows(config.split)
    for lines, texts, targets in tokenized_dataset.rows(config.folder / "data" / config.split):
        piece = loaded.encode(texts, targets, lines=lines, skipped=skipped)
        if len(piece):
            parts.append(loaded.measure(piece, progress=progress))
        progress.advance(len(texts) - len(piece))  # the others were left out
    skipped.report()
    report = evaluation.report(evaluation.merge(parts), objective=loaded.objective)
    if skipped.count:
        report["rows_left_out"] = skipped.count
    del loaded
    memory.empty_cache()
    return report


@dataclass(frozen=True)
class LoadedModel:
    """A model on its device, ready to be evaluated."""

    name: str
    module: Any
    objective: Objective
    labels: tuple[str, ...]  # of a classifier, by id
    multi_label: bool
    decoder: GreedyDecoder | None
    budget: int

    def encode(
        self,
        texts: Sequence[str],
        targets: Sequence[str | None],
        *,
        lines: Sequence[int],
        skipped: SkippedRows,
    ) -> TokenizedSplit:
        """The rows that this model can take; the others are counted in ``skipped``."""
        if self.labels:
            self._check_labels(targets)
        usable = skipped.without(self.objective.encode(texts, targets), lines=lines)
        return InMemorySplit(list(usable.values()), targets=[targets[index] for index in usable])

    def measure(self, piece: TokenizedSplit, *, progress: EvaluationProgress) -> EvaluationPart:
        """The measurements of all rows of a piece."""
        return evaluation.measure(
            self.module,
            self.objective,
            piece,
            rows=range(len(piece)),
            budget=self.budget,
            beat=progress.beat,
            advance=progress.advance,
            decoder=self.decoder,
        )

    def _check_labels(self, targets: Sequence[str | None]) -> None:
        for target in targets:
            names = json.loads(target or "[]") if self.multi_label else [target]
            for name in names:
                if name not in self.labels:
                    raise CorpusFailure(
                        f"every label must be one of the {self.name} model's "
                        f"({', '.join(self.labels)}), and the corpus has {name!r}",
                        code="unknown_label",
                    )


def _load(model: NamedModel, *, config: EvaluationConfig) -> LoadedModel:
    facts = inspection.inspect(model.folder)
    signature = config.signature or _signature(facts, config=config)
    limits = (facts.max_tokens, signature.max_tokens)
    window = min((limit for limit in limits if limit is not None), default=DEFAULT_WINDOW)
    device = model_loader.device()
    tokenizer = model_loader.tokenizer(model.folder)
    module: Any = model_loader.module(
        model.folder, auto=AUTO[signature.task], dtype=torch.float32, device=device
    )
    labels = _labels(module) if signature.task is Task.CLASSIFY else ()
    objective = objective_for(
        signature, tokenizer=tokenizer, model=module, labels=labels, max_tokens=window
    )
    return LoadedModel(
        name=model.name,
        module=module,
        objective=objective,
        labels=labels,
        multi_label=signature.multi_label,
        decoder=GreedyDecoder(tokenizer, window) if signature.task is Task.TEXT2TEXT else None,
        budget=optim.budget(TrainOptions(batch_tokens=config.batch_tokens), device=device),
    )


def _signature(facts: ModelFacts, *, config: EvaluationConfig) -> Signature:
    """The model's own signature; without one, the defaults of a bulk job."""
    if facts.signature is not None and facts.signature.task is config.task:
        return facts.signature
    return Signature(
        task=config.task,
        multi_label=config.multi_label,
        chat=config.task is Task.GENERATE and facts.has_chat_template,
        max_tokens=config.max_tokens,
    )


def _labels(module: Any) -> tuple[str, ...]:
    """The labels by id, in the spelling of corpus labels."""
    names = module.config.id2label
    return tuple(values.label_name(names[label_id]) for label_id in range(len(names)))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
