"""Pipelines of the transformers library: each row's text, or the file it names, becomes JSON.

Rows go through the library's own pipeline, whose answer is handed on as it is.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from transformers import AutoConfig, AutoFeatureExtractor, AutoImageProcessor, pipeline
from transformers.pipelines import SUPPORTED_TASKS
from transformers.pipelines.base import PipelineException

from jobs.corpora.batches import clipped
from jobs.errors import ModelFailure
from jobs.kinds import PipelineOptions, PipelineTask
from jobs.models import compatibility
from jobs.models.inspection import ModelFacts
from jobs.results.schemas import RowCode
from jobs.settings import Settings
from workers.inference import model_loader, row_isolation
from workers.inference.batching import memory
from workers.inference.batching.forward import NOT_FINITE, Beat, RowError
from workers.inference.batching.tokenization import counted, unknown_token
from workers.inference.heads import label_texts
from workers.inference.kernels import device_map
from workers.inference.tasks import media

SOUNDS = frozenset({PipelineTask.AUDIO_CLASSIFICATION, PipelineTask.SPEECH_RECOGNITION})
ACCELERATOR_ROWS = 16
"""Rows at once by default on a device that is not the CPU, where one at a time is as fast."""

OF_THE_ROW = (PipelineException, ValueError, TypeError, LookupError)
"""What pipelines raise where they cannot do a row."""


@dataclass(frozen=True, slots=True)
class Piped:
    """What a pipeline said of a row."""

    output: str  # JSON
    tokens: int | None
    truncated: bool | None
    unknown: int = 0  # tokens of those that the tokenizer does not know

    def columns(self) -> dict[str, Any]:
        """As in ``jobs.results.schemas.PIPELINE_SCHEMA``."""
        return {"output": self.output, "tokens": self.tokens, "truncated": self.truncated}


@dataclass(frozen=True, slots=True)
class Item:
    """A row as the pipeline reads it."""

    value: Any
    tokens: int | None = None
    truncated: bool | None = None
    unknown: int = 0


class Reader(Protocol):
    """From a row's text to what the pipeline reads."""

    def __call__(self, text: str, /) -> Item | RowError:
        """The row, or why it cannot be read."""


class Pipe:
    """A loaded pipeline. For one thread at a time."""

    def __init__(
        self,
        pipe: Any,
        *,
        read: Reader,
        parameters: Mapping[str, Any],
        batch_rows: int,
        digest: str,
    ) -> None:
        self.digest = digest
        self.sharing = None  # what shares a batch is the pipeline's own
        self._pipe = pipe
        self._read = read
        self._parameters = parameters
        self._batch_rows = batch_rows
        self._tally = row_isolation.Tally("the pipeline")

    def answer(self, texts: Mapping[int, str], *, beat: Beat) -> dict[int, Piped | RowError]:
        """What the pipeline says of every row; equal rows are done once."""
        found: dict[str, Piped | RowError] = {}
        ordered = sorted(set(texts.values()), key=lambda text: (-len(text), text))
        for start in range(0, len(ordered), self._batch_rows):
            batch = ordered[start : start + self._batch_rows]
            found.update(zip(batch, self._answers(batch), strict=True))
            beat()
        return {row: found[text] for row, text in texts.items()}

    def _answers(self, texts: Sequence[str]) -> Iterator[Piped | RowError]:
        read = [self._item(text) for text in texts]
        said = iter(self._said([item for item in read if isinstance(item, Item)]))
        for item in read:
            yield item if isinstance(item, RowError) else _piped(item, next(said))

    def _item(self, text: str) -> Item | RowError:
        try:
            return self._read(text)
        except BaseException as error:  # noqa: BLE001 - what is no row's fault is raised by check
            return self._error(error)

    def _said(self, items: list[Item]) -> list[Any]:
        """An answer or a ``RowError`` for each; rows that fail together are tried apart."""
        if not items:
            return []
        try:
            # A generator, because some pipelines answer a list of one with no list.
            values = (_fresh(item.value) for item in items)
            found = list(self._pipe(values, batch_size=len(items), **self._parameters))
        except BaseException as fault:  # noqa: BLE001 - what is no row's fault is raised by check
            row_isolation.check(fault)
            if len(items) == 1:
                return [self._error(fault)]
        else:
            self._tally.answered(len(items))
            return found
        memory.give_back()
        half = len(items) // 2
        return [*self._said(items[:half]), *self._said(items[half:])]

    def _error(self, fault: BaseException) -> RowError:
        """The error of a row that failed alone; what is no row's fault is raised."""
        row_isolation.check(fault)
        if memory.is_out_of_memory(fault):
            message = "the row does not fit into the device's memory"
            return RowError(RowCode.OUT_OF_MEMORY, message)
        if isinstance(fault, OF_THE_ROW):
            message = f"the pipeline cannot do this row: {type(fault).__name__}: {fault}"
            return RowError(RowCode.PIPELINE_FAILED, clipped(message))
        return RowError(RowCode.ROW_FAILED, self._tally.raised(row_isolation.reason(fault)))


