"""Tiny models of every task, a split in shards, and runs of the evaluation program on them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.support.tiny_models import LABELS, SENTENCES
from workers.inference import model_loader
from workers.training import evaluate
from workers.training.messages import MessageWriter

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("line", pa.int64()),
        ("text", pa.string()),
        ("target", pa.string()),
    ]
)
SPREAD = 0.3
WINDOW = 64


def write_split(
    work: Path, rows: Sequence[tuple[str, str | None]], *, split: str = "test", shard_rows: int = 7
) -> None:
    """The rows as shards under ``data``."""
    folder = work / "data" / split
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, len(rows), shard_rows)):
        piece = list(enumerate(rows))[start : start + shard_rows]
        table = [
            {"row": row, "line": row + 1, "text": text, "target": target}
            for row, (text, target) in piece
        ]
        pq.write_table(pa.Table.from_pylist(table, SCHEMA), folder / f"{number:06}.parquet")


def config_file(work: Path, *, task: str, models: dict[str, Path], **fields: Any) -> Path:
    """Write ``evaluate.json`` for these models."""
    path = work / "evaluate.json"
    config = {
        "job_id": "job-1",
        "task": task,
        "multi_label": False,
        "split": "test",
        "batch_tokens": 256,
        "max_tokens": None,
        "models": [{"name": name, "folder": str(folder)} for name, folder in models.items()],
    }
    path.write_text(json.dumps(config | fields))
    return path


def run(path: Path) -> tuple[int, list[dict[str, Any]]]:
    """The exit status of the program, and its messages."""
    command = [sys.executable, "-m", "workers.training.evaluate", str(path)]
    status = subprocess.run(command, check=False).returncode
    lines = (path.parent / "told" / "evaluate.jsonl").read_text().splitlines()
    return status, [json.loads(line) for line in lines]


def report_here(path: Path) -> dict[str, dict[str, Any]]:
    """The reports, computed in this process, which saves the start of another one."""
    config = evaluate.read(path)
    messages = MessageWriter(config.folder / "told", name="evaluate")
    progress = evaluate.EvaluationProgress(messages, stop_requested=lambda: False)
    evaluate.write(config, progress=progress)
    return reports(path.parent)


def reports(work: Path) -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = json.loads((work / "reports.json").read_text())
    return loaded


def tiny_writer(folder: Path, *, seed: int = 0) -> Path:
    """A random causal language model with two layers."""
    tokenizer = _tokenizer(enclosed=False)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=WINDOW,
        initializer_range=SPREAD,
        bos_token_id=1,
        eos_token_id=1,
    )
    return _saved(GPT2LMHeadModel, config, tokenizer, folder=folder, seed=seed)


def tiny_translator(folder: Path, *, seed: int = 0) -> Path:
    """A random encoder and decoder of two layers each."""
    tokenizer = _tokenizer(enclosed=True)
    configs: Any = T5Config
    config = configs(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return _saved(T5ForConditionalGeneration, config, tokenizer, folder=folder, seed=seed)


def adapter(
    folder: Path, *, base: Path, labels: Sequence[str] = LABELS, seed: int = 1, rank: int = 4
) -> Path:
    """A LoRA adapter with random weights on a classifier, linked to it as ``base``.

    The folder ``<name>-merged`` beside it holds both, merged by peft.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _base_with_head(base, labels=labels)
        config = LoraConfig(
            task_type="SEQ_CLS", r=rank, lora_alpha=8, target_modules=["query", "value"]
        )
        adapted: Any = get_peft_model(model, config)
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.3)
        adapted.save_pretrained(folder)
    model.config.save_pretrained(folder)
    model_loader.tokenizer(base).save_pretrained(folder)
    (folder / "base").symlink_to(base)
    whole = folder.with_name(f"{folder.name}-merged")
    adapted.merge_and_unload().save_pretrained(whole)
    model_loader.tokenizer(base).save_pretrained(whole)
    return folder


def _base_with_head(base: Path, *, labels: Sequence[str]) -> Any:
    configs: Any = AutoConfig
    config = configs.from_pretrained(base)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: label_id for label_id, label in enumerate(labels)}
    model, _ = model_loader.assembled(
        base, auto=AutoModelForSequenceClassification, dtype=torch.float32, config=config
    )
    return model


def _saved(build: Any, config: Any, tokenizer: Any, *, folder: Path, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        build(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(*, enclosed: bool) -> Any:
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer: Any = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    backend.decoder = decoders.Metaspace()
    if enclosed:
        backend.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 1)]
        )
    build: Any = PreTrainedTokenizerFast
    return build(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=WINDOW,
        model_input_names=["input_ids", "attention_mask"],
    )
