"""Random models of two layers that write: a decoder and an encoder with a decoder.

Their tokens are bytes, so that what they write is any text; the same seed gives the same model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

MAX_TOKENS = 256
CHAT = (
    "{% for message in messages %}"
    "{% if message['role'] not in ('system', 'user', 'assistant') %}"
    "{{ raise_exception('a role must be system, user or assistant') }}{% endif %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LANGUAGES = ("de_DE", "en_XX", "fr_XX")
SIZE = 32


def tiny_generator(
    folder: Path, *, family: str = "llama", chat: bool = False, seed: int = 0
) -> Path:
    """A saved causal language model, of ``llama`` or ``gpt2``; gives the folder back."""
    tokenizer = _tokenizer(MAX_TOKENS)
    if chat:
        tokenizer.chat_template = CHAT
    shape: dict[str, Any] = {"vocab_size": len(tokenizer), "initializer_range": 0.3}
    shape |= {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    if family == "gpt2":
        shape |= {"n_embd": SIZE, "n_layer": 2, "n_head": 2, "n_positions": MAX_TOKENS}
        return _saved(GPT2LMHeadModel, GPT2Config(**shape), tokenizer, folder, seed=seed)
    shape |= {"hidden_size": SIZE, "intermediate_size": 2 * SIZE, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(max_position_embeddings=MAX_TOKENS, **shape)
    return _saved(LlamaForCausalLM, config, tokenizer, folder, seed=seed)


def tiny_translator(folder: Path, *, family: str = "t5", seed: int = 0) -> Path:
    """A saved encoder with a decoder, of ``t5`` or ``bart``; gives the folder back."""
    tokenizer = _tokenizer(MAX_TOKENS, bos=False)
    shape: dict[str, Any] = {"vocab_size": len(tokenizer), "d_model": SIZE}
    shape |= {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    if family == "t5":
        shape |= {"d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
        config: Any = T5Config(initializer_factor=3.0, **shape)
        return _saved(T5ForConditionalGeneration, config, tokenizer, folder, seed=seed)
    shape |= {"encoder_layers": 2, "decoder_layers": 2, "init_std": 0.3, "bos_token_id": 0}
    shape |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    shape |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "forced_eos_token_id": None}
    config = BartConfig(max_position_embeddings=MAX_TOKENS, **shape)
    return _saved(BartForConditionalGeneration, config, tokenizer, folder, seed=seed)


def _saved(kind: Any, config: Any, tokenizer: Any, folder: Path, *, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(limit: int, *, bos: bool = True) -> Any:
    special = ["<s>", "<pad>", "</s>", "<unk>", *LANGUAGES]
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    single = "<s> $A" if bos else "$A </s>"
    ids = [("<s>", 0), ("</s>", 2)]
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    build: Any = PreTrainedTokenizerFast
    return build(
        tokenizer_object=backend,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(LANGUAGES),
        model_max_length=limit,
        model_input_names=["input_ids", "attention_mask"],
    )
