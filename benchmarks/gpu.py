"""Whether every kind is right on a GPU, and how fast it is, in six minutes.

``python -m benchmarks.gpu [--corpus CSV] [--tokenizer FOLDER]``, or ``make gpu``. In turn: every
kind against the library (``gpu_kinds``); the engine beside sentence-transformers, with flash
attention where it is installed, and the limit of a matrix product, in the shapes of MiniLM and
BERT-base (``engine``); a causal model of 0.5 billion parameters beside transformers in fixed and in
continuous batches (``generation``); a fine-tune that is killed and resumed (``gpu_training``). Each
part has a time limit and a process of its own, and the next one starts however it ended: six
minutes in all. The figures land in ``benchmarks/results/``, with the outcome of each part in
``gpu_*.json``. Without a GPU every part runs in small, which shows that the script works, and
nothing is kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import BertWordPieceTokenizer
from tokenizers.processors import BertProcessing
from transformers import PreTrainedTokenizerFast

from api.cli import docstring_corpus
from benchmarks import machine

CORPUS_ROWS = 12_000
VOCABULARY = 30_000
MAX_TOKENS = 512
SLOWER = 10
"""A part may take its time limit this many times on a CPU, even in small."""


@dataclass(frozen=True)
class Part:
    """A command and the seconds that it may take."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    seconds: int = 60


def main() -> None:
    given = _arguments()
    gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
        if not gpu:
            environment["BENCHMARK_RESULTS"] = str(folder / "results")
        corpus = given.corpus or _corpus(folder / "corpus.csv")
        tokenizer = given.tokenizer or _tokenizer(folder / "tokenizer", corpus)
        began = time.perf_counter()
        outcomes = {
            part.name: _run(part, environment=environment)
            for part in _parts(corpus, tokenizer, gpu=gpu)
        }
        seconds = time.perf_counter() - began
    for part, outcome in outcomes.items():
        print(f"{part:28} {outcome['outcome']:10} {outcome['seconds']:7.1f} s")
    print(f"{seconds:.0f} s in all")
    if gpu:
        device = torch.cuda.get_device_name()
        label = "_".join(device.lower().split())
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
        machine.keep(f"gpu_{label}", {"gpu": device, **versions, "seconds": seconds, **outcomes})
    else:
        print("there is no GPU here: this was the script in small, and no figure was kept")
    sys.exit(0 if all(each["outcome"] == "ok" for each in outcomes.values()) else 1)


def _parts(corpus: Path, tokenizer: Path, *, gpu: bool) -> Iterator[Part]:
    given = (str(corpus), "--tokenizer", str(tokenizer))
    peers = ("--peers", "engine", "sentence-transformers", "sentence-transformers, flash attention")
    rows = ("--rows", "8000" if gpu else "12", "--rounds", "3" if gpu else "1")
    warm = ("--warm-seconds", "10" if gpu else "1")
    patience = 1 if gpu else SLOWER
    yield Part("every kind", "gpu_kinds", seconds=90 * patience)
    for shape in ("minilm", "bert-base"):
        arguments = (*given, "--shape", shape, *rows, *warm, *peers)
        yield Part(f"classify, {shape}", "engine", arguments, seconds=60 * patience)
    size = ("--shape", "0.5b", "--rows", "192") if gpu else ("--shape", "tiny", "--rows", "2")
    yield Part("generate", "generation", (*given, *size), seconds=80 * patience)
    few = () if gpu else ("640",)
    yield Part("fine-tune, killed and resumed", "gpu_training", few, seconds=60 * patience)


def _run(part: Part, *, environment: dict[str, str]) -> dict[str, Any]:
    """The part's outcome, seconds, and the JSON lines that it printed."""
    command = [sys.executable, "-m", f"benchmarks.{part.module}", *part.arguments]
    print(f"\n== {part.name}: at most {part.seconds} s", flush=True)
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=part.seconds)
        outcome = "ok" if process.returncode == 0 else f"exit {process.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own processes hold its output open
        output, _ = process.communicate()
        outcome = "time is up"
    print(output, flush=True)
    return {
        "outcome": outcome,
        "seconds": time.perf_counter() - began,
        "found": [json.loads(line) for line in output.splitlines() if line.startswith("{")],
    }


def _corpus(path: Path) -> Path:
    """Documentation strings of the installed packages as a CSV file with ``text``, ``label``.

    The labels mean nothing: models of random weights learn none.
    """
    rows = path.with_suffix(".jsonl")
    docstring_corpus.write(rows, rows=CORPUS_ROWS)
    with rows.open(encoding="utf-8") as source, path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "label"])
        for place, row in enumerate(map(json.loads, source)):
            writer.writerow([row["text"], str(place % 4)])
    return path


def _tokenizer(folder: Path, corpus: Path) -> Path:
    """Word pieces of the corpus, so that a row has as many tokens as with a real model."""
    with corpus.open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(texts, vocab_size=VOCABULARY, show_progress=False)
    ends = [(name, trained.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    trained.post_processor = BertProcessing(*ends)
    make: Any = PreTrainedTokenizerFast
    folder.mkdir()
    make(
        tokenizer_object=trained._tokenizer,  # noqa: SLF001 (it has no public name)
        model_max_length=MAX_TOKENS,
        **{f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")},
    ).save_pretrained(folder)
    return folder


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, help="a CSV file with columns text and label")
    parser.add_argument("--tokenizer", type=Path, help="a folder with a BERT's tokenizer")
    return parser.parse_args()


if __name__ == "__main__":
    main()
