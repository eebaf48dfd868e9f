"""The engine against the alternatives, and against the limit of the device.

``python -m benchmarks.engine CORPUS [--rows N] [--rounds N] [--threads N]
[--shape SHAPE --tokenizer FOLDER]``. CORPUS is a CSV file with columns ``text`` and ``label``.
Every peer, in a process of its own, classifies the same rows with the same model in turns with the
others: news, and rows of 5 to 512 tokens. The model is all-MiniLM-L6-v2 with a
head trained on other rows of the corpus, or a SHAPE with random weights. On a GPU everything
computes in bfloat16. Useful work counts real tokens only; the limit is a large matrix product in
the same dtype, measured between the rounds, on CPU by the faster of MKL and oneDNN. Every processor
has figures of its own.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

from benchmarks import corpora, machine, peers, trained
from benchmarks.peers import Apart, Peer
from workers.inference.kernels.linear_layouts import LinearLayout
from workers.inference.kernels.onednn_linear import PrepackedLinear

SHAPES = {  # layers, width, heads, inner width
    "minilm": (6, 384, 12, 1536),
    "bert-base": (12, 768, 12, 3072),
    "bert-large": (24, 1024, 16, 4096),
}
HEAD_ROWS = 1_000
EXPORTED = {
    "onnxruntime": peers.onnx_of,
    "onnxruntime, int8": peers.onnx_int8_of,
    "openvino": peers.openvino_of,
}
"""Peers that read the model as ONNX."""


def main() -> None:
    given = _arguments()
    machine.use_threads(given.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    texts, labels = corpora.news(given.corpus, rows=given.rows + HEAD_ROWS)
    rows = {"news": texts[HEAD_ROWS:]}
    rows["mixed"] = corpora.mixed(texts, rows=given.mixed_rows or given.rows // 3)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as open_peers:
        model = Path(folder) / "model"
        if given.shape:
            _random_model(model, shape=given.shape, tokenizer=given.tokenizer)
        else:
            trained.classifier(model, texts=texts[:HEAD_ROWS], labels=labels[:HEAD_ROWS])
        makers = _peers(
            model,
            device=device,
            threads=torch.get_num_threads(),
            budgets=given.budgets,
            exported=[name for name in EXPORTED if given.peers is None or name in given.peers],
        )
        made = {
            name: open_peers.enter_context(closing(Apart(make)))
            for name, make in makers.items()
            if given.peers is None or name in given.peers
        }
        figures = {}
        for name, corpus in rows.items():
            for peer_name, peer in made.items():
                peer.warm(_few(peer_name, corpus, device=device), seconds=given.warm_seconds)
            figures[name] = _compare(made, corpus, model=model, device=device, rounds=given.rounds)
            _show(name, figures[name])
    name = "_".join(
        ["engine", given.shape or "minilm_trained", device.type]
        + ([machine.short_name()] if device.type == "cpu" else [])
        + ([f"{given.threads}_threads"] if given.threads else [])
    )
    about = {"rounds": given.rounds, "threads": torch.get_num_threads(), "torch": torch.__version__}
    if device.type == "cuda":
        about["gpu"] = torch.cuda.get_device_name()
    machine.keep(name, {**about, **figures})


def _compare(
    made: dict[str, Apart], texts: list[str], *, model: Path, device: torch.device, rounds: int
) -> dict[str, Any]:
    """Every peer on the same texts: real tokens per second, share of the limit, labels equal."""
    few = {name: _few(name, texts, device=device) for name in made}
    lengths = {name: _lengths(model, sample) for name, sample in few.items()}
    rates: dict[str, list[float]] = {name: [] for name in made}
    limits: list[float] = []
    predicted: dict[str, list[str]] = {}
    for turn in range(rounds):
        limits.append(_limit(device))
        for name in list(made)[:: -1 if turn % 2 else 1]:
            seconds, predicted[name] = made[name].timed(few[name])
            rates[name].append(sum(lengths[name]) / seconds)
            print(f"round {turn + 1}: {name:32} {rates[name][-1]:>12,.0f} tokens/s", flush=True)
    limit = statistics.median(limits)
    ours = dict(zip(texts, predicted["engine"], strict=True))
    return {
        "rows": len(texts),
        "tokens": sum(lengths["engine"]),
        "limit_tflops": limit / 1e12,
        "peers": {
            name: {
                "tokens_per_second": statistics.median(rates[name]),
                "engine_over_it": statistics.median(
                    mine / theirs for mine, theirs in zip(rates["engine"], rates[name], strict=True)
                ),
                "share_of_limit": statistics.median(rates[name])
                * _work(model, lengths[name])
                / sum(lengths[name])
                / limit,
                "labels_equal": statistics.mean(
                    ours[text] == label
                    for text, label in zip(few[name], predicted[name], strict=True)
                ),
            }
            for name in made
        },
    }


def _few(peer: str, texts: list[str], *, device: torch.device) -> list[str]:
    """The texts that a peer gets."""
    return texts[:: peers.SLOW.get(peer, 1) if device.type == "cuda" else 1]


def _show(name: str, figures: dict[str, Any]) -> None:
    limit = figures["limit_tflops"]
    print(f"{name}: {figures['rows']:,} rows, {figures['tokens']:,} tokens, {limit:.3f} TFLOP/s")
    for peer, figure in figures["peers"].items():
        print(
            f"  {peer:32} {figure['tokens_per_second']:>12,.0f} tokens/s"
            f"  engine over it {figure['engine_over_it']:6.2f}"
            f"  {figure['share_of_limit']:6.1%} of the limit"
            f"  {figure['labels_equal']:6.1%} of labels equal",
            flush=True,
        )


def _peers(
    model: Path,
    *,
    device: torch.device,
    threads: int,
    budgets: Sequence[int],
    exported: Sequence[str],
) -> dict[str, Callable[[], Peer]]:
    """A maker of each peer, to be called in the peer's own process."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    engine = partial(peers.Engine, model, threads=threads)
    made: dict[str, Callable[[], Peer]] = {"engine": engine}
    if device.type == "cpu":
        for layout in LinearLayout:
            made[f"engine, {layout} layers"] = partial(engine, layout=layout)
        made["engine, int8"] = partial(engine, int8=True)
    for budget in budgets:
        made[f"engine, budget {budget}"] = partial(engine, budget=budget)
    pipeline = partial(peers.pipeline_of, model, device=device, dtype=dtype)
    made["pipeline, row by row"] = partial(pipeline, batch=1)
    made["pipeline, batches of 32"] = partial(pipeline, batch=32)
    if peers.is_there("sentence_transformers"):
        made["sentence-transformers"] = partial(
            peers.sentence_transformers_of, model, device=device, dtype=dtype
        )
        if device.type == "cuda" and peers.has_flash_attention():
            made["sentence-transformers, flash attention"] = partial(
                peers.sentence_transformers_of, model, device=device, dtype=dtype, flash=True
            )
    if device.type == "cpu" and exported and peers.is_there("onnxscript"):
        onnx = model.parent / "model.onnx"
        peers.export(model, onnx)
        for name in exported:
            if peers.is_there(name.partition(",")[0]):
                made[name] = partial(EXPORTED[name], model, onnx, threads=threads, budget=1_024)
    return made


