"""What a model's folder holds, found out without torch, and where hub models and folders are.

A folder with an ``adapter_config.json`` is an adapter: LoRA weights on the model whose folder the
link ``base`` in it leads to; everything but the weights is the adapter's own. Weights are
safetensors only and nothing in the folder is executed: no pickle, no remote code.
Every refusal is a ``ModelFailure`` with one of these codes:

    model_missing          no such folder or repository, or no config.json in it
    model_refused          not on the allow-list
    model_hub_unreachable  the hub could not be asked
    model_not_safetensors  weights only as pickle
    model_no_tokenizer     no tokenizer files
    model_remote_code      the config wants code of its own to be run
    model_unreadable       bad JSON, a field of a wrong type, a weights file that is cut short
    model_has_no_head      no classification head, and no labels to compare with
    model_not_an_encoder   embeddings are needed, but the model generates
    model_not_a_classifier the head is a regression, or has no entailment for a hypothesis
    model_not_a_generator  generate, but the model has no causal language model's head
    model_not_text2text    text2text, but the model is no encoder with a decoder
    model_no_chat_template a chat, but the model's tokenizer has no template for one
    model_too_short        more new tokens, or a longer prompt, than the model can hold
    model_no_start_token   an encoder with a decoder that is not told how a text begins
    model_few_embeddings   its tokenizer has token ids that its table of embeddings lacks
    generation_unsupported its files ask for a way to generate that is not supported
    model_no_pipeline      its architecture is for another task, or for none
    model_no_preprocessor  files as rows, but nothing says how the model reads them
    pipeline_refused       parameters that the pipeline does not take, or a package it lacks
    language_unknown       a language that the model's tokenizer has no token for
    model_too_narrow       more dimensions than the model's vectors have
    model_unsupported      its embeddings need a step that is not done here
    int8_needs_cpu         int8 on a worker whose device, or whose PyTorch, has none
    model_needs_devices    larger than all accelerators of a worker's process together
    explain_unavailable    explanations on a worker without captum
    model_load_timeout     loading it came to no end within its time limit, twice
    template_timeout       its chat template comes to no end for a first text
    tokenizer_timeout      its tokenizer comes to no end for a first text
    model_ends_worker      the worker's process died before the first row, twice
    model_raises           it raises for a text at load, or alike for nearly all rows, each alone
    label_without_tokens   a label of which the model's tokenizer makes nothing
    labels_indistinguishable   labels that become the same tokens, or the same embedding
    model_other_labels     label texts that a version with a head of its own was not trained on
    model_other_task       an evaluation for another task than the version was trained for
"""

from __future__ import annotations

import functools
import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from jobs.errors import ModelFailure
from jobs.models import config_files, references, signatures, sizes
from jobs.models.config_files import ModelFile
from jobs.models.references import Folder, Hub
from jobs.models.signatures import Signature

