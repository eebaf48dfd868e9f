"""What people would run instead of the engine: each a function from texts to labels.

Every peer loads the same folder, a BERT-like classifier, and cuts texts at the same length. It
runs in a process of its own, as it would for its users: it shares neither spinning threads nor
fragmented memory with the others. Peers that are not installed are left out; ``pip install
nightshift-queue[bench]`` installs them all.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
from transformers.utils.import_utils import is_flash_attn_2_available

from benchmarks import plain_loop
from benchmarks.trained import MAX_TOKENS
from jobs.kinds import ClassifyOptions
from jobs.settings import Settings
from workers.inference import engine
from workers.inference.batching import race
from workers.inference.batching.autotune import CACHE_NAME
from workers.inference.kernels import linear_layouts
from workers.inference.kernels.linear_layouts import LinearLayout

Peer = Callable[[Sequence[str]], list[str]]

SLOW = {"pipeline, row by row": 10, "pipeline, batches of 32": 3}
"""Peers that get every nth text on a GPU: they take minutes where others take a second."""


class Apart:
    """A peer in a process of its own, which builds it and ends with :meth:`close`."""

    def __init__(self, make: Callable[[], Peer]) -> None:
        self._pool = ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=_begin, initargs=(make,)
        )

    def warm(self, texts: Sequence[str], *, seconds: float) -> None:
        """Warm up on these texts: ``Engine.warm``, or classify all of them."""
        self._pool.submit(_warm, texts, seconds).result()

    def timed(self, texts: Sequence[str]) -> tuple[float, list[str]]:
        """The seconds that these texts took, and their labels."""
        return self._pool.submit(_timed, texts).result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


_here: list[Peer] = []
"""In a process of its own: the peer."""


def _begin(make: Callable[[], Peer]) -> None:
    _here.append(make())


def _warm(texts: Sequence[str], seconds: float) -> None:
    [peer] = _here
    if isinstance(peer, Engine):
        peer.warm(texts, seconds=seconds)
    else:
        peer(texts)


def _timed(texts: Sequence[str]) -> tuple[float, list[str]]:
    [peer] = _here
    began = time.perf_counter()
    labels = peer(texts)
    return time.perf_counter() - began, labels


class Engine:
    """The engine with a token budget and a layout of its layers; it chooses those not given."""

    def __init__(
        self,
        folder: Path,
        *,
        threads: int,
        budget: int = 0,
        int8: bool = False,
        layout: LinearLayout | None = None,
    ) -> None:
        self._found = Path(tempfile.mkdtemp(dir=folder.parent))
        settings = Settings(
            worker_threads=threads, batch_tokens=budget, calibration_folder=str(self._found)
        )
        chosen = (
            patch.object(linear_layouts, "choice", return_value=layout) if layout else nullcontext()
        )
        with chosen:
            self._loaded = engine.load(folder, ClassifyOptions(int8=int8), settings=settings)
        self._laps = 1 if budget else race.MAX_LAPS

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """The label of each text."""
        answers = self._loaded.classify(texts, beat=lambda: None)
        return [answer.labels[0] for answer in answers if not isinstance(answer, engine.RowError)]

    def warm(self, texts: Sequence[str], *, seconds: float) -> None:
        """Classify these until autotuning has settled on a batch size, or its time is over."""
        end = time.monotonic() + seconds
        for _ in range(self._laps):
            self(texts)
            known = any(CACHE_NAME in file.read_text() for file in self._found.iterdir())
            if known or time.monotonic() > end:
                return


def pipeline_of(folder: Path, *, batch: int, device: torch.device, dtype: torch.dtype) -> Peer:
    """The pipeline of transformers, in batches of ``batch`` rows, in the order of the corpus."""
    auto: Any = AutoModelForSequenceClassification
    tokenizers: Any = AutoTokenizer
    make: Any = pipeline
    made = make(
        "text-classification",
        model=auto.from_pretrained(folder, dtype=dtype),
        tokenizer=tokenizers.from_pretrained(folder),
        device=device,
        batch_size=batch,
    )
    given = {"truncation": True, "max_length": MAX_TOKENS}
    return lambda texts: [answer["label"] for answer in made(list(texts), **given)]


def has_flash_attention() -> bool:
    """Whether the package is installed that the library's flash attention needs."""
    return bool(is_flash_attn_2_available()) or is_there("kernels")


