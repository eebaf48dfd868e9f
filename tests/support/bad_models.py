"""Models that cannot do what a job asks of them, or not for every row; each loads in milliseconds.

Their texts are words ``w0`` to ``w39``. What saves a model or a tokenizer returns the folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from jobs.kinds import ClassifyOptions, EmbedOptions, GenerateOptions, Options, Text2TextOptions

WORDS = 40
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
VOCABULARY = len(SPECIAL) + WORDS
PANICS = "x" * 40
"""A word on which the regular expression of ``panicking`` never comes to an end."""


def texts(count: int, *, longest: int = 12) -> list[str]:
    """Different texts of 1 to ``longest`` words."""
    return [
        " ".join(f"w{(row * 7 + place * 3) % WORDS}" for place in range(1 + row % longest))
        for row in range(count)
    ]


def backend(*, ends: bool = True) -> Tokenizer:
    """A tokenizer of words; ``ends``: in ``<s>`` and ``</s>``."""
    pieces = [*SPECIAL, *(f"w{number}" for number in range(WORDS))]
    made = Tokenizer(
        models.WordLevel({piece: place for place, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ends:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> $B </s>",
            special_tokens=[("<s>", 0), ("</s>", 2)],
        )
    return made


def words(folder: Path, made: Tokenizer, **more: Any) -> Path:
    """Save the tokenizer in a model's folder; gives the folder back."""
    build: Any = PreTrainedTokenizerFast
    names: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    names |= {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>"} | more
    build(tokenizer_object=made, **names).save_pretrained(folder)
    return folder


def changed(folder: Path, *files: str, **fields: Any) -> Path:
    """With fields of its JSON files (default: config.json) set to these values, or left out."""
    for name in files or ("config.json",):
        path = folder / name
        config = json.loads(path.read_text()) | fields
        path.write_text(json.dumps(config))
    return folder


def without(folder: Path, *fields: str) -> Path:
    """With fields left out of config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    kept = {key: value for key, value in config.items() if key not in fields}
    path.write_text(json.dumps(kept))
    return folder


def saved(kind: Any, config: Any, folder: Path) -> Path:
    """A random model, the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        kind(config).eval().save_pretrained(folder)
    return folder


def bert(folder: Path, **shape: Any) -> Path:
    """A classifier of three labels."""
    config = BertConfig(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_labels": 3,
            "pad_token_id": 1,
            "max_position_embeddings": 64,
            "initializer_range": 0.5,
        }
        | shape
    )
    return words(saved(BertForSequenceClassification, config, folder), backend())


def llama(folder: Path, *, template: str | None = None, **shape: Any) -> Path:
    """A causal language model."""
    config = LlamaConfig(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
        }
        | shape
    )
    saved(LlamaForCausalLM, config, folder)
    return words(folder, backend(ends=False), chat_template=template)


