"""A model folder built from a corpus alone: a tokenizer trained on it, and random weights.

Equal texts in equal order and an equal seed make equal bytes, on every host.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from jobs.kinds import Architecture, Task
from workers.architectures import LSTMConfig, TextCNNConfig

VOCABULARY = 20_000
"""Largest vocabulary; a small corpus makes a smaller one."""

MAX_TOKENS = 512
"""The window, if the recipe names none."""

PAD, BEGIN, END = "<pad>", "<s>", "</s>"
SPECIAL = (PAD, BEGIN, END)
"""In the order of their ids."""

HAN = r"[\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\x{20000}-\x{323AF}]"
PUNCTUATION = r"[^\p{L}\p{M}\p{N}\s]"

Component = Any
"""A component of a tokenizer, for which the library has no types."""


def build(
    architecture: Architecture,
    *,
    task: Task,
    texts: Iterable[str],
    labels: Sequence[str] | None,
    multi_label: bool,
    seed: int,
    max_tokens: int | None,
    folder: Path,
) -> None:
    """Write the untrained model; ``folder`` appears once it is complete.

    ``texts`` is read once and not kept; memory grows with the number of distinct words. ``labels``
    are a classifier's, by id.
    """
    tokenizer = train_tokenizer(
        texts, task=task, enclosed=architecture is Architecture.TRANSFORMER, max_tokens=max_tokens
    )
    config = _config(architecture, task=task, tokenizer=tokenizer)
    if task is Task.CLASSIFY:
        _name_labels(config, labels=labels or (), multi_label=multi_label)
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    _seeded(config, task=task, seed=seed).save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    draft.rename(folder)


def train_tokenizer(
    texts: Iterable[str], *, task: Task, enclosed: bool, max_tokens: int | None
) -> Any:
    """Byte-pair encoding within words; every Han character is a word.

    It has no unknown token: a rare character becomes two or three byte tokens. A classifier's
    texts are normalized in case, width and spaces; a language model decodes its texts unchanged.
    ``enclosed`` adds a special token at both ends of a classifier's text, in which attention can
    gather. A language model's text always has one at its start.
    """
    backend = Tokenizer(models.BPE())
    if task is Task.CLASSIFY:
        backend.normalizer, backend.pre_tokenizer = _normalizing()
    else:
        backend.normalizer, backend.pre_tokenizer = _lossless()
    backend.decoder = decoders.ByteLevel()
    trainer: Component = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    template = _template(task, enclosed=enclosed)
    special_tokens = [(token, SPECIAL.index(token)) for token in (BEGIN, END)]
    backend.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=special_tokens
    )
    return _wrapped(backend, max_tokens=max_tokens or MAX_TOKENS)


def _normalizing() -> tuple[Component, Component]:
    split = pre_tokenizers.Split
    pieces = [
        pre_tokenizers.WhitespaceSplit(),
        split(Regex(f"{HAN}|{PUNCTUATION}"), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    steps = [normalizers.NFKC(), normalizers.Lowercase()]
    return normalizers.Sequence(steps), pre_tokenizers.Sequence(pieces)


def _lossless() -> tuple[Component, Component]:
    pieces = [
        pre_tokenizers.Split(Regex(HAN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    return normalizers.NFC(), pre_tokenizers.Sequence(pieces)


def _template(task: Task, *, enclosed: bool) -> str:
    if task is not Task.CLASSIFY:
        return f"{BEGIN} $A"
    return f"{BEGIN} $A {END}" if enclosed else "$A"


def _wrapped(backend: Tokenizer, *, max_tokens: int) -> Any:
    build: Any = PreTrainedTokenizerFast
    return build(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        cls_token=BEGIN,
        sep_token=END,
        model_max_length=max_tokens,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _config(architecture: Architecture, *, task: Task, tokenizer: Any) -> PreTrainedConfig:
    ids: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    vocabulary = len(tokenizer)
    if architecture is Architecture.TEXTCNN:
        return TextCNNConfig(vocab_size=vocabulary, pad_token_id=0)
    if architecture is Architecture.LSTM:
        return LSTMConfig(vocab_size=vocabulary, **ids)
    window = tokenizer.model_max_length
    if task is Task.CLASSIFY:
        return BertConfig(
            vocab_size=vocabulary,
            hidden_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=window,
            type_vocab_size=1,
            pad_token_id=0,
        )
    return GPT2Config(
        vocab_size=vocabulary, n_embd=256, n_layer=4, n_head=4, n_positions=window, **ids
    )


def _name_labels(config: Any, *, labels: Sequence[str], multi_label: bool) -> None:
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    kind = "multi_label" if multi_label else "single_label"
    config.problem_type = f"{kind}_classification"


def _seeded(config: PreTrainedConfig, *, task: Task, seed: int) -> Any:
    """The model with random weights from the seed; torch's global generator is unchanged."""
    auto: Any = (
        AutoModelForSequenceClassification if task is Task.CLASSIFY else AutoModelForCausalLM
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # orthogonal weights depend on the number of threads of a factorization
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return auto.from_config(config)
    finally:
        torch.set_num_threads(threads)