def sentence_transformers_of(
    folder: Path, *, device: torch.device, dtype: torch.dtype, flash: bool = False
) -> Peer:
    """sentence-transformers for the first token's state, which the model's own head then reads.

    With ``flash`` attention it computes without padding.
    """
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    from sentence_transformers.sentence_transformer.modules import (  # noqa: PLC0415
        Pooling,
        Transformer,
    )

    auto: Any = AutoModelForSequenceClassification
    whole = auto.from_pretrained(folder, dtype=torch.float32).eval()
    names = whole.config.id2label
    how = {"attn_implementation": "flash_attention_2"} if flash else {}
    layers = Transformer(
        str(folder), max_seq_length=MAX_TOKENS, model_kwargs={"dtype": dtype, **how}
    )
    pooling = Pooling(whole.config.hidden_size, pooling_mode="cls")
    encoder = SentenceTransformer(modules=[layers, pooling], device=str(device))

    def run(texts: Sequence[str]) -> list[str]:
        states = encoder.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)
        with torch.inference_mode():
            pooled = whole.base_model.pooler(states[:, None].float().cpu())
            return [names[int(best)] for best in whole.classifier(pooled).argmax(dim=1)]

    return run


def onnx_of(folder: Path, onnx: Path, *, threads: int, budget: int) -> Peer:
    """ONNX Runtime in float32, on CPU, texts sorted, in batches by a budget of padded tokens."""
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    return _sorted(folder, lambda inputs: session.run(None, inputs)[0], budget=budget)


def onnx_int8_of(folder: Path, onnx: Path, *, threads: int, budget: int) -> Peer:
    """ONNX Runtime with its dynamic quantization, weights by output channel; else as in float32."""
    import onnxruntime.quantization as onnx_quantization  # noqa: PLC0415

    small = onnx.with_name("model_int8.onnx")
    onnx_quantization.quantize_dynamic(onnx, small, per_channel=True)
    return onnx_of(folder, small, threads=threads, budget=budget)


def openvino_of(folder: Path, onnx: Path, *, threads: int, budget: int) -> Peer:
    """OpenVINO in float32, on CPU, texts sorted, in batches by a budget of padded tokens."""
    import openvino  # noqa: PLC0415

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(onnx), "CPU", settings)
    return _sorted(folder, lambda inputs: compiled(inputs)[0], budget=budget)


def is_there(name: str) -> bool:
    """Whether a library is installed."""
    return importlib.util.find_spec(name) is not None


def export(folder: Path, onnx: Path) -> None:
    """Write the folder's classifier as ONNX, with dynamic axes for rows and tokens."""
    auto: Any = AutoModelForSequenceClassification
    model = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = tuple(torch.ones((2, 8), dtype=torch.long) for _ in names)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        model,
        example,
        onnx,
        input_names=names,
        output_names=["logits"],
        dynamic_shapes=dict.fromkeys(names, free),
        dynamo=True,
        verbose=False,
    )


def _sorted(
    folder: Path, run: Callable[[dict[str, Any]], np.ndarray[Any, Any]], *, budget: int
) -> Peer:
    tokenizers: Any = AutoTokenizer
    auto: Any = AutoModelForSequenceClassification
    tokenizer = tokenizers.from_pretrained(folder)
    names = auto.from_pretrained(folder).config.id2label

    def labels(texts: Sequence[str]) -> Iterator[tuple[int, str]]:
        ids = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        for batch in plain_loop.batches([len(each) for each in ids], budget=budget):
            rows = {"input_ids": [ids[index] for index in batch]}
            inputs = dict(tokenizer.pad(rows, return_tensors="np"))
            inputs["token_type_ids"] = np.zeros_like(inputs["input_ids"])
            for index, best in zip(batch, run(inputs).argmax(axis=1), strict=True):
                yield index, names[int(best)]

    return lambda texts: [label for _, label in sorted(labels(texts))]
