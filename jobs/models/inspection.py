"""The facts of a model's folder, found without torch.

A folder with an ``adapter_config.json`` is an adapter: LoRA weights for the model whose folder its
link ``base`` leads to. Everything but the weights is the adapter's own. Nothing in the folder is
executed: no pickle, no remote code (promise P10).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.errors import ModelFailure
from jobs.models import (
    config_files,
    model_digest,
    sentence_transformers,
    signatures,
    sizes,
    weights,
)
from jobs.models.config_files import ADAPTER, NO_LIMIT, ConfigFile
from jobs.models.signatures import Signature

TOKENIZER = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
PREPROCESSOR = ("preprocessor_config.json", "processor_config.json")
"""How images and audio are read."""

HEAD = "ForSequenceClassification"
MULTI_LABEL = "multi_label_classification"
"""``problem_type`` in the config of a head whose rows have any number of labels."""
HEAD_TENSORS = ("classifier.", "score.", "classification_head.", "pre_classifier.")
WIDTHS = ("hidden_size", "d_model", "dim", "n_embd", "emb_dim")
"""Config fields for the length of a token's vector."""

POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")
"""Config fields for the length of the position table."""

POSITIONS_AFTER_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Model types whose first position is ``pad_token_id + 1``: a table of 514 serves 512 tokens."""

MAX_LABELS = 100_000


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model before it is loaded."""

    digest: str  # sha256 over names and contents of all files that the results depend on
    model_type: str
    architectures: tuple[str, ...]
    id2label: tuple[str, ...] | None  # by id; None: the config names no labels
    problem_type: str | None  # from the config, e.g. multi_label_classification
    has_head: bool  # a sequence-classification head is among the weights
    pooling: str | None  # sentence pooling; None: the files do not name one
    modules: tuple[str, ...]  # of a sentence-transformers folder, in order; empty for any other
    prompt: str  # put before every text; empty: none
    pools_prompt: bool  # the prompt's own tokens are pooled too
    width: int | None  # length of a token's vector; None: not in the config
    chat_template: str | None  # sha256 of the tokenizer's own; None: it has none
    max_tokens: int | None  # longest input, special tokens included; None: no limit is known
    dimensions: int | None  # that embeddings are truncated to; None: all
    lowercases: bool  # texts are put into lower case before they are tokenized
    has_decoder: bool  # beside an encoder
    has_tokenizer: bool  # it reads texts
    has_preprocessor: bool  # it reads images or audio
    signature: Signature | None  # how a version was trained; None: the folder has no signature
    decoder_positions: int | None = None  # length of a decoder's position table; None: no limit
    vocabulary: int | None = None  # rows of the embedding table, from the config
    largest_token: int | None = None  # the largest id in tokenizer.json

    @property
    def has_chat_template(self) -> bool:
        return self.chat_template is not None


def inspect(folder: Path) -> ModelFacts:
    """The facts of a model folder; reads JSON, weight headers, and, for the digest, every byte.

    Raises ``ModelFailure`` with a code of the list in ``jobs.models``.
    """
    facts = look(folder)
    base = _base_folder(folder)
    below = None if base is None else inspect(base).digest
    return replace(facts, digest=model_digest.digest(folder, base=below))


def look(folder: Path) -> ModelFacts:
    """The same without the digest, which is empty: the weights are not read."""
    config = _config(folder)
    _check_inputs(folder)
    base_folder = _base_folder(folder)
    base = None if base_folder is None else look(base_folder)
    tensors = weights.tensors(folder)
    sizes.check(config, tensors=tensors)
    architectures = config.texts("architectures")
    settings = sentence_transformers.settings(folder)
    transformer = sentence_transformers.transformer(folder)
    pools_prompt = sentence_transformers.pools_prompt(folder)
    return ModelFacts(
        digest="",
        model_type=config.text("model_type") or "",
        architectures=architectures,
        id2label=_labels(config),
        problem_type=config.text("problem_type"),
        has_head=_has_head(architectures, tensors=tensors),
        pooling=sentence_transformers.pooling(folder) or (base.pooling if base else None),
        modules=sentence_transformers.modules(folder) or (base.modules if base else ()),
        prompt=sentence_transformers.prompt(settings) or (base.prompt if base else ""),
        pools_prompt=pools_prompt and (base is None or base.pools_prompt),
        width=_width(config),
        chat_template=chat_template(folder),
        max_tokens=_max_tokens(folder, config=config, transformer=transformer),
        dimensions=sentence_transformers.dimensions(settings)
        or (base.dimensions if base else None),
        lowercases=bool(transformer.flag("do_lower_case"))
        or (base is not None and base.lowercases),
        has_decoder=bool(config.flag("is_encoder_decoder")),
        has_tokenizer=_has_tokenizer(folder),
        has_preprocessor=_has_preprocessor(folder),
        signature=signatures.read(folder),
        decoder_positions=_decoder_positions(config),
        vocabulary=config.count("vocab_size"),
        largest_token=sizes.largest_token(folder),
    )


