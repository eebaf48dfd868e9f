"""The engine: a model's folder and a kind's options in, a loaded model that answers rows out.

A kind's task module is found by its name in ``TASKS``. Each answers one chunk at a time, its
longest rows first, in batches within a token budget; equal rows once where their answers are equal.
No answer depends on how rows were cut into chunks and batches, within the bounds of promise P6
(docs/promises.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, overload

from jobs.kinds import ClassifyOptions, Options, signature_defaults
from jobs.models import inspection
from jobs.models.inspection import ModelFacts
from jobs.progress import Beat
from jobs.settings import Settings
from workers.inference import model_loader
from workers.inference.batching import memory
from workers.inference.batching.forward import RowError
from workers.inference.probes.batch_policy import BatchPolicy
from workers.inference.tasks import classifier, embedder, generator, pipeline, scorer, translator
from workers.inference.tasks.classifier import Classifier

__all__ = ["Answer", "Beat", "Engine", "RowError", "load"]


class Answer(Protocol):
    """A row's result."""

    @property
    def tokens(self) -> int | None:
        """Tokens that the model read; ``None``: the row names a file."""

    @property
    def truncated(self) -> bool | None:
        """Whether the text is longer than what the model read of it."""

    @property
    def unknown(self) -> int:
        """How many of the tokens are the tokenizer's unknown token."""

    def columns(self) -> dict[str, Any]:
        """Values by the names of the kind's columns, as in its file of ``jobs.kinds``."""


class Engine(Protocol):
    """A loaded model that answers rows. For one thread at a time."""

    digest: str

    @property
    def batch_policy(self) -> BatchPolicy | None:
        """How rows share batches; ``None``: the library decides."""

    def answer(self, texts: Mapping[int, Any], *, beat: Beat) -> Mapping[int, Answer | RowError]:
        """An answer or an error for every row, by its number in the corpus.

        Each is a text; of a corpus of which two columns are read, a ``tokenization.PairedText``.
        ``beat`` is called after every batch; what it raises ends the work at once and is raised.
        """


class Load(Protocol):
    """A task module's ``load``: the folder's model on this process's device."""

    def __call__(
        self, folder: Path, options: Any, /, *, facts: ModelFacts, settings: Settings
    ) -> Engine:
        """Raises ``ModelFailure``."""


TASKS: dict[str, Load] = {
    "classify": classifier.load,
    "embed": embedder.load,
    "generate": generator.load,
    "pipeline": pipeline.load,
    "score": scorer.load,
    "text2text": translator.load,
}
"""How each kind loads its model."""


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
    options.check(facts)
    model_loader.use_threads(settings)
    memory.keep_freed()
    return TASKS[options.kind](folder, options, facts=facts, settings=settings)
