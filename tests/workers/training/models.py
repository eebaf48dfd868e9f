"""Small random generative models, saved as base folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GPT2Config, T5Config

from tests.support import tiny_models


def tiny_causal_lm(folder: Path) -> Path:
    """A saved GPT-2 (2 layers, hidden size 32, 64 tokens) of bytes."""
    tokenizer = tiny_models._tokenizer("gpt2")
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _saved(folder, AutoModelForCausalLM, config=config, tokenizer=tokenizer)


def tiny_seq2seq(folder: Path) -> Path:
    """A saved T5 (1 layer each way, hidden size 32) of bytes."""
    tokenizer = tiny_models._tokenizer("roberta")
    shape: Any = T5Config
    config = shape(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=1,
        num_decoder_layers=1,
        num_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return _saved(folder, AutoModelForSeq2SeqLM, config=config, tokenizer=tokenizer)


def without_dropout(folder: Path) -> Path:
    """The same model without dropout."""
    path = folder / "config.json"
    config = json.loads(path.read_bytes())
    config |= {name: 0.0 for name in config if name.endswith(("dropout_prob", "dropout"))}
    path.write_text(json.dumps(config))
    return folder


def _saved(folder: Path, auto: Any, *, config: Any, tokenizer: Any) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        auto.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