def _limit(device: torch.device) -> float:
    """Operations per second of a large matrix product, the median of eight."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    left, right = (torch.randn((size, size), device=device).to(dtype) for _ in range(2))
    wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    products: list[Callable[[], object]] = [lambda: left @ right]
    if device.type == "cpu":
        prepacked = PrepackedLinear(torch.nn.Linear(size, size))
        products.append(lambda: prepacked(left))
    seconds: list[list[float]] = [[] for _ in products]
    with torch.inference_mode():
        for _ in range(10):
            for product, each in zip(products, seconds, strict=True):
                wait()
                began = time.perf_counter()
                product()
                wait()
                each.append(time.perf_counter() - began)
    return 2 * size**3 / min(statistics.median(each[2:]) for each in seconds)


def _work(model: Path, lengths: Sequence[int]) -> float:
    """Operations that real tokens need: the layers' matrix products and attention.

    The head and the embeddings are left out: less than a hundredth. The last layer counts whole,
    for the engine too, which computes only the states that are read (decision 0022).
    """
    config = BertConfig.from_pretrained(model)
    width, inner = config.hidden_size, config.intermediate_size
    per_token = 2 * (4 * width * width + 2 * width * inner)
    per_pair = 4 * width
    return float(
        config.num_hidden_layers
        * sum(length * per_token + length * length * per_pair for length in lengths)
    )


def _lengths(model: Path, texts: Sequence[str]) -> list[int]:
    tokenizers: Any = AutoTokenizer
    tokenizer = tokenizers.from_pretrained(model)
    ids = tokenizer(list(texts), truncation=True, max_length=trained.MAX_TOKENS)["input_ids"]
    return [len(each) for each in ids]


def _random_model(folder: Path, *, shape: str, tokenizer: Path) -> None:
    layers, width, heads, inner = SHAPES[shape]
    tokenizers: Any = AutoTokenizer
    loaded = tokenizers.from_pretrained(tokenizer)
    config = BertConfig(
        vocab_size=len(loaded),
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=inner,
    )
    config.num_labels = 4
    torch.manual_seed(0)
    auto: Any = AutoModelForSequenceClassification
    auto.from_config(config).save_pretrained(folder)
    loaded.model_max_length = trained.MAX_TOKENS
    loaded.save_pretrained(folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path, help="a CSV file with columns text and label")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--mixed-rows", type=int, help="default: a third of the rows")
    parser.add_argument("--rounds", type=int, default=5, help="more of them on a noisy machine")
    parser.add_argument("--threads", type=int, default=0, help="default: as torch chooses")
    parser.add_argument("--shape", choices=SHAPES, help="random weights of this shape")
    parser.add_argument("--tokenizer", type=Path, help="a folder with the tokenizer of a shape")
    parser.add_argument(
        "--budgets", type=int, nargs="*", default=[], help="also with these budgets"
    )
    parser.add_argument(
        "--warm-seconds", type=float, default=600, help="an engine may take for its warm-up"
    )
    parser.add_argument(
        "--peers", nargs="*", help="only these, of which `engine` must be one; default: all"
    )
    given = parser.parse_args()
    if given.shape and not given.tokenizer:
        parser.error("--shape needs --tokenizer: a folder with tokenizer.json")
    return given


if __name__ == "__main__":
    main()
