"""Promise P6 on whole corpora: the engine against the model run row by row in float32.

``python -m benchmarks.same_labels CORPUS... [--column NAME]``. Each CORPUS, CSV or JSONL, is
classified by all-MiniLM-L6-v2 with label texts and embedded, and classified by the same model with
a head, by plain transformers one row at a time, and by the engine in chunks of several sizes, in
int8 as well. The head is trained on the labels that the label texts gave the first rows. Each
corpus has a file of figures: the rows whose label differs (in int8 also between chunk sizes), and
the largest difference of a component of an embedding of length one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from api.cli.docstring_corpus import TOPICS
from benchmarks import machine, stack, trained
from jobs.corpora import readers, sources
from jobs.kinds import ClassifyOptions, Corpus, EmbedOptions
from jobs.settings import Settings
from workers.inference import engine
from workers.inference.tasks.classifier import Prediction
from workers.inference.tasks.embedder import Embedding

LABELS = tuple(TOPICS)
CHUNKS = (100, 5_000)
HEAD_ROWS = 1_000

Vectors = npt.NDArray[np.float32]


def main() -> None:
    given = _arguments()
    for corpus in given.corpora:
        figures = {corpus.stem: _compare(corpus, given.column)}
        machine.keep(f"same_labels_{corpus.stem}", figures)


def _compare(corpus: Path, column: str | None) -> dict[str, Any]:
    texts = list(_texts(corpus, column))
    labels, vectors = _row_by_row(texts)
    figures: dict[str, Any] = {"rows": len(texts)}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        trained.classifier(model, texts=texts[:HEAD_ROWS], labels=labels[:HEAD_ROWS])
        heads = _heads_row_by_row(model, texts)
        by_int8: dict[int, list[list[str]]] = {}
        for size in CHUNKS:
            by_texts = _labels(stack.minilm(), ClassifyOptions(labels=LABELS), texts, size)
            by_head = _labels(model, ClassifyOptions(), texts, size)
            by_int8[size] = [
                _labels(stack.minilm(), ClassifyOptions(labels=LABELS, int8=True), texts, size),
                _labels(model, ClassifyOptions(int8=True), texts, size),
            ]
            differences = figures[f"chunks of {size}"] = {
                "labels_differing": _differing(labels, by_texts),
                "heads_labels_differing": _differing(heads, by_head),
                "int8_labels_differing": _differing(labels, by_int8[size][0]),
                "int8_heads_labels_differing": _differing(heads, by_int8[size][1]),
                "int8_labels_differing_by_chunks": sum(
                    map(_differing, by_int8[CHUNKS[0]], by_int8[size])
                ),
                "embedding_difference": float(np.abs(vectors - _vectors(texts, size)).max()),
            }
            print(
                f"{corpus.stem}: {len(texts):,} rows, chunks of {size}: {differences}", flush=True
            )
    return figures


def _differing(expected: Sequence[str], labels: Sequence[str]) -> int:
    return sum(one != other for one, other in zip(expected, labels, strict=True))


def _texts(corpus: Path, column: str | None) -> Iterator[str]:
    source = sources.from_uri(corpus.as_uri(), allowed=[corpus.parent.as_uri()])
    asked = Corpus(uri=corpus.as_uri(), text_column=column)
    for batch in readers.read(source, asked, max_row_bytes=Settings().max_row_bytes):
        yield from (text for text in batch.column("text").to_pylist() if text is not None)


@torch.inference_mode()
def _row_by_row(texts: Sequence[str]) -> tuple[list[str], Vectors]:
    auto, tokenizers = AutoModel, AutoTokenizer
    model: Any = auto.from_pretrained(stack.minilm(), dtype=torch.float32).eval()
    tokenizer: Any = tokenizers.from_pretrained(stack.minilm())

    def vector(text: str) -> torch.Tensor:
        inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        return functional.normalize(model(**inputs).last_hidden_state.mean(dim=1), dim=1)

    points = torch.cat([vector(label) for label in LABELS])
    vectors = torch.cat([vector(text) for text in texts])
    best = (vectors @ points.T).argmax(dim=1).tolist()
    return [LABELS[place] for place in best], vectors.numpy()


@torch.inference_mode()
def _heads_row_by_row(folder: Path, texts: Sequence[str]) -> list[str]:
    auto, tokenizers = AutoModelForSequenceClassification, AutoTokenizer
    model: Any = auto.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer: Any = tokenizers.from_pretrained(folder)
    names = model.config.id2label

    def label(text: str) -> str:
        inputs = tokenizer(
            text, truncation=True, max_length=trained.MAX_TOKENS, return_tensors="pt"
        )
        return str(names[int(model(**inputs).logits.argmax())])

    return [label(text) for text in texts]


def _labels(folder: Path, options: ClassifyOptions, texts: Sequence[str], size: int) -> list[str]:
    model = engine.load(folder, options, settings=Settings())
    labels: list[str] = []
    for start in range(0, len(texts), size):
        for answer in model.classify(texts[start : start + size], beat=lambda: None):
            assert isinstance(answer, Prediction)
            labels.append(answer.labels[0])
    return labels


def _vectors(texts: Sequence[str], size: int) -> Vectors:
    model = engine.load(stack.minilm(), EmbedOptions(normalize=True), settings=Settings())
    vectors: list[Vectors] = []
    for start in range(0, len(texts), size):
        chunk = dict(enumerate(texts[start : start + size]))
        for answer in model.answer(chunk, beat=lambda: None).values():
            assert isinstance(answer, Embedding)
            vectors.append(answer.vector)
    return np.stack(vectors)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpora", type=Path, nargs="+", help="CSV or JSONL files")
    parser.add_argument("--column", help="of the texts; default: the likeliest")
    return parser.parse_args()


if __name__ == "__main__":
    main()
