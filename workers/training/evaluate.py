"""The evaluate program: ``python -m workers.training.evaluate W/evaluate.json``.

It measures each model of the list on the same rows, one model in memory at a time, and writes
``reports.json``. Of a split only a few thousand rows are in memory. Exit status: 0 done; 65 the job
is at fault, and it was told why; 75 stopped on request; anything else is a crash.
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
from workers.training import evaluation, optim, shutdown, tasks, tokenized_dataset
from workers.training.evaluation import Writer
from workers.training.messages import Teller
from workers.training.metrics import Report
from workers.training.model_init import AUTO
from workers.training.shutdown import StopRequest, TrainingStopped
from workers.training.tasks import Family
from workers.training.tokenized_dataset import InMemory, LeftOut, Tokens


def main(path: Path) -> int:
    """Evaluate as the file says; the process's exit status."""
    shutdown.die_with_parent()
    order = read(path)
    teller = Teller(order.folder / "told", name="evaluate")
    request = StopRequest(order.folder / "stop")
    watch = Watch(teller, stopping=lambda: request.made)
    try:
        write(order, watch=watch)
    except TrainingStopped:
        teller.stopped()
        return shutdown.STOPPED
    except NightshiftError as error:
        teller.fault(error)
        return shutdown.FAULT
    teller.done()
    return shutdown.DONE


def write(order: Order, *, watch: Watch) -> None:
    """Write ``reports.json``, whole or not at all. Raises ``JobFailure``, ``TrainingStopped``."""
    reports = {model.name: evaluated(model, order=order, watch=watch) for model in order.models}
    draft = order.folder / "reports.tmp"
    draft.write_text(json.dumps(reports, ensure_ascii=False, allow_nan=False) + "\n")
    draft.rename(order.folder / "reports.json")


@dataclass(frozen=True)
class Named:
    """A model of the list."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Order:
    """What ``evaluate.json`` asks for."""

    folder: Path  # the work folder, where the file lies
    task: Task
    multi_label: bool
    split: str
    batch_tokens: int  # 0: by the device
    max_tokens: int | None
    signature: Signature | None  # how the models read rows; null: each as its own folder says
    models: tuple[Named, ...]

    @cached_property
    def shards(self) -> list[Path]:
        """The split's files, in order."""
        return sorted((self.folder / "data" / self.split).glob("*.parquet"))

    @cached_property
    def rows(self) -> int:
        """How many the split has, by its files' own counts."""
        return sum(pq.read_metadata(shard).num_rows for shard in self.shards)


def read(path: Path) -> Order:
    """The order in a file; folders of models are absolute, or within the work folder."""
    given = json.loads(path.read_bytes())
    folder = path.resolve().parent
    return Order(
        folder=folder,
        task=Task(given["task"] or Task.CLASSIFY),
        multi_label=bool(given["multi_label"]),
        split=given["split"],
        batch_tokens=given["batch_tokens"],
        max_tokens=given["max_tokens"],
        signature=given.get("signature") and Signature.model_validate(given["signature"]),
        models=tuple(Named(each["name"], folder / each["folder"]) for each in given["models"]),
    )


class Watch:
    """Tells how far it is, in rows of all models, and ends the work when a stop is asked for."""

    def __init__(self, teller: Teller, *, stopping: Callable[[], bool]) -> None:
        self.teller = teller
        self._stopping = stopping

    def beat(self) -> None:
        """A sign of life. Raises ``TrainingStopped``."""
        self.teller.alive()
        if self._stopping():
            raise TrainingStopped

    def advance(self, rows: int) -> None:
        """So many rows more are done."""
        self.teller.step += rows
        self.beat()


def evaluated(model: Named, *, order: Order, watch: Watch) -> Report:
    """The report on one model. Raises ``ModelFailure`` and ``CorpusFailure``."""
    if not order.rows:
        raise CorpusFailure(
            f"the {order.split} rows must be one at least, and are none", code="split_empty"
        )
    watch.teller.steps_total = order.rows * len(order.models)
    watch.teller.phase("loading")
    subject = _loaded(model, order=order)
    watch.teller.phase("evaluating")
    parts = []
    left_out = LeftOut(order.split)
    for lines, texts, targets in tokenized_dataset.rows(order.folder / "data" / order.split):
        piece = subject.encoded(texts, targets, lines=lines, left_out=left_out)
        if len(piece):
            parts.append(subject.measured(piece, watch=watch))
        watch.advance(len(texts))
    left_out.tell()
    report = evaluation.report(evaluation.joined(parts), family=subject.family)
    if left_out.count:
        report["rows_left_out"] = left_out.count
    del subject
    memory.give_back()
    return report


@dataclass(frozen=True)
class Subject:
    """A model on its device, ready to be measured."""

    name: str
    module: Any
    family: Family
    labels: tuple[str, ...]  # of a classifier, by id
    multi_label: bool
    writer: Writer | None
    budget: int

    def encoded(
        self,
        texts: Sequence[str],
        targets: Sequence[str | None],
        *,
        lines: Sequence[int],
        left_out: LeftOut,
    ) -> Tokens:
        """The rows as this model reads them, without those that it cannot be given."""
        if self.labels:
            self._check_labels(targets)
        sound = left_out.without(self.family.encode(texts, targets), lines=lines)
        return InMemory(list(sound.values()), targets=[targets[place] for place in sound])

    def measured(self, piece: Tokens, *, watch: Watch) -> evaluation.Part:
        """The numbers of all rows of a piece."""
        return evaluation.measure(
            self.module,
            self.family,
            piece,
            rows=range(len(piece)),
            budget=self.budget,
            beat=watch.beat,
            writer=self.writer,
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


def _loaded(model: Named, *, order: Order) -> Subject:
    facts = inspection.inspect(model.folder)
    signature = order.signature or _own(facts, order=order)
    limits = (facts.max_tokens, signature.max_tokens)
    window = min((limit for limit in limits if limit is not None), default=DEFAULT_WINDOW)
    device = model_loader.device()
    tokenizer = model_loader.tokenizer(model.folder)
    module: Any = model_loader.module(
        model.folder, auto=AUTO[signature.task], dtype=torch.float32, device=device
    )
    labels = _labels(module) if signature.task is Task.CLASSIFY else ()
    family = tasks.of(
        signature, tokenizer=tokenizer, model=module, labels=labels, max_tokens=window
    )
    return Subject(
        name=model.name,
        module=module,
        family=family,
        labels=labels,
        multi_label=signature.multi_label,
        writer=Writer(tokenizer, window) if signature.task is Task.TEXT2TEXT else None,
        budget=optim.budget(TrainOptions(batch_tokens=order.batch_tokens), device=device),
    )


def _own(facts: ModelFacts, *, order: Order) -> Signature:
    """As the model was trained; where that is not known, as a bulk job would read with it."""
    if facts.signature is not None and facts.signature.task is order.task:
        return facts.signature
    return Signature(
        task=order.task,
        multi_label=order.multi_label,
        chat=order.task is Task.GENERATE and facts.has_chat_template,
        max_tokens=order.max_tokens,
    )


def _labels(module: Any) -> tuple[str, ...]:
    """The labels by id, spelled as those of the corpus are."""
    names = module.config.id2label
    return tuple(values.label_name(names[place]) for place in range(len(names)))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