def load(folder: Path, options: PipelineOptions, *, facts: ModelFacts, settings: Settings) -> Pipe:
    """The folder's pipeline on this process's device. Raises ``ModelFailure``."""
    task = compatibility.task(facts, options)
    _check_packages(task)
    model = model_loader.model(folder, auto=_auto(folder, task), options=options)
    parts = _parts(folder, task, facts=facts)
    try:
        make: Any = pipeline
        there = None if device_map.is_spread(model) else model.device
        pipe = make(task.value, model=model, device=there, **parts)
        pipe._sanitize_parameters(**options.parameters)  # noqa: SLF001 - which is what checks them
    except Exception as error:  # nearly anything, for a parameter that is wrong
        raise ModelFailure(
            f"the pipeline {task} refuses this model or these parameters: {error}",
            code="pipeline_refused",
        ) from error
    if task is PipelineTask.ZERO_SHOT_IMAGE_CLASSIFICATION:
        _check_labels(pipe.tokenizer, options.parameters)
    default = 1 if model.device.type == "cpu" else ACCELERATOR_ROWS
    return Pipe(
        pipe,
        read=_reader(task, pipe, options=options, settings=settings),
        parameters=_parameters(task, options),
        batch_rows=options.batch_rows or default,
        digest=facts.digest,
    )


def _check_labels(tokenizer: Any, parameters: Mapping[str, Any]) -> None:
    """Raise ``ModelFailure`` where the tokenizer reads two candidate labels as one."""
    labels, template = parameters["candidate_labels"], parameters.get("hypothesis_template", "{}")
    if isinstance(labels, list) and all(isinstance(each, str) for each in [*labels, template]):
        texts = [template.replace("{}", label) for label in labels]
        ids = [tokenizer(text)["input_ids"] for text in texts]
        label_texts.check_tokens(labels, ids, tokenizer=tokenizer)


def _check_packages(task: PipelineTask) -> None:
    if task in compatibility.READS_TEXTS:
        return
    needed = ("soundfile", "scipy") if task in SOUNDS else ("PIL",)
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelFailure(
            f"{task} needs {' and '.join(missing)} on the worker: install nightshift[media]",
            code="pipeline_refused",
        )


def _auto(folder: Path, task: PipelineTask) -> Any:
    """The task's auto class that knows this model's configuration."""
    configs: Any = AutoConfig
    try:
        config = configs.from_pretrained(folder, **model_loader.SAFE)
    except Exception as error:
        raise ModelFailure(f"the model's config.json cannot be read: {error}") from error
    tasks: Any = SUPPORTED_TASKS
    for auto in tasks[task.value]["pt"]:
        if type(config) in auto._model_mapping:  # noqa: SLF001 - as the library itself asks
            return auto
    raise ModelFailure(
        f"the transformers library has no {task} for models of the type {config.model_type}",
        code="model_no_pipeline",
    )


