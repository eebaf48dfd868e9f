"""Pipelines of the transformers library: each row's text, or the file it names, becomes JSON.

Rows go through the library's own pipeline, and its output is passed on unchanged (decision 0011).
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

from jobs import distribution, private_places, progress
from jobs.corpora.batches import clipped
from jobs.errors import ModelFailure
from jobs.kinds import PipelineOptions, PipelineTask
from jobs.kinds.pipeline import READS_TEXTS, WRITES_TEXTS
from jobs.models.inspection import ModelFacts
from jobs.progress import Beat
from jobs.row_codes import RowCode
from jobs.settings import Settings
from workers.inference import model_loader, row_isolation
from workers.inference.batching import memory
from workers.inference.batching.forward import NOT_FINITE, RowError
from workers.inference.batching.tokenization import count_unknown, unknown_token
from workers.inference.heads import label_texts
from workers.inference.kernels import device_map
from workers.inference.tasks import media

SOUNDS = frozenset({PipelineTask.AUDIO_CLASSIFICATION, PipelineTask.SPEECH_RECOGNITION})
ACCELERATOR_ROWS = 16
"""Rows in a batch by default on accelerators; on CPU one row at a time is as fast."""

ROW_EXCEPTIONS = (PipelineException, ValueError, TypeError, LookupError)
"""Exceptions that pipelines raise for a row that they cannot process."""


@dataclass(frozen=True, slots=True)
class PipelineOutput:
    """A pipeline's output for a row."""

    output: str  # JSON
    tokens: int | None
    truncated: bool | None
    unknown: int = 0  # unknown tokens among those

    def columns(self) -> dict[str, Any]:
        """As in ``jobs.kinds.pipeline``."""
        return {"output": self.output, "tokens": self.tokens, "truncated": self.truncated}


@dataclass(frozen=True, slots=True)
class PipelineInput:
    """The pipeline's input for a row."""

    value: Any
    tokens: int | None = None
    truncated: bool | None = None
    unknown: int = 0


class InputReader(Protocol):
    """Turns a row's text into the pipeline's input."""

    def __call__(self, text: str, /) -> PipelineInput | RowError:
        """The input, or why the row has none."""


class PipelineEngine:
    """A loaded pipeline. For one thread at a time."""

    def __init__(
        self,
        pipe: Any,
        *,
        read: InputReader,
        parameters: Mapping[str, Any],
        batch_rows: int,
        digest: str,
    ) -> None:
        self.digest = digest
        self.batch_policy = None  # the library cuts the batches
        self._pipe = pipe
        self._read = read
        self._parameters = parameters
        self._batch_rows = batch_rows
        self._tally = row_isolation.FaultTally("the pipeline")

    def answer(
        self, texts: Mapping[int, str], *, beat: Beat
    ) -> dict[int, PipelineOutput | RowError]:
        """The pipeline's output for every row; equal rows are computed once."""
        outputs: dict[str, PipelineOutput | RowError] = {}
        ordered = sorted(set(texts.values()), key=lambda text: (-len(text), text))
        for start in range(0, len(ordered), self._batch_rows):
            batch = ordered[start : start + self._batch_rows]
            outputs.update(zip(batch, self._batch(batch), strict=True))
            progress.advance(beat, len(batch) / len(ordered))
            beat()
        return {row: outputs[text] for row, text in texts.items()}

    def _batch(self, texts: Sequence[str]) -> Iterator[PipelineOutput | RowError]:
        inputs = [self._input(text) for text in texts]
        readable = [each for each in inputs if isinstance(each, PipelineInput)]
        outputs = iter(self._outputs(readable))
        for each in inputs:
            yield each if isinstance(each, RowError) else _serialized(each, next(outputs))

    def _input(self, text: str) -> PipelineInput | RowError:
        try:
            return self._read(text)
        except BaseException as error:  # noqa: BLE001 - what is no row's fault is raised by check
            return self._error(error)

    def _outputs(self, inputs: list[PipelineInput]) -> list[Any]:
        """An output or a ``RowError`` for each; rows that fail together are halved."""
        if not inputs:
            return []
        try:
            # A generator, because some pipelines return no list for a list of one.
            values = (_copied(each.value) for each in inputs)
            outputs = list(self._pipe(values, batch_size=len(inputs), **self._parameters))
        except BaseException as fault:  # noqa: BLE001 - what is no row's fault is raised by check
            row_isolation.check(fault)
            if len(inputs) == 1:
                return [self._error(fault)]
        else:
            self._tally.succeeded(len(inputs))
            return outputs
        memory.empty_cache()
        half = len(inputs) // 2
        return [*self._outputs(inputs[:half]), *self._outputs(inputs[half:])]

    def _error(self, fault: BaseException) -> RowError:
        """The error of a row that failed alone; raises what is not the row's fault."""
        row_isolation.check(fault)
        if memory.is_out_of_memory(fault):
            message = "the row does not fit into the device's memory"
            return RowError(RowCode.OUT_OF_MEMORY, message)
        if isinstance(fault, ROW_EXCEPTIONS):
            message = f"the pipeline cannot do this row: {type(fault).__name__}: {fault}"
            return RowError(RowCode.PIPELINE_FAILED, clipped(message))
        return RowError(RowCode.ROW_FAILED, self._tally.raised(row_isolation.reason(fault)))