HUB_FILES = [
    "*.safetensors",
    "*.json",
    "*.txt",
    "*.model",
    "tokenizer*",
    "chat_template*",
    "1_Pooling/*",
]
NEVER = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.py", "*/*.safetensors"]

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
TOKENIZER = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
PREPROCESSOR = ("preprocessor_config.json", "processor_config.json")
"""How images and sounds are read."""
ADAPTER = "adapter_config.json"
IDENTITY = (
    "config.json",
    ADAPTER,
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "modules.json",
    "sentence_*_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "generation_config.json",
    "chat_template*",
    "preprocessor_config.json",
    "processor_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    signatures.FILE,
)
"""What the answers depend on, and so what the digest covers."""

BAD_HEADER = (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError)
HEAD = "ForSequenceClassification"
MULTI_LABEL = "multi_label_classification"
"""What ``problem_type`` in a config says of a head whose rows have any number of labels."""
HEAD_TENSORS = ("classifier.", "score.", "classification_head.", "pre_classifier.")
WIDTHS = ("hidden_size", "d_model", "dim", "n_embd", "emb_dim")
"""What configs call the length of a token's vector."""

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

SENTENCES = "config_sentence_transformers.json"
POOLING = "1_Pooling/config.json"
PLACES = {"Transformer": "", "Pooling": "1_Pooling"}
"""Where the modules of a sentence-transformers folder must lie to be read."""
POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")
NO_LIMIT = config_files.NO_LIMIT
"""Tokenizers that know no limit write 1e30."""
MOST_LABELS = 100_000
MAX_HEADER = 100 * 2**20
"""The safetensors format's own bound on its header."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model before it is loaded."""

    digest: str  # sha256 over names and contents of all files that the answers depend on
    model_type: str
    architectures: tuple[str, ...]
    id2label: tuple[str, ...] | None  # by id; None: the config names no labels
    problem_type: str | None  # as the config says, e.g. multi_label_classification
    has_head: bool  # a sequence-classification head is among the weights
    pooling: str | None  # sentence pooling that the model's files name; None: they name none
    modules: tuple[str, ...]  # of a sentence-transformers folder, in order; none: it is none
    prompt: str  # that its files put before every text; empty: none
    pools_prompt: bool  # the prompt's own tokens are pooled too
    width: int | None  # length of a token's vector; None: the config does not say
    chat_template: str | None  # sha256 of the tokenizer's own; None: it has none
    max_tokens: int | None  # longest input, special tokens included; None: no limit is known
    dimensions: int | None  # numbers of an embedding that its files keep; None: all
    lowers: bool  # its files say that texts are put into lower case before they are tokenized
    has_decoder: bool  # beside an encoder
    tokenizes: bool  # it reads texts
    preprocesses: bool  # it reads images or sounds
    signature: Signature | None  # how a version was trained; None: the folder does not say
    decoder_positions: int | None = None  # of a decoder that has a table of them; None: no limit
    vocabulary: int | None = None  # rows of the table of embeddings, as the config says
    largest_token: int | None = None  # the largest id that tokenizer.json names

    @property
    def chats(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return self.chat_template is not None


def resolve(reference: str, *, allowed: Sequence[str]) -> Path:
    """The local folder of an allowed reference; a hub model is downloaded if it is not here.

    Raises ``ModelFailure``: model_refused, model_missing, model_hub_unreachable.
    """
    match references.check_allowed(reference, allowed):
        case Hub(name=name, revision=revision):
            return _download(name, revision=revision)
        case Folder(path=path):
            return _local(Path(path), allowed=allowed)
    raise ModelFailure(
        f"{reference!r} is no hub model and no folder: jobs.models.resolver fetches what is in the "
        "registry or an object store",
        code="model_missing",
    )


def inspect(folder: Path) -> ModelFacts:
    """The facts of a model folder; reads JSON, weight headers, and, for the digest, every byte.

    Raises ``ModelFailure`` with a code of this module's list.
    """
    config = _config(folder)
    _check_readers(folder)
    base = _base(folder)
    tensors = _tensors(folder)
    sizes.check(config, tensors=tensors)
    architectures = config.texts("architectures")
    sentences = config_files.optional(folder, SENTENCES)
    transformer = _transformer(folder)
    return ModelFacts(
        digest=_digest(folder, base=base),
        model_type=config.text("model_type") or "",
        architectures=architectures,
        id2label=_labels(config),
        problem_type=config.text("problem_type"),
        has_head=_has_head(architectures, tensors=tensors),
        pooling=_pooling(folder) or (base.pooling if base else None),
        modules=_modules(folder) or (base.modules if base else ()),
        prompt=_prompt(sentences) or (base.prompt if base else ""),
        pools_prompt=_pools_prompt(folder) and (base is None or base.pools_prompt),
        width=_width(config),
        chat_template=chat_template(folder),
        max_tokens=_max_tokens(folder, config=config, transformer=transformer),
        dimensions=_dimensions(sentences) or (base.dimensions if base else None),
        lowers=bool(transformer.flag("do_lower_case")) or (base is not None and base.lowers),
        has_decoder=bool(config.flag("is_encoder_decoder")),
        tokenizes=_has_tokenizer(folder),
        preprocesses=_has_preprocessor(folder),
        signature=signatures.read(folder),
        decoder_positions=_decoder_positions(config),
        vocabulary=config.whole("vocab_size"),
        largest_token=sizes.largest_token(folder),
    )


def _download(name: str, *, revision: str | None) -> Path:
    import huggingface_hub  # noqa: PLC0415 - most processes fetch nothing
    from huggingface_hub import errors as hub_errors  # noqa: PLC0415

    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=HUB_FILES, ignore_patterns=NEVER
        )
    except (
        hub_errors.RepositoryNotFoundError,
        hub_errors.RevisionNotFoundError,
        hub_errors.HFValidationError,
    ) as error:
        raise ModelFailure(
            f"the hub has no model {name!r} at {revision or 'its default revision'} "
            "that this installation may read (a gated one needs HF_TOKEN)",
            code="model_missing",
        ) from error
    except Exception as error:  # of the hub's client, of HTTP, of the network, of the disk
        raise ModelFailure(
            f"{name!r} could not be fetched from the hub, and no whole copy of it is here: {error}",
            code="model_hub_unreachable",
        ) from error
    return Path(folder)


def _local(folder: Path, *, allowed: Sequence[str]) -> Path:
    """The real folder; links are followed on both sides before they are compared."""
    real = folder.resolve()
    prefixes = [Path(entry).resolve() for entry in references.folders(allowed)]
    if not any(real.is_relative_to(prefix) for prefix in prefixes):
        raise references.refused(str(folder), allowed=allowed)
    if not real.is_dir():
        raise ModelFailure(f"there is no model folder {folder}", code="model_missing")
    return real


def _config(folder: Path) -> ModelFile:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelFailure(f"there is no config.json in {folder}", code="model_missing")
    config = config_files.read(path)
    # The auto classes' own table of files to import from the folder: code we never run.
    if "auto_map" in config.values:
        raise ModelFailure(
            "the model wants its own code to be run (auto_map in config.json), and that is off: "
            "choose one whose architecture the transformers library has",
            code="model_remote_code",
        )
    return config


def _has_tokenizer(folder: Path) -> bool:
    return any(True for pattern in TOKENIZER for _ in folder.glob(pattern))


def _has_preprocessor(folder: Path) -> bool:
    return any((folder / name).is_file() for name in PREPROCESSOR)


def _check_readers(folder: Path) -> None:
    if not _has_tokenizer(folder) and not _has_preprocessor(folder):
        raise ModelFailure(
            "the model has no tokenizer: tokenizer.json (or vocab.txt, or a *.model file) "
            f"must lie in {folder}",
            code="model_no_tokenizer",
        )


def _base(folder: Path) -> ModelFacts | None:
    """The facts of the model that an adapter adapts; ``None`` for a model with full weights."""
    if not (folder / ADAPTER).is_file():
        return None
    if not (folder / "base").is_dir():
        raise ModelFailure(
            f"{folder} is an adapter, and the folder of its base must lie in it as `base`: "
            "register it, and the link is made for you; or merge it into its base",
            code="model_missing",
        )
    return inspect(folder / "base")


def _tensors(folder: Path) -> dict[str, Any]:
    """What the headers say of all tensors, by name; each must fit its file."""
    weights = list(_weights(folder))
    if not weights:
        pickled = any(True for pattern in PICKLES for _ in folder.glob(pattern))
        raise ModelFailure(
            "the weights must be safetensors; this folder has "
            + ("pickle files: convert them with " if pickled else "none: write them with ")
            + "model.save_pretrained(folder, safe_serialization=True)",
            code="model_not_safetensors",
        )
    return {name: entry for path in weights for name, entry in _header(path).items()}


def _weights(folder: Path) -> Iterator[Path]:
    name = "adapter_model" if (folder / ADAPTER).is_file() else "model"
    whole, index = folder / f"{name}.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        yield whole
    elif index.is_file():
        names = config_files.read(index).part("weight_map")
        for file in sorted({_file_of(tensor, names) for tensor in names.values}):
            yield folder / file


def _file_of(tensor: str, names: ModelFile) -> str:
    file = names.text(tensor)
    if not file or file != Path(file).name:
        raise names.wrong(tensor, "the name of a file in the same folder")
    return file


def _header(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file, which must be as long as its header says.

    The format: 8 bytes of little-endian length, that many bytes of JSON, the tensors' bytes.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            tensors = json.loads(file.read(min(length, MAX_HEADER)))
        tensors.pop("__metadata__", None)
        end = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except (*BAD_HEADER, struct.error) as error:
        raise ModelFailure(
            f"{path.name} is not a whole safetensors file: its header cannot be read"
        ) from error
    if size != 8 + length + end:
        raise ModelFailure(
            f"{path.name} must have {8 + length + end} bytes by its header, and has {size}: "
            "it was cut short or changed"
        )
    return cast("dict[str, Any]", tensors)


def _has_head(architectures: tuple[str, ...], *, tensors: Iterable[str]) -> bool:
    if architectures:
        return any(name.endswith(HEAD) for name in architectures)
    return any(name.startswith(HEAD_TENSORS) for name in tensors)


def _labels(config: ModelFile) -> tuple[str, ...] | None:
    names = config.values.get("id2label")
    if not names:
        count = config.whole("num_labels") or 0
        # As the library names the labels of a config that has their number alone.
        return tuple(f"LABEL_{index}" for index in range(min(count, MOST_LABELS))) or None
    try:
        by_id = {int(key): str(value) for key, value in names.items()}
        return tuple(by_id[index] for index in range(len(by_id)))
    except (AttributeError, KeyError, ValueError) as error:
        raise config.wrong("id2label", "a map of 0, 1, 2 ... to names") from error


def _pooling(folder: Path) -> str | None:
    """The mode that a sentence-transformers folder names, in its new spelling or its old one."""
    config = config_files.optional(folder, POOLING)
    old = (name for name in config.values if name.startswith("pooling_mode_"))
    modes = config.texts("pooling_mode") or tuple(
        name.removeprefix("pooling_mode_") for name in old if config.flag(name)
    )
    names = (mode.removesuffix("_tokens").removesuffix("_token") for mode in modes)
    # A file that names none means the mean.
    return "+".join(names) or ("mean" if config.values else None)


def _pools_prompt(folder: Path) -> bool:
    return config_files.optional(folder, POOLING).flag("include_prompt") is not False


def _modules(folder: Path) -> tuple[str, ...]:
    """Names of the library's own modules that lie where they are read; of others, more words."""
    path = folder / "modules.json"
    if not path.is_file():
        return ()
    return tuple(_module(entry) for entry in config_files.entries(path))


def _module(entry: ModelFile) -> str:
    kind, place = entry.text("type") or "", entry.text("path") or ""
    if not kind.startswith("sentence_transformers."):
        return kind or "a module without a type"
    name = kind.rpartition(".")[2]
    return name if PLACES.get(name, place) == place else f"{name} in the folder {place!r}"


def _prompt(sentences: ModelFile) -> str:
    """The prompt that sentence-transformers puts before a text when nobody names one."""
    name, prompts = sentences.text("default_prompt_name"), sentences.part("prompts")
    if name is None:
        return ""
    if name not in prompts.values:
        raise sentences.wrong("default_prompt_name", "one of the names in prompts")
    return prompts.text(name) or ""


def _dimensions(sentences: ModelFile) -> int | None:
    """Numbers of an embedding that sentence-transformers keeps when nobody says how many."""
    count = sentences.number("truncate_dim")
    if count is not None and not (1 <= count < NO_LIMIT and count == int(count)):
        raise sentences.wrong("truncate_dim", "a whole number of at least 1")
    return None if count is None else int(count)


def _width(config: ModelFile) -> int | None:
    counts = (config.number(name) for name in WIDTHS)
    return next((int(count) for count in counts if count and 1 <= count < NO_LIMIT), None)


def chat_template(folder: Path) -> str | None:
    """The sha256 of the chat template; of several, of the one used when nobody names one."""
    path = folder / "chat_template.jinja"
    if path.is_file():  # the library prefers it
        text: str | None = path.read_text(encoding="utf-8", errors="replace")
    else:
        text = _template_within(config_files.optional(folder, "tokenizer_config.json"))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() if text else None


def _template_within(config: ModelFile) -> str | None:
    several = config.values.get("chat_template")
    if not isinstance(several, list):
        return config.text("chat_template")
    named = (each for each in several if isinstance(each, dict) and each.get("name") == "default")
    return next((str(each.get("template")) for each in named), None)


def _transformer(folder: Path) -> ModelFile:
    """How sentence-transformers tokenizes: its file is named after the first models it knew."""
    found = sorted(folder.glob("sentence_*_config.json"))
    return config_files.read(found[0]) if found else ModelFile("sentence_bert_config.json", {})


def _max_tokens(folder: Path, *, config: ModelFile, transformer: ModelFile) -> int | None:
    """The smallest of the limits that the model's files name."""
    tokenizer = config_files.optional(folder, "tokenizer_config.json")
    limits = [
        tokenizer.number("model_max_length"),
        transformer.number("max_seq_length"),
        _positions(config),
    ]
    known = [int(limit) for limit in limits if limit is not None and 1 <= limit < NO_LIMIT]
    return min(known, default=None)


def _positions(config: ModelFile) -> float | None:
    table = next((count for name in POSITIONS if (count := config.number(name))), None)
    if table is None or config.text("model_type") not in POSITIONS_AFTER_PADDING:
        return table
    padding = config.number("pad_token_id")
    return table - (1 if padding is None else padding) - 1


def _decoder_positions(config: ModelFile) -> int | None:
    """Tokens that a decoder beside an encoder can write, if it has a table of positions."""
    if not config.flag("is_encoder_decoder"):
        return None
    own = config.whole("max_decoder_position_embeddings")
    if own is not None:
        return own
    if config.text("model_type") in sizes.DECODER_TABLES:
        return config.whole("max_position_embeddings")
    decoder = config.part("decoder")
    if decoder.text("model_type") in POSITIONS_AFTER_PADDING | {"bert"}:
        positions = _positions(decoder)
        return None if positions is None or not 1 <= positions < NO_LIMIT else int(positions)
    return None


def _digest(folder: Path, *, base: ModelFacts | None) -> str:
    paths = {path for pattern in IDENTITY for path in folder.glob(pattern) if path.is_file()}
    whole = hashlib.sha256()
    for path in sorted(paths):
        state = path.stat()
        content = _file_digest(path, size=state.st_size, changed=state.st_mtime_ns)
        whole.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    if base is not None:
        whole.update(f"base\0{base.digest}\n".encode())
    return whole.hexdigest()


@functools.lru_cache(maxsize=1024)
def _file_digest(path: Path, *, size: int, changed: int) -> str:  # noqa: ARG001 (the cache's key)
    """A file's sha256, read once for as long as its size and time of change stay."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