def _parts(folder: Path, task: PipelineTask, *, facts: ModelFacts) -> dict[str, Any]:
    """What reads rows and writes answers beside the model."""
    parts: dict[str, Any] = {}
    if task in compatibility.READS_TEXTS | compatibility.WRITES_TEXTS:
        tokenizer = model_loader.tokenizer(folder)
        if facts.max_tokens is not None:
            tokenizer.model_max_length = min(tokenizer.model_max_length, facts.max_tokens)
        parts["tokenizer"] = tokenizer
    if task in compatibility.READS_TEXTS:
        return parts
    name, auto = (
        ("feature_extractor", AutoFeatureExtractor)
        if task in SOUNDS
        else ("image_processor", AutoImageProcessor)
    )
    classes: Any = auto
    try:
        parts[name] = classes.from_pretrained(folder, **model_loader.SAFE)
    except Exception as error:
        raise ModelFailure(
            f"what reads the model's files cannot be loaded: {error}", code="model_no_preprocessor"
        ) from error
    return parts


def _parameters(task: PipelineTask, options: PipelineOptions) -> dict[str, Any]:
    if task is not PipelineTask.FILL_MASK:
        return options.parameters
    given = options.parameters.get("tokenizer_kwargs")
    cut = {"truncation": True, **(given if isinstance(given, dict) else {})}
    return {**options.parameters, "tokenizer_kwargs": cut}


def _reader(
    task: PipelineTask, pipe: Any, *, options: PipelineOptions, settings: Settings
) -> Reader:
    if task in compatibility.READS_TEXTS:
        strides = options.parameters.get("stride") is not None
        return _Texts(pipe.tokenizer, cuts=not strides)
    if task in SOUNDS:
        return _Sounds(settings.allowed_inputs, rate=int(pipe.feature_extractor.sampling_rate))
    return _Images(settings.allowed_inputs)


class _Texts:
    def __init__(self, tokenizer: Any, *, cuts: bool) -> None:
        self._tokenizer = tokenizer
        self._unknown = unknown_token(tokenizer)
        self._cuts = cuts

    def __call__(self, text: str, /) -> Item | RowError:
        if not self._tokenizer(text, add_special_tokens=False)["input_ids"]:
            return RowError(RowCode.NO_TOKENS, "the tokenizer makes no token of this text")
        ids, most = self._tokenizer(text)["input_ids"], self._tokenizer.model_max_length
        cut = self._cuts and len(ids) > most
        read = ids[:most] if cut else ids
        return Item(text, tokens=len(read), truncated=cut, unknown=counted(self._unknown, read))


class _Images:
    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = allowed

    def __call__(self, uri: str, /) -> Item | RowError:
        data = media.read(uri, allowed=self._allowed)
        found = data if isinstance(data, RowError) else media.image(data)
        return found if isinstance(found, RowError) else Item(found)


class _Sounds:
    def __init__(self, allowed: Sequence[str], *, rate: int) -> None:
        self._allowed = allowed
        self._rate = rate

    def __call__(self, uri: str, /) -> Item | RowError:
        data = media.read(uri, allowed=self._allowed)
        found = data if isinstance(data, RowError) else media.sound(data, rate=self._rate)
        if isinstance(found, RowError):
            return found
        return Item({"raw": found, "sampling_rate": self._rate})


def _fresh(value: Any) -> Any:
    """Pipelines take apart the dictionaries they are given."""
    return dict(value) if isinstance(value, dict) else value


def _piped(item: Item, said: Any) -> Piped | RowError:
    if isinstance(said, RowError):
        return said
    try:
        output = json.dumps(said, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:  # infinite, or not a number
        return NOT_FINITE
    return Piped(output, tokens=item.tokens, truncated=item.truncated, unknown=item.unknown)


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy and torch as Python's."""
    return value.tolist()