def load(
    folder: Path, options: PipelineOptions, *, facts: ModelFacts, settings: Settings
) -> PipelineEngine:
    """The folder's pipeline on this process's device. Raises ``ModelFailure``."""
    task = options.task_of(facts)
    _check_packages(task)
    model = model_loader.model(folder, auto=_auto(folder, task), options=options)
    parts = _preprocessors(folder, task, facts=facts)
    try:
        make: Any = pipeline
        device = None if device_map.is_spread(model) else model.device
        pipe = make(task.value, model=model, device=device, **parts)
        pipe._sanitize_parameters(**options.parameters)  # noqa: SLF001 - which is what checks them
    except Exception as error:  # nearly any type, for a wrong parameter
        raise ModelFailure(
            f"the pipeline {task} refuses this model or these parameters: {error}",
            code="pipeline_refused",
        ) from error
    if task is PipelineTask.ZERO_SHOT_IMAGE_CLASSIFICATION:
        _check_labels(pipe.tokenizer, options.parameters)
    default = 1 if model.device.type == "cpu" else ACCELERATOR_ROWS
    return PipelineEngine(
        pipe,
        read=_input_reader(task, pipe, options=options, settings=settings),
        parameters=_parameters(task, options),
        batch_rows=options.batch_rows or default,
        digest=facts.digest,
    )


def _check_labels(tokenizer: Any, parameters: Mapping[str, Any]) -> None:
    """Raise ``ModelFailure`` where two candidate labels have the same tokens."""
    labels, template = parameters["candidate_labels"], parameters.get("hypothesis_template", "{}")
    if isinstance(labels, list) and all(isinstance(each, str) for each in [*labels, template]):
        texts = [template.replace("{}", label) for label in labels]
        ids = [tokenizer(text)["input_ids"] for text in texts]
        label_texts.check_tokens(labels, ids, tokenizer=tokenizer)


def _check_packages(task: PipelineTask) -> None:
    if task in READS_TEXTS:
        return
    needed = ("soundfile", "scipy") if task in SOUNDS else ("PIL",)
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelFailure(
            f"{task} needs {' and '.join(missing)} on the worker: "
            + distribution.with_extra("media"),
            code="pipeline_refused",
        )


def _auto(folder: Path, task: PipelineTask) -> Any:
    """The task's auto class that supports this model's configuration."""
    configs: Any = AutoConfig
    try:
        config = configs.from_pretrained(folder, **model_loader.SAFE)
    except Exception as error:
        raise ModelFailure(f"the model's config.json cannot be read: {error}") from error
    tasks: Any = SUPPORTED_TASKS
    for auto in tasks[task.value]["pt"]:
        if type(config) in auto._model_mapping:  # noqa: SLF001 - as the library itself does
            return auto
    raise ModelFailure(
        f"the transformers library has no {task} for models of the type {config.model_type}",
        code="model_no_pipeline",
    )


