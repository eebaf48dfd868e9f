"""Random classifiers of two layers that load in milliseconds, with real tokenizers.

The weights are drawn with a wide spread, so that different texts get different labels; the same
seed gives the same model, bit for bit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

Family = Literal["bert", "distilbert", "roberta", "gpt2"]
"""gpt2 is a decoder whose tokenizer has neither a padding token nor a limit."""

SENTENCES = (
    "The team won the final match after extra time.",
    "Scientists measured the light of a distant galaxy.",
    "Shares fell as the bank reported a loss for the quarter.",
    "The president met leaders of three countries on Monday.",
    "A new phone with a faster chip goes on sale next week.",
    "球队在加时赛后赢得了决赛。",
    "科学家测量了遥远星系的光。",
    "银行公布季度亏损后股价下跌。",
    "总统周一会见了三国领导人。",
    "一款配备更快芯片的新手机下周上市。",
)
LABELS = ("sports", "science", "business", "world")
MAX_TOKENS = 128
SPREAD = 0.3


def tiny_classifier(
    folder: Path,
    *,
    labels: tuple[str, ...] = LABELS,
    multi_label: bool = False,
    seed: int = 0,
    family: Family = "bert",
) -> Path:
    """A saved sequence classifier (2 layers, hidden size 32, 128 tokens); returns its folder."""
    tokenizer = _tokenizer(family)
    config = _config(family, vocabulary=len(tokenizer))
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "multi_label_classification" if multi_label else None
    model = seeded_classifier(config, seed=seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_encoder(
    folder: Path, *, pooling: str | None = "mean", seed: int = 0, family: Family = "bert"
) -> Path:
    """A saved encoder without a head, with the pooling that its files name (``None``: no file)."""
    tokenizer = _tokenizer(family)
    model = seeded_classifier(_config(family, vocabulary=len(tokenizer)), seed=seed)
    model.base_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling}))
    return folder


def sentence_files(
    folder: Path,
    *,
    modules: tuple[str, ...] = ("Transformer", "Pooling"),
    pooling: str | None = "mean",
    include_prompt: bool = True,
    **config: Any,
) -> Path:
    """Beside a model, the files that sentence-transformers saves; returns the folder.

    ``config`` is its own config: prompts, default_prompt_name, truncate_dim.
    """
    places = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    entries = [
        {
            "idx": index,
            "name": str(index),
            "path": places.get(name, name),
            "type": f"sentence_transformers.models.{name}",
        }
        for index, name in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
    if pooling is not None:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        module = {"pooling_mode": pooling, "include_prompt": include_prompt}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(module))
    return folder


def seeded_classifier(config: Any, *, seed: int) -> Any:
    """A random classifier that leaves torch's global generator as it was."""
    auto: Any = AutoModelForSequenceClassification
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return auto.from_config(config).eval()


def _config(family: Family, *, vocabulary: int) -> Any:
    shape: dict[str, Any] = {"vocab_size": vocabulary, "initializer_range": SPREAD}
    if family == "distilbert":
        shape |= {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}
        return DistilBertConfig(max_position_embeddings=MAX_TOKENS, **shape)
    if family == "gpt2":
        shape |= {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": MAX_TOKENS}
        return GPT2Config(**shape)
    shape |= {"hidden_size": 32, "intermediate_size": 64}
    shape |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    if family == "bert":
        return BertConfig(max_position_embeddings=MAX_TOKENS, **shape)
    # RoBERTa counts positions from the padding id + 1: two rows of the table are never used.
    shape |= {"type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return RobertaConfig(max_position_embeddings=MAX_TOKENS + 2, **shape)


def _tokenizer(family: Family) -> Any:
    if family in ("roberta", "gpt2"):
        return _byte_pairs(special=family == "roberta")
    return _word_pieces(types=family == "bert")


def _word_pieces(*, types: bool) -> Any:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    pieces = [*special, *_words(), *(f"##{letter}" for letter in _letters())]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ["input_ids", "token_type_ids", "attention_mask"]
    build: Any = PreTrainedTokenizerFast
    return build(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=MAX_TOKENS,
        model_input_names=names if types else ["input_ids", "attention_mask"],
    )


def _words() -> list[str]:
    """Every word and letter of the sentences, sorted: a trainer would break ties by chance."""
    words = {word.strip(".").lower() for sentence in SENTENCES for word in sentence.split()}
    return sorted(words | set(_letters()))


def _letters() -> list[str]:
    return sorted({letter.lower() for sentence in SENTENCES for letter in sentence} - {" "})


def _byte_pairs(*, special: bool) -> Any:
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    build: Any = PreTrainedTokenizerFast
    names = ["input_ids", "attention_mask"]
    if not special:
        return build(tokenizer_object=backend, eos_token="</s>", model_input_names=names)
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    return build(
        tokenizer_object=backend,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        model_input_names=names,
    )