def bart(folder: Path, *, head: Any = BartForConditionalGeneration, **shape: Any) -> Path:
    """An encoder with a decoder, which never ends a text by itself; or one with another head."""
    config = BartConfig(
        **{
            "vocab_size": VOCABULARY,
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "max_position_embeddings": 64,
            "forced_eos_token_id": None,
            "num_labels": 3,
            "init_std": 0.5,
        }
        | shape
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = head(config).eval()
    if head is BartForConditionalGeneration:
        model.final_logits_bias[0, 2] = -1e4
    model.save_pretrained(folder)
    return words(folder, backend())


def bart_classifier(folder: Path) -> Path:
    """A head that reads the last ``</s>``: all rows of a batch must have as many of them."""
    return bart(folder, head=BartForSequenceClassification)


def panicking(folder: Path, build: Any = bert) -> Path:
    """A tokenizer whose normalizer panics, in Rust, on the word ``PANICS``."""
    made = backend(ends=build is not llama)
    made.normalizer = normalizers.Replace(Regex(r"(x+x+)+y"), "z")
    return words(build(folder), made)


def with_tokens(folder: Path, tokens: Sequence[str], build: Any = bert) -> Path:
    """Tokens added to the tokenizer alone: the table of embeddings has no rows for them."""
    made = backend(ends=build is not llama)
    made.add_tokens(list(tokens))
    return words(build(folder), made)


SHORT = GenerateOptions(max_new_tokens=4)
SHORT_2 = Text2TextOptions(max_new_tokens=4)
NULLS = {"decoder_start_token_id": None, "bos_token_id": None, "forced_bos_token_id": None}
FEW = "model_few_embeddings"
BOTH = ("config.json", "generation_config.json")

Build = Callable[[Path], Path]
Fault = tuple[Build, Options, str, tuple[str, ...]]
"""What builds the model, the job's options, the code it fails with, and words of the message."""


def added(build: Any) -> Build:
    """Two tokens more than rows of the table of embeddings."""
    return lambda folder: with_tokens(folder, ["<one>", "<two>"], build)


def generation(build: Any, **fields: Any) -> Build:
    """With these settings in its generation_config.json."""
    return lambda folder: changed(build(folder), "generation_config.json", **fields)


def few_labels(folder: Path) -> Path:
    """Two names for the three outputs of the head."""
    return changed(bert(folder), id2label={"0": "a", "1": "b"}, label2id={})


def no_start(folder: Path) -> Path:
    """No file names the token that begins a text."""
    return changed(bart(folder), *BOTH, **NULLS)


def short_decoder(folder: Path) -> Path:
    """Its decoder has 32 positions."""
    return bart(folder, max_position_embeddings=32)


def layers(folder: Path) -> Path:
    """Its config names ten million layers."""
    return changed(bert(folder), num_hidden_layers=10**7)


def wide(folder: Path) -> Path:
    """Its config names a vocabulary of a trillion tokens."""
    return changed(bert(folder), vocab_size=10**12)


def wrong_width(folder: Path) -> Path:
    """Its config names another size than its tensors have."""
    return changed(bert(folder), intermediate_size=48)


def always_panics(folder: Path) -> Path:
    """Its tokenizer panics for every text."""
    made = backend()
    made.pre_tokenizer = pre_tokenizers.FixedLength(length=0)
    return words(bert(folder), made)


FAULTS: dict[str, Fault] = {
    "16 classify": (
        added(bert),
        ClassifyOptions(),
        "model_few_embeddings",
        ("45", "44"),
    ),
    "16 embed": (added(bert), EmbedOptions(), "model_few_embeddings", ("45", "44")),
    "16 generate": (added(llama), SHORT, "model_few_embeddings", ("45", "44")),
    "16 text2text": (added(bart), SHORT_2, "model_few_embeddings", ("45", "44")),
    "20": (short_decoder, Text2TextOptions(), "model_too_short", ("32", "128")),
    "21": (no_start, SHORT_2, "model_no_start_token", ("decoder_start_token_id",)),
    "25": (few_labels, ClassifyOptions(), "model_unreadable", ("id2label", "2 names", "size 3")),
    "a tensor of another shape": (
        wrong_width,
        ClassifyOptions(),
        "model_unreadable",
        ("(32,", "(48,"),
    ),
    "ten million layers": (
        layers,
        ClassifyOptions(),
        "model_unreadable",
        ("10,000,000", "tensors"),
    ),
    "a vocabulary like no other": (wide, EmbedOptions(), "model_unreadable", ("larger than 64",)),
    "contrastive search": (
        generation(llama, penalty_alpha=0.6, top_k=4),
        SHORT,
        "generation_unsupported",
        ("penalty_alpha 0.6",),
    ),
    "DoLa": (
        generation(llama, dola_layers="high"),
        SHORT,
        "generation_unsupported",
        ("dola_layers high",),
    ),
    "group beam search": (
        generation(bart, num_beams=4, num_beam_groups=2, diversity_penalty=0.5),
        SHORT_2,
        "generation_unsupported",
        ("num_beam_groups 2",),
    ),
    "constrained beam search": (
        generation(bart, num_beams=4, force_words_ids=[[5]]),
        SHORT_2,
        "generation_unsupported",
        ("force_words_ids",),
    ),
    "a token that is forced and is none": (
        generation(bart, forced_bos_token_id=5_000),
        SHORT_2,
        "model_raises",
        ("IndexError",),
    ),
    "a tokenizer that always panics": (
        always_panics,
        ClassifyOptions(),
        "model_raises",
        ("PanicException", "the tokenizer"),
    ),
}


def looping(folder: Path) -> Path:
    """A chat template that counts to ten billion."""
    body = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    return llama(folder, template=body)


def multiplying(folder: Path) -> Path:
    """A tokenizer that doubles every e forty times."""
    made = backend()
    twice = [normalizers.Replace("e", "ee") for _ in range(40)]
    made.normalizer = normalizers.Sequence(twice)
    return words(bert(folder), made)


ENDLESS: dict[str, Fault] = {
    "a chat template that loops": (looping, SHORT, "template_timeout", ("CPU time",)),
    "a normalizer that multiplies": (
        multiplying,
        ClassifyOptions(),
        "model_ends_worker",
        ("tokenizer",),
    ),
}
"""What only a worker's process may be given, which can be ended."""