def _preprocessors(folder: Path, task: PipelineTask, *, facts: ModelFacts) -> dict[str, Any]:
    """The tokenizer, image processor or feature extractor of the pipeline."""
    parts: dict[str, Any] = {}
    if task in READS_TEXTS | WRITES_TEXTS:
        tokenizer = model_loader.tokenizer(folder)
        if facts.max_tokens is not None:
            tokenizer.model_max_length = min(tokenizer.model_max_length, facts.max_tokens)
        parts["tokenizer"] = tokenizer
    if task in READS_TEXTS:
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
    own = options.parameters.get("tokenizer_kwargs")
    truncating = {"truncation": True, **(own if isinstance(own, dict) else {})}
    return {**options.parameters, "tokenizer_kwargs": truncating}


def _input_reader(
    task: PipelineTask, pipe: Any, *, options: PipelineOptions, settings: Settings
) -> InputReader:
    if task in READS_TEXTS:
        strides = options.parameters.get("stride") is not None
        return _TextReader(pipe.tokenizer, truncates=not strides)
    if task in SOUNDS:
        return _SoundReader(settings, rate=int(pipe.feature_extractor.sampling_rate))
    return _ImageReader(settings)


class _TextReader:
    def __init__(self, tokenizer: Any, *, truncates: bool) -> None:
        self._tokenizer = tokenizer
        self._unknown = unknown_token(tokenizer)
        self._truncates = truncates

    def __call__(self, text: str, /) -> PipelineInput | RowError:
        if not self._tokenizer(text, add_special_tokens=False)["input_ids"]:
            return RowError(RowCode.NO_TOKENS, "the tokenizer makes no token of this text")
        ids, most = self._tokenizer(text)["input_ids"], self._tokenizer.model_max_length
        truncated = self._truncates and len(ids) > most
        read = ids[:most] if truncated else ids
        unknown = count_unknown(self._unknown, read)
        return PipelineInput(text, tokens=len(read), truncated=truncated, unknown=unknown)


class _ImageReader:
    def __init__(self, settings: Settings) -> None:
        self._allowed, self._private = settings.allowed_inputs, private_places.of(settings)

    def __call__(self, uri: str, /) -> PipelineInput | RowError:
        data = media.read(uri, allowed=self._allowed, private=self._private)
        image = data if isinstance(data, RowError) else media.image(data)
        return image if isinstance(image, RowError) else PipelineInput(image)


class _SoundReader:
    def __init__(self, settings: Settings, *, rate: int) -> None:
        self._allowed, self._private = settings.allowed_inputs, private_places.of(settings)
        self._rate = rate

    def __call__(self, uri: str, /) -> PipelineInput | RowError:
        data = media.read(uri, allowed=self._allowed, private=self._private)
        samples = data if isinstance(data, RowError) else media.sound(data, rate=self._rate)
        if isinstance(samples, RowError):
            return samples
        return PipelineInput({"raw": samples, "sampling_rate": self._rate})


def _copied(value: Any) -> Any:
    """Pipelines modify the dictionaries that they get."""
    return dict(value) if isinstance(value, dict) else value


def _serialized(item: PipelineInput, output: Any) -> PipelineOutput | RowError:
    if isinstance(output, RowError):
        return output
    try:
        text = json.dumps(output, ensure_ascii=False, allow_nan=False, default=_as_python)
    except ValueError:  # infinite or NaN
        return NOT_FINITE
    return PipelineOutput(text, tokens=item.tokens, truncated=item.truncated, unknown=item.unknown)


def _as_python(value: Any) -> Any:
    """Scalars and arrays of numpy and torch as Python's."""
    return value.tolist()
