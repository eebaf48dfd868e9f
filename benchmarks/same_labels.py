"""Promise P6 on whole corpora: the engine against the model run row by row in float32.

``python -m benchmarks.same_labels CORPUS... [--column NAME]``. Each CORPUS, CSV or JSONL, is
classified by all-MiniLM-L6-v2 with label texts and embedded, by plain transformers one row at a
time, and by the engine in chunks of several sizes. Kept, for each corpus in a file of its own:
rows whose label differs, and the largest difference of a number in an embedding of length one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from api.cli.docstrings import TOPICS
from benchmarks import machine, stack
from jobs.corpora import reading, sources
from jobs.settings import Settings
from jobs.specs import ClassifyOptions, Corpus, EmbedOptions
from workers.inference import engine
from workers.inference.classifier import Prediction
from workers.inference.embedder import Embedding

LABELS = tuple(TOPICS)
CHUNKS = (100, 5_000)

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
    for size in CHUNKS:
        differing = sum(a != b for a, b in zip(labels, _labels(texts, size), strict=True))
        largest = float(np.abs(vectors - _vectors(texts, size)).max())
        figures[f"chunks of {size}"] = {
            "labels_differing": differing,
            "embedding_difference": largest,
        }
        print(
            f"{corpus.stem}: {len(texts):,} rows, chunks of {size}: {differing} labels differ, "
            f"embeddings by at most {largest:.1e}",
            flush=True,
        )
    return figures


def _texts(corpus: Path, column: str | None) -> Iterator[str]:
    source = sources.from_uri(corpus.as_uri(), allowed=[corpus.parent.as_uri()])
    asked = Corpus(uri=corpus.as_uri(), text_column=column)
    for batch in reading.read(source, asked, max_row_bytes=Settings().max_row_bytes):
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
    found = torch.cat([vector(text) for text in texts])
    best = (found @ points.T).argmax(dim=1).tolist()
    return [LABELS[place] for place in best], found.numpy()


def _labels(texts: Sequence[str], size: int) -> list[str]:
    model = engine.load(stack.minilm(), ClassifyOptions(labels=LABELS), settings=Settings())
    found: list[str] = []
    for start in range(0, len(texts), size):
        for answer in model.classify(texts[start : start + size], beat=lambda: None):
            assert isinstance(answer, Prediction)
            found.append(answer.labels[0])
    return found


def _vectors(texts: Sequence[str], size: int) -> Vectors:
    model = engine.load(stack.minilm(), EmbedOptions(normalize=True), settings=Settings())
    found: list[Vectors] = []
    for start in range(0, len(texts), size):
        chunk = dict(enumerate(texts[start : start + size]))
        for answer in model.answer(chunk, beat=lambda: None).values():
            assert isinstance(answer, Embedding)
            found.append(answer.vector)
    return np.stack(found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpora", type=Path, nargs="+", help="CSV or JSONL files")
    parser.add_argument("--column", help="of the texts; default: the likeliest")
    return parser.parse_args()


if __name__ == "__main__":
    main()
