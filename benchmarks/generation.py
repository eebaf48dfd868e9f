"""Generation: the engine against transformers in fixed batches and in continuous batches.

``python -m benchmarks.generation CORPUS --tokenizer FOLDER [--shape SHAPE] [--rows N] [--threads
N]``. Prompts of 5 to 512 tokens are made of the corpus's words, and each may write 8 to 128 new
tokens, both uniform on a logarithmic scale. The model has a SHAPE and random weights, and a part
of its vocabulary ends a text. It decodes greedily, and then samples at temperature 1. New tokens
per second count those that a prompt asked for, up to its end; greedy texts are compared. On a GPU
everything computes in bfloat16.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching.utils import WorkloadHints

from benchmarks import corpora, machine
from jobs.kinds import GenerateOptions
from jobs.settings import Settings
from workers.inference import engine
from workers.inference.batching.tokenization import PairedText
from workers.inference.decoding.text_generation import GeneratedText

ROUNDS = 3
BATCH = 32
LEAST, MOST = 8, 128
"""New tokens of a prompt."""

ENDS = 64
"""Every nth token of the vocabulary ends a text."""

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "intermediate_size": 1024},
    "0.5b": {"num_hidden_layers": 24, "hidden_size": 896, "num_attention_heads": 14}
    | {"num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151_936},
}


CPU_MEMORY = 0.05
"""The share of free memory that transformers' cache may take on a CPU; 0.9 of it would swap."""


@dataclass(frozen=True)
class Work:
    """Prompts, the most new tokens of each, and the temperature; 0 decodes greedily."""

    prompts: list[str]
    steps: list[int]
    temperature: float


Peer = Callable[[Work], list[tuple[str, int]]]
"""Gives each prompt its text and the number of its tokens, with the one that ends it."""


