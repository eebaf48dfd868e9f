"""Generation: the engine against transformers in fixed batches and in continuous batches.

``python -m benchmarks.generation CORPUS --tokenizer FOLDER [--shape SHAPE] [--rows N]``. Prompts of
5 to 512 tokens are made of the corpus's words. The model has a SHAPE and random weights; a part of
its vocabulary ends a text. Tokens per second count new tokens, sampled at temperature 1: so texts
end at different lengths, as they do in life. Texts are compared at temperature 0. On a GPU
everything computes in bfloat16.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from benchmarks import corpora, machine
from jobs.settings import Settings
from jobs.specs import GenerateOptions
from workers.inference import engine
from workers.inference.writing import Written

ROUNDS = 3
STEPS = 128
ENDS = 64
"""One token in so many ends a text."""

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "intermediate_size": 1024},
    "0.5b": {"num_hidden_layers": 24, "hidden_size": 896, "num_attention_heads": 14}
    | {"num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151_936},
}


class Peer(Protocol):
    """From prompts to the text of each, and how many tokens it took, that of its end included."""

    def __call__(self, prompts: Sequence[str], *, sample: bool) -> list[tuple[str, int]]:
        """The likeliest text of each, or one at temperature 1."""


def main() -> None:
    given = _arguments()
    if given.threads:
        torch.set_num_threads(given.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    texts, _ = corpora.news(given.corpus, rows=given.rows)
    prompts = corpora.mixed(texts, rows=given.rows)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        _random_model(folder, shape=given.shape, tokenizer=given.tokenizer)
        made = _peers(folder, device=device)
        figures = _compare(made, prompts, device=device)
    about = {"rounds": ROUNDS, "threads": torch.get_num_threads(), "torch": torch.__version__}
    if device.type == "cuda":
        about["gpu"] = torch.cuda.get_device_name()
    name = f"generation_{given.shape}_{device.type}"
    machine.keep(name, {**about, "prompts": len(prompts), "most_new_tokens": STEPS, **figures})


def _compare(
    made: dict[str, Peer], prompts: list[str], *, device: torch.device
) -> dict[str, dict[str, float]]:
    rates: dict[str, list[float]] = {name: [] for name in made}
    said: dict[str, list[tuple[str, int]]] = {}
    for name, peer in made.items():
        said[name] = peer(prompts, sample=False)
    for _ in range(ROUNDS):
        for name, peer in made.items():
            began = time.perf_counter()
            sampled = peer(prompts, sample=True)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - began
            rates[name].append(sum(count for _, count in sampled) / seconds)
    return {
        name: {
            "new_tokens_per_second": statistics.median(rates[name]),
            "engine_over_it": statistics.median(
                ours / theirs for ours, theirs in zip(rates["engine"], rates[name], strict=True)
            ),
            "texts_equal": statistics.mean(
                ours == theirs for ours, theirs in zip(said["engine"], said[name], strict=True)
            ),
        }
        for name in made
    }


def _peers(folder: Path, *, device: torch.device) -> dict[str, Peer]:
    auto: Any = AutoModelForCausalLM
    tokenizers: Any = AutoTokenizer
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    tokenizer = tokenizers.from_pretrained(folder)
    settings = Settings(worker_threads=torch.get_num_threads())
    loaded = {
        sample: engine.load(
            folder,
            GenerateOptions(max_new_tokens=STEPS, temperature=float(sample)),
            settings=settings,
        )
        for sample in (False, True)
    }
    how: dict[bool, dict[str, Any]] = {
        False: {"do_sample": False},
        True: {"do_sample": True, "temperature": 1.0, "top_k": 0},
    }
    model = auto.from_pretrained(folder, dtype=dtype).to(device).eval()
    paged = copy.deepcopy(model)
    ends = set(model.generation_config.eos_token_id)

    def ours(prompts: Sequence[str], *, sample: bool) -> list[tuple[str, int]]:
        found = loaded[sample].answer(dict(enumerate(prompts)), beat=lambda: None)
        texts = [found[row] for row in range(len(prompts))]
        return [(each.output, each.output_tokens) for each in texts if isinstance(each, Written)]

    def fixed(prompts: Sequence[str], *, sample: bool) -> list[tuple[str, int]]:
        new: list[list[int]] = []
        for start in range(0, len(prompts), 32):
            rows = {"input_ids": [tokenizer(text)["input_ids"] for text in prompts[start:][:32]]}
            inputs = tokenizer.pad(rows, padding_side="left", return_tensors="pt").to(device)
            with torch.inference_mode():
                found = model.generate(**inputs, max_new_tokens=STEPS, **how[sample])
            new += found[:, inputs["input_ids"].shape[1] :].tolist()
        return [read(row) for row in new]

    def continuous(prompts: Sequence[str], *, sample: bool) -> list[tuple[str, int]]:
        settings = copy.deepcopy(paged.generation_config)
        settings.update(max_new_tokens=STEPS, **how[sample])
        rows = [tokenizer(text)["input_ids"] for text in prompts]
        with torch.no_grad():  # its thread writes to tensors that this one makes
            found = paged.generate_batch(rows, generation_config=settings)
        return [read(each.generated_tokens) for each in found.values()]

    def read(new: list[int]) -> tuple[str, int]:
        end = next((place for place, token in enumerate(new) if token in ends), len(new))
        return tokenizer.decode(new[: end + 1], skip_special_tokens=True), len(new[: end + 1])

    return {
        "engine": ours,
        "generate, batches of 32": fixed,
        "generate_batch, continuous": continuous,
    }


def _random_model(folder: Path, *, shape: str, tokenizer: Path) -> None:
    tokenizers: Any = AutoTokenizer
    found = tokenizers.from_pretrained(tokenizer)
    given: dict[str, Any] = {"vocab_size": len(found), **SHAPES[shape]}
    torch.manual_seed(0)
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(Qwen2Config(**given))
    model.generation_config.eos_token_id = list(range(1, given["vocab_size"], ENDS))
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    found.model_max_length = 4096
    found.save_pretrained(folder)


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
