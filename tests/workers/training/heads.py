"""Small random bases with different kinds of heads, saved as language models without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

SMALL = {
    "vocab_size": 44,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
ENDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
BART = {
    "vocab_size": 44,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
}
T5 = {
    "vocab_size": 44,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 1,
    "num_heads": 2,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
GPT2 = {"vocab_size": 44, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, **ENDS}
XLNET = {"vocab_size": 44, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32, **ENDS}

BASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertForMaskedLM", "BertConfig", SMALL),
    "deberta": ("DebertaV2ForMaskedLM", "DebertaV2Config", SMALL),
    "electra": ("ElectraForPreTraining", "ElectraConfig", SMALL | {"embedding_size": 16}),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", SMALL | ENDS),
    "albert": ("AlbertForMaskedLM", "AlbertConfig", SMALL | {"embedding_size": 16}),
    "distilbert": (
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"vocab_size": 44, "dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2},
    ),
    "xlnet": ("XLNetLMHeadModel", "XLNetConfig", XLNET),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
    "bart": ("BartForConditionalGeneration", "BartConfig", BART),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5),
}
"""By name: the class that is saved, its config's class, and the config."""


def base(folder: Path, name: str, *, seed: int = 1, **fields: Any) -> Path:
    """The saved base with a tokenizer of forty words, ``w0`` to ``w39``; returns the folder."""
    build, configure, shape = BASES[name]
    config = getattr(transformers, configure)(**shape | fields)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        getattr(transformers, build)(config).save_pretrained(folder)
    words(folder)
    return folder


def words(folder: Path) -> None:
    """Save a tokenizer that reads words between ``<s>`` and ``</s>``, and knows both in a text."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    known = {
        word: word_id for word_id, word in enumerate([*special, *(f"w{i}" for i in range(40))])
    }
    backend = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    build: Any = transformers.PreTrainedTokenizerFast
    build(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        cls_token="<s>",
        sep_token="</s>",
        model_max_length=60,
    ).save_pretrained(folder)
