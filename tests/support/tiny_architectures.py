"""A tiny random model of any architecture that transformers has for a kind of job, and its answers.

What the engine answers is compared with the library computed row by row, whatever the batch.
"""

from __future__ import annotations

import copy
import itertools
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from jobs.errors import ModelFailure, NightshiftError
from jobs.kinds import ClassifyOptions, EmbedOptions, GenerateOptions, Text2TextOptions
from jobs.settings import Settings
from tests.support.tiny_words import BEGIN, END, PAD, VOCABULARY, word_texts, word_tokenizer
from workers.inference import engine
from workers.inference.batching.forward import RowError

AUTOS: dict[str, tuple[Any, str]] = {
    "classify": (AutoModelForSequenceClassification, "SEQUENCE_CLASSIFICATION"),
    "embed": (AutoModel, ""),
    "generate": (AutoModelForCausalLM, "CAUSAL_LM"),
    "text2text": (AutoModelForSeq2SeqLM, "SEQ_TO_SEQ_CAUSAL_LM"),
}
"""By kind of job: the auto class, and how its mapping is called."""

SPREAD = 0.2
STEPS = 4
MOST = 12_000_000
"""Weights of a model at most: one that is larger was not made tiny."""

SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "src_vocab_size", "tgt_vocab_size"), VOCABULARY),
    **dict.fromkeys(("decoder_vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "emb_dim"), 32),
    **dict.fromkeys(("word_embed_proj_dim", "decoder_hidden_size", "encoder_hidden_size"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "hidden_dim", "n_inner"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "moe_intermediate_size", "d_inner"), 64),
    **dict.fromkeys(("shared_expert_intermediate_size", "ffn_hidden_size", "dff"), 64),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_encoder_layers",), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "multi_query_group_num"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "attention_head_size", "kv_channels", "d_head"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 128),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "n_group", "topk_group"), 1),
    "mamba_chunk_size": 8,
    **dict.fromkeys(("initializer_range", "init_std"), SPREAD),
}
TOKENS = {
    "pad_token_id": PAD,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
    "decoder_start_token_id": BEGIN,
    "forced_eos_token_id": None,
    "forced_bos_token_id": None,
    "sep_token_id": END,
    "cls_token_id": BEGIN,
}
OWN: dict[str, dict[str, Any]] = {
    "big_bird": {"block_size": 4, "num_random_blocks": 1},
    "bigbird_pegasus": {"block_size": 4, "num_random_blocks": 1},
    "longformer": {"attention_window": 8},
    "led": {"attention_window": 8},
    "reformer": {
        "attn_layers": ["lsh", "local"],
        "axial_pos_shape": (8, 16),
        "axial_pos_embds_dim": (16, 16),
        "lsh_attn_chunk_length": 8,
        "local_attn_chunk_length": 8,
        "feed_forward_size": 32,
    },
    **dict.fromkeys(
        ("axk1", "axk2", "deepseek_v2", "deepseek_v3", "minicpm3"),
        {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
        | {"v_head_dim": 8, "head_dim": 8, "num_key_value_heads": 4},
    ),
    "gptj": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 8},
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_inner": 64},
    "esmc": {"head_dim": None},
    "mbart": {"pad_token_id": PAD},
    "lilt": {"hidden_size": 48, "channel_shrink_ratio": 4},
    "prophetnet": {"pad_token_id": PAD},
    "convbert": {"conv_kernel_size": 5},
}
"""Fields that an architecture needs beside the usual sizes."""


@dataclass(frozen=True, slots=True, order=True)
class Outcome:
    """The result of an architecture for a kind of job: right, wrong, refused, or not built."""

    kind: str
    type: str
    outcome: str
    detail: str = ""


def architectures(kind: str) -> list[str]:
    """The model types that transformers maps to a kind's auto class."""
    name = AUTOS[kind][1]
    mapping = "MODEL_MAPPING_NAMES" if not name else f"MODEL_FOR_{name}_MAPPING_NAMES"
    return sorted(set(getattr(modeling_auto, mapping)) & set(CONFIG_MAPPING))


def tried(kind: str, model_type: str, folder: Path) -> Outcome:
    """Build, load, answer and compare; every exception becomes an outcome."""
    try:
        model = _built(kind, model_type)
        model.save_pretrained(folder)
        word_tokenizer(folder, frame=kind != "generate")
        library = _Library(kind, folder)
        texts = [*word_texts(7), *word_texts(60, longest=60)[28:48:19], "w1 <pad> w2", "w7 w7 w7"]
        right = [library.answer(text) for text in texts]
    except Exception as error:  # noqa: BLE001 (a library raises anything)
        shutil.rmtree(folder, ignore_errors=True)
        return Outcome(kind, model_type, "not built", _line(error))
    try:
        return _compared(kind, model_type, folder, texts, right)
    except NightshiftError as refused:
        return Outcome(kind, model_type, "refused", _line(refused))
    except TimeoutError:
        raise
    except Exception as error:  # noqa: BLE001 (the same)
        return Outcome(kind, model_type, "wrong", f"raises {_line(error)}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _built(kind: str, model_type: str) -> Any:
    made: Any = CONFIG_MAPPING[model_type]
    known = made()
    given = {name: value for name, value in (SIZES | TOKENS).items() if _has(known, name, value)}
    config = made(**{**given, **OWN.get(model_type, {})})
    for name in config.sub_configs:
        _shrink(getattr(config, name, None))
    if kind == "classify":
        config.num_labels = 3
    auto = AUTOS[kind][0]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        with torch.device("meta"):
            size = sum(
                each.numel() for each in auto.from_config(copy.deepcopy(config)).parameters()
            )
        if size > MOST:
            raise ValueError(f"the usual size fields leave {size:,} weights")
        model = auto.from_config(config).eval()
    if kind == "text2text" and model.generation_config.decoder_start_token_id is None:
        model.generation_config.decoder_start_token_id = BEGIN
    return model


def _shrink(part: Any) -> None:
    """Give a part of a composite config, and its own parts, the usual sizes."""
    if part is None:
        return
    for name, value in (SIZES | TOKENS).items():
        if _has(part, name, value):
            setattr(part, name, value)
    for name in part.sub_configs:
        _shrink(getattr(part, name, None))


def _has(config: Any, name: str, value: Any) -> bool:
    """Whether a config has a field, and lets it be set."""
    try:
        getattr(config, name)
        setattr(copy.copy(config), name, value)
    except Exception:  # noqa: BLE001 (NotImplementedError among others)
        return False
    return True


class _Library:
    """The model as transformers has it, one text at a time, as if freshly loaded."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._kind = kind
        tokenizers: Any = AutoTokenizer
        self._tokenizer = tokenizers.from_pretrained(folder)
        self._model = AUTOS[kind][0].from_pretrained(folder).eval()
        if self._tokenizer("w0 w9", add_special_tokens=False)["input_ids"] != [4, 13]:
            raise ValueError("the library reads the files of the tokenizer as another kind")

    @torch.inference_mode()
    def answer(self, text: str) -> Any:
        model = copy.deepcopy(self._model)
        inputs = dict(self._tokenizer(text, return_tensors="pt", return_token_type_ids=False))
        torch.manual_seed(0)
        if self._kind == "classify":
            return model(**inputs).logits.softmax(dim=1)[0]
        if self._kind == "embed":
            return model(**inputs).last_hidden_state[0].mean(dim=0)
        ends = {"pad_token_id": PAD, "eos_token_id": END}
        ids = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False, num_beams=1, **ends)
        read = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        return str(self._tokenizer.decode(ids[0, read:], skip_special_tokens=True))


def _compared(
    kind: str, model_type: str, folder: Path, texts: Sequence[str], right: Sequence[Any]
) -> Outcome:
    options: Any = {
        "classify": ClassifyOptions(all_scores=True),
        "embed": EmbedOptions(pooling="mean", normalize=False),
        "generate": GenerateOptions(max_new_tokens=STEPS, chat=False),
        "text2text": Text2TextOptions(max_new_tokens=STEPS, beams=1),
    }[kind]
    model: Any = engine.load(folder, options, settings=Settings(worker_threads=1))
    for rows in _cuts(len(texts)):
        answers = model.answer({row: texts[row] for row in rows}, beat=lambda: None)
        for row in rows:
            if isinstance(answers[row], RowError):
                return Outcome(kind, model_type, "wrong", f"{texts[row]!r}: {answers[row]}")
            if not _same(answers[row], right[row]):
                return Outcome(
                    kind, model_type, "wrong", f"{texts[row]!r} in a batch of {len(rows)}"
                )
    return Outcome(kind, model_type, "right", str(model.batch_policy))


def _cuts(count: int) -> Iterator[list[int]]:
    """All together, backwards, and a few rows alone."""
    yield list(range(count))
    yield list(reversed(range(count)))
    yield from ([row] for row in itertools.islice(range(count), 0, None, 3))


def _same(answer: Any, right: Any) -> bool:
    if isinstance(right, str):
        return bool(answer.output == right)
    if hasattr(answer, "vector"):
        output = torch.from_numpy(answer.vector)
    else:
        scores = dict(zip(answer.labels, answer.scores, strict=True))
        output = torch.tensor([scores[label] for label in sorted(scores)])
    limit = 1e-5 * max(1.0, float(right.norm())) if hasattr(answer, "vector") else 1e-4
    return bool((output - right).abs().max() <= limit)


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    message = lines[0].split(" from '/")[0] if lines else ""
    code = f"{error.code}: " if isinstance(error, ModelFailure) else ""
    return f"{code}{type(error).__name__}: {message}"[:160].replace("|", "/")