def main() -> None:
    given = _arguments()
    machine.use_threads(given.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    texts, _ = corpora.news(given.corpus, rows=given.rows)
    prompts = corpora.mixed(texts, rows=given.rows)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        _random_model(folder, shape=given.shape, tokenizer=given.tokenizer)
        made = _Peers(folder, prompts=prompts, device=device).all()
        figures = _compare(made, prompts, device=device)
    about = {"rounds": ROUNDS, "threads": torch.get_num_threads(), "torch": torch.__version__}
    if device.type == "cuda":
        about["gpu"] = torch.cuda.get_device_name()
    name = f"generation_{given.shape}_{device.type}"
    machine.keep(name, {**about, "prompts": len(prompts), **figures})


def _compare(
    made: dict[str, Peer], prompts: list[str], *, device: torch.device
) -> dict[str, dict[str, float]]:
    chance = random.Random(0)
    steps = [round(LEAST * (MOST / LEAST) ** chance.random()) for _ in prompts]
    works = {
        "likeliest": Work(prompts, steps, temperature=0.0),
        "sampled": Work(prompts, steps, temperature=1.0),
    }
    rates: dict[tuple[str, str], list[float]] = {(how, name): [] for how in works for name in made}
    for work in works.values():
        for peer in made.values():  # warm-up
            peer(Work(work.prompts[:8], work.steps[:8], work.temperature))
    greedy: dict[str, list[str]] = {}
    for _ in range(ROUNDS):
        for (how, name), each in rates.items():
            began = time.perf_counter()
            texts = made[name](works[how])
            if device.type == "cuda":
                torch.cuda.synchronize()
            each.append(sum(count for _, count in texts) / (time.perf_counter() - began))
            print(f"{how}, {name}: {each[-1]:,.0f} new tokens/s", flush=True)
            if how == "likeliest":
                greedy[name] = [text for text, _ in texts]
    return {name: _figures(name, rates, greedy=greedy) for name in made}


def _figures(
    name: str, rates: dict[tuple[str, str], list[float]], *, greedy: dict[str, list[str]]
) -> dict[str, float]:
    pairs = zip(greedy["engine"], greedy[name], strict=True)
    figures = {"texts_equal": statistics.mean(ours == theirs for ours, theirs in pairs)}
    for how, each in rates:
        if each == name:
            pace, ours = rates[how, name], rates[how, "engine"]
            over = (one / other for one, other in zip(ours, pace, strict=True))
            figures[f"{how}_new_tokens_per_second"] = statistics.median(pace)
            figures[f"{how}_engine_over_it"] = statistics.median(over)
    return figures


class _Peers:
    """One model, loaded once for each way to generate."""

    def __init__(self, folder: Path, *, prompts: list[str], device: torch.device) -> None:
        auto: Any = AutoModelForCausalLM
        tokenizers: Any = AutoTokenizer
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        settings = Settings(worker_threads=torch.get_num_threads())
        options = GenerateOptions(max_new_tokens=MOST)
        self._engine = engine.load(folder, options, settings=settings)
        self._tokenizer = tokenizers.from_pretrained(folder)
        self._model = auto.from_pretrained(folder, dtype=dtype).to(device).eval()
        self._paged: dict[float, Any] = {heat: copy.deepcopy(self._model) for heat in (0.0, 1.0)}
        longest = max(len(self._tokenizer(text)["input_ids"]) for text in prompts)
        self._hints = WorkloadHints(longest, MOST, num_requests=len(prompts))
        share = CPU_MEMORY if device.type == "cpu" else None  # None: as the library chooses
        self._batching = ContinuousBatchingConfig(max_memory_percent=share)
        self._ends = set(self._model.generation_config.eos_token_id)

    def all(self) -> dict[str, Peer]:
        """By their names in the figures."""
        return {
            "engine": self.ours,
            f"generate, batches of {BATCH}": self.fixed,
            "continuous batching of transformers": self.continuous,
        }

    def ours(self, work: Work) -> list[tuple[str, int]]:
        """Prompts with settings of their own, through the engine."""
        items = {
            row: PairedText(
                prompt, json.dumps({"max_new_tokens": steps, "temperature": work.temperature})
            )
            for row, (prompt, steps) in enumerate(zip(work.prompts, work.steps, strict=True))
        }
        answers = self._engine.answer(items, beat=lambda: None)
        texts = [answers[row] for row in items]
        return [
            (each.output, each.output_tokens) for each in texts if isinstance(each, GeneratedText)
        ]

    def fixed(self, work: Work) -> list[tuple[str, int]]:
        """In the order of the corpus; each batch runs to the largest limit of its prompts."""
        new: list[list[int]] = []
        for start in range(0, len(work.prompts), BATCH):
            texts, steps = (each[start:][:BATCH] for each in (work.prompts, work.steps))
            rows = {"input_ids": [self._tokenizer(text)["input_ids"] for text in texts]}
            inputs = self._tokenizer.pad(rows, padding_side="left", return_tensors="pt").to(
                self._model.device
            )
            with torch.inference_mode():
                tokens = self._model.generate(**inputs, max_new_tokens=max(steps), **_how(work))
            written = tokens[:, inputs["input_ids"].shape[1] :].tolist()
            new += [row[:most] for row, most in zip(written, steps, strict=True)]
        return [self._read(row) for row in new]

    def continuous(self, work: Work) -> list[tuple[str, int]]:
        """As ``generate_batch`` does, with a limit of new tokens for each prompt."""
        model = self._paged[work.temperature]
        config = copy.deepcopy(model.generation_config)
        config.update(max_new_tokens=MOST, **_how(work))
        rows = [self._tokenizer(text)["input_ids"] for text in work.prompts]
        generated: dict[str, list[int]] = {}
        with (
            torch.no_grad(),  # its thread writes to tensors that this one makes
            model.continuous_batching_context_manager(
                generation_config=config,
                continuous_batching_config=self._batching,
                workload_hints=self._hints,
                persistent_manager=True,
            ) as manager,
        ):
            names = [
                manager.add_request(ids, max_new_tokens=steps, eos_token_id=sorted(self._ends))
                for ids, steps in zip(rows, work.steps, strict=True)
            ]
            while len(generated) < len(names):
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    generated[result.request_id] = result.generated_tokens
                elif result is None and not manager.is_running():
                    raise RuntimeError("transformers' continuous batching ended before its time")
        return [self._read(generated[name]) for name in names]

    def _read(self, new: list[int]) -> tuple[str, int]:
        end = next((place for place, token in enumerate(new) if token in self._ends), len(new))
        return self._tokenizer.decode(new[: end + 1], skip_special_tokens=True), len(new[: end + 1])


def _how(work: Work) -> dict[str, Any]:
    if not work.temperature:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": work.temperature, "top_k": 0}


def _random_model(folder: Path, *, shape: str, tokenizer: Path) -> None:
    tokenizers: Any = AutoTokenizer
    loaded = tokenizers.from_pretrained(tokenizer)
    given: dict[str, Any] = {"vocab_size": len(loaded), **SHAPES[shape]}
    torch.manual_seed(0)
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(Qwen2Config(**given))
    model.generation_config.eos_token_id = list(range(1, given["vocab_size"], ENDS))
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    loaded.model_max_length = 4096
    loaded.save_pretrained(folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path, help="a CSV file with columns text and label")
    parser.add_argument("--tokenizer", type=Path, required=True, help="has tokenizer.json")
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--threads", type=int, default=0, help="default: as torch chooses")
    return parser.parse_args()


if __name__ == "__main__":
    main()