def _config(folder: Path) -> ConfigFile:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelFailure(f"there is no config.json in {folder}", code="model_missing")
    config = config_files.read(path)
    # The auto classes' own table of files to import from the folder: code we never run.
    if "auto_map" in config.values:
        raise ModelFailure(
            "the model needs its own code to be run (auto_map in config.json), which is off: "
            "choose one whose architecture the transformers library has",
            code="model_remote_code",
        )
    return config


def _has_tokenizer(folder: Path) -> bool:
    return any(True for pattern in TOKENIZER for _ in folder.glob(pattern))


def _has_preprocessor(folder: Path) -> bool:
    return any((folder / name).is_file() for name in PREPROCESSOR)


def _check_inputs(folder: Path) -> None:
    if not _has_tokenizer(folder) and not _has_preprocessor(folder):
        raise ModelFailure(
            "the model has no tokenizer: tokenizer.json (or vocab.txt, or a *.model file) "
            f"must lie in {folder}",
            code="model_no_tokenizer",
        )


def _base_folder(folder: Path) -> Path | None:
    """The folder of the model that an adapter adapts; ``None`` for a model with full weights."""
    if not (folder / ADAPTER).is_file():
        return None
    if not (folder / "base").is_dir():
        raise ModelFailure(
            f"{folder} is an adapter, and the folder of its base must lie in it as `base`: "
            "register it, and the link is made for you; or merge it into its base",
            code="model_missing",
        )
    return folder / "base"


def _has_head(architectures: tuple[str, ...], *, tensors: Iterable[str]) -> bool:
    if architectures:
        return any(name.endswith(HEAD) for name in architectures)
    return any(name.startswith(HEAD_TENSORS) for name in tensors)


def _labels(config: ConfigFile) -> tuple[str, ...] | None:
    names = config.values.get("id2label")
    if not names:
        count = config.count("num_labels") or 0
        # The library's own names for the labels of a config that has only their number.
        return tuple(f"LABEL_{index}" for index in range(min(count, MAX_LABELS))) or None
    try:
        by_id = {int(key): str(value) for key, value in names.items()}
        return tuple(by_id[index] for index in range(len(by_id)))
    except (AttributeError, KeyError, ValueError) as error:
        raise config.wrong("id2label", "a map of 0, 1, 2 ... to names") from error


def _width(config: ConfigFile) -> int | None:
    return next((width for name in WIDTHS if (width := config.count(name))), None)


def chat_template(folder: Path) -> str | None:
    """The sha256 of the chat template; of several templates, of the default one."""
    path = folder / "chat_template.jinja"
    if path.is_file():  # the library prefers it
        text: str | None = path.read_text(encoding="utf-8", errors="replace")
    else:
        text = _default_template(config_files.optional(folder, "tokenizer_config.json"))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() if text else None


def _default_template(config: ConfigFile) -> str | None:
    templates = config.values.get("chat_template")
    if not isinstance(templates, list):
        return config.text("chat_template")
    defaults = (
        entry for entry in templates if isinstance(entry, dict) and entry.get("name") == "default"
    )
    return next((str(entry.get("template")) for entry in defaults), None)


def _max_tokens(folder: Path, *, config: ConfigFile, transformer: ConfigFile) -> int | None:
    """The smallest of the limits in the model's files."""
    tokenizer = config_files.optional(folder, "tokenizer_config.json")
    limits = [
        tokenizer.number("model_max_length"),
        transformer.number("max_seq_length"),
        _positions(config),
    ]
    known = [int(limit) for limit in limits if limit is not None and 1 <= limit < NO_LIMIT]
    return min(known, default=None)


def _positions(config: ConfigFile) -> float | None:
    table = next((count for name in POSITIONS if (count := config.number(name))), None)
    if table is None or config.text("model_type") not in POSITIONS_AFTER_PADDING:
        return table
    padding = config.number("pad_token_id")
    return table - (1 if padding is None else padding) - 1


def _decoder_positions(config: ConfigFile) -> int | None:
    """Tokens that a decoder beside an encoder can write, if it has a position table."""
    if not config.flag("is_encoder_decoder"):
        return None
    own = config.count("max_decoder_position_embeddings")
    if own is not None:
        return own
    if config.text("model_type") in sizes.DECODER_TABLES:
        return config.count("max_position_embeddings")
    decoder = config.section("decoder")
    if decoder.text("model_type") in POSITIONS_AFTER_PADDING | {"bert"}:
        positions = _positions(decoder)
        return None if positions is None or not 1 <= positions < NO_LIMIT else int(positions)
    return None
