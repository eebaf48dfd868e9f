"""The engine: a folder and options in, something that answers rows out, whatever the kind.

One chunk at a time, its longest rows first, in batches of so many tokens; equal rows once where
their answers are equal. No answer depends on how rows were cut into chunks and batches, within the
bounds of promise P6 (docs/promises.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, overload

from jobs.decisions import signature_defaults
from jobs.kinds import (
    ClassifyOptions,
    EmbedOptions,
    GenerateOptions,
    Options,
    PipelineOptions,
    Text2TextOptions,
)
from jobs.models import compatibility, inspection
from jobs.progress import Beat
from jobs.settings import Settings
from workers.inference import model_loader
from workers.inference.batching import memory
from workers.inference.batching.forward import RowError
from workers.inference.probes.batch_policy import BatchPolicy
from workers.inference.tasks import classifier, embedder, generator, pipeline, translator
from workers.inference.tasks.classifier import Classifier

__all__ = ["Answer", "Beat", "Engine", "RowError", "load"]


class Answer(Protocol):
    """What came of a row."""

    @property
    def tokens(self) -> int | None:
        """That the model read; none of a file."""

    @property
    def truncated(self) -> bool | None:
        """Whether the text went on after them."""

    @property
    def unknown(self) -> int:
        """Tokens of those that stand for whatever the tokenizer does not know."""

    def columns(self) -> dict[str, Any]:
        """By the names of the kind's schema in ``jobs.results.schemas``."""


class Engine(Protocol):
    """A loaded model that answers rows. For one thread at a time."""

    digest: str

    @property
    def sharing(self) -> BatchPolicy | None:
        """How rows share batches; ``None``: that is left to the library."""

    def answer(self, texts: Mapping[int, Any], *, beat: Beat) -> Mapping[int, Answer | RowError]:
        """An answer or an error for every row, by its number in the corpus.

        Each is a text; of a corpus of which two columns are read, a ``reading.PairedText``.
        ``beat`` is called after every batch; what it raises ends the work at once and is raised.
        """


@overload
def load(folder: Path, options: ClassifyOptions, *, settings: Settings) -> Classifier: ...
@overload
def load(folder: Path, options: Options, *, settings: Settings) -> Engine: ...
def load(folder: Path, options: Options, *, settings: Settings) -> Engine:
    """The folder's model, ready on this process's device. Raises ``ModelFailure``.

    What the options leave out is as the model was trained.
    """
    facts = inspection.inspect(folder)
    options = signature_defaults.with_defaults(options, facts.signature)
    compatibility.check(facts, options)
    model_loader.use_threads(settings)
    memory.keep_freed()
    match options:
        case ClassifyOptions():
            return classifier.load(folder, options, facts=facts, settings=settings)
        case EmbedOptions():
            return embedder.load(folder, options, facts=facts, settings=settings)
        case GenerateOptions():
            return generator.load(folder, options, facts=facts, settings=settings)
        case Text2TextOptions():
            return translator.load(folder, options, facts=facts, settings=settings)
        case PipelineOptions():
            return pipeline.load(folder, options, facts=facts, settings=settings)
