"""Promise P6: an answer does not depend on its batch, whatever padding does to the model."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BigBirdConfig,
    ConvBertConfig,
    FNetConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    ReformerConfig,
)

from jobs.kinds import ClassifyOptions, GenerateOptions
from jobs.settings import Settings
from tests.support.tiny_models import seeded_classifier
from tests.support.tiny_words import END, PAD, VOCABULARY, word_texts, word_tokenizer
from tests.workers.inference.builders import no_beat
from workers.inference import engine
from workers.inference.batching.batcher import BatchLayout
from workers.inference.decoding.text_generation import GeneratedText
from workers.inference.tasks.classifier import Classifier, Prediction
from workers.inference.tasks.generator import Generator

SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "pad_token_id": PAD,
    "eos_token_id": END,
}
GPT2: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 2}
GPT2 |= {"initializer_range": 0.5, "eos_token_id": END}
SPARSE: dict[str, Any] = {"block_size": 4, "num_random_blocks": 1, "max_position_embeddings": 128}
HASHED: dict[str, Any] = {
    **SHAPE,
    "attention_head_size": 8,
    "attn_layers": ["lsh", "local"],
    "axial_pos_shape": (8, 16),
    "axial_pos_embds_dim": (16, 16),
    "lsh_attn_chunk_length": 8,
    "local_attn_chunk_length": 8,
    "max_position_embeddings": 128,
    "feed_forward_size": 32,
    "is_decoder": False,
}

STEPS = 5
"""Tokens that are generated."""

SHARED: list[tuple[str, PreTrainedConfig, BatchLayout]] = [
    ("packed", BertConfig(**SHAPE), BatchLayout.PACKED),
    (
        "a convolution",
        ConvBertConfig(**SHAPE, embedding_size=32, conv_kernel_size=5),
        BatchLayout.EQUAL_LENGTH,
    ),
    ("a Fourier transform", FNetConfig(**SHAPE), BatchLayout.EQUAL_LENGTH),
    (
        "a sparse attention",
        BigBirdConfig(**SHAPE, **SPARSE, type_vocab_size=2),
        BatchLayout.EQUAL_LENGTH,
    ),
    ("another padding id", GPT2Config(**GPT2, pad_token_id=0), BatchLayout.PADDED),
    ("no padding id", GPT2Config(**GPT2), BatchLayout.EQUAL_LENGTH),
    ("hashes", ReformerConfig(**HASHED, hash_seed=None), BatchLayout.SINGLE),
]


@pytest.mark.parametrize(("name", "config", "layout"), SHARED, ids=[each[0] for each in SHARED])
def test_labels_and_scores_are_those_of_each_text_alone(
    tmp_path: Path, name: str, config: PreTrainedConfig, layout: BatchLayout
) -> None:
    folder = saved(tmp_path, config, frame=config.model_type != "gpt2")
    texts = [
        *word_texts(12),
        *word_texts(50, longest=60)[36:48:4],
        "w1 <pad>",
        "<pad> w2 w3",
        "w5 <s> <s>",
    ]
    library = Library(folder, AutoModelForSequenceClassification)
    expected = {text: library.scores(text, seed=name == "hashes") for text in texts}
    classifier = loaded(folder)
    assert classifier.batch_policy.layout is layout
    for some in (texts, texts[::-1], *([text] for text in texts)):
        for text, scores in zip(some, scored(classifier, some), strict=True):
            assert scores == pytest.approx(expected[text], abs=2e-5), text


def test_a_second_load_uses_the_policy_of_the_first(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", ConvBertConfig(**SHAPE, embedding_size=32))
    settings = Settings(worker_threads=1, calibration_folder=str(tmp_path / "kept"))
    assert loaded(folder, settings).batch_policy.layout is BatchLayout.EQUAL_LENGTH
    (file,) = (path for path in (tmp_path / "kept").iterdir() if "batch_policy" in path.read_text())
    record = json.loads(file.read_text())
    record["results"]["batch_policy"]["layout"] = "alone"
    file.write_text(json.dumps(record))
    assert loaded(folder, settings).batch_policy.layout is BatchLayout.SINGLE


@pytest.mark.parametrize(
    "own",
    [
        {"encoder_repetition_penalty": 1.5},
        {"encoder_no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 1},
        {"repetition_penalty": 1.4},
        {"min_length": 9},
        {"min_new_tokens": 4},
        {"sequence_bias": [[[PAD, 9], 30.0], [[PAD, PAD], 30.0]]},
        {"bad_words_ids": [[PAD, 7], [PAD, PAD, 8]]},
        {"begin_suppress_tokens": [5, 6, 7]},
        {"exponential_decay_length_penalty": [2, 1.5]},
        {"forced_bos_token_id": 11},
        {"guidance_scale": 1.5},
        {"pad_token_id": -1},
        {"pad_token_id": 4_000},
        {"eos_token_id": [-1, 4_000]},
    ],
    ids=str,
)
def test_no_written_text_depends_on_what_fills_its_prompt_up(
    tmp_path: Path, own: dict[str, Any]
) -> None:
    folder = tmp_path / "model"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        LlamaForCausalLM(LlamaConfig(**SHAPE, bos_token_id=0)).save_pretrained(folder)
    word_tokenizer(folder, frame=False, padding="pad_token_id" not in own)
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    if own.get("pad_token_id") == -1:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | own))
    texts = [*word_texts(12), "w1 <pad> <pad> w2", "<pad> w9"]
    library = Library(folder, LlamaForCausalLM)
    expected = {text: library.generated(text) for text in texts}
    options = GenerateOptions(max_new_tokens=STEPS, chat=False)
    model: Any = engine.load(folder, options, settings=Settings(worker_threads=1))
    assert isinstance(model, Generator)
    assert outputs(model, texts) == [expected[text] for text in texts]
    assert outputs(model, texts[:1]) == [expected[texts[0]]]


def saved(folder: Path, config: PreTrainedConfig, *, frame: bool = True) -> Path:
    config.num_labels = 3
    seeded_classifier(config, seed=1).save_pretrained(folder)
    return word_tokenizer(folder, frame=frame)


def loaded(folder: Path, settings: Settings | None = None) -> Classifier:
    options = ClassifyOptions(all_scores=True)
    return engine.load(folder, options, settings=settings or Settings(worker_threads=1))


def scored(classifier: Classifier, texts: Sequence[str]) -> list[dict[str, float]]:
    found = classifier.classify(texts, beat=no_beat)
    assert all(isinstance(each, Prediction) for each in found)
    return [
        dict(zip(each.labels, each.scores, strict=True))
        for each in found
        if isinstance(each, Prediction)
    ]


class Library:
    """Plain transformers: a model and its tokenizer, one text at a time."""

    def __init__(self, folder: Path, auto: Any) -> None:
        tokenizers: Any = AutoTokenizer
        self._tokenizer = tokenizers.from_pretrained(folder)
        self._model = auto.from_pretrained(folder).eval()

    def scores(self, text: str, *, seed: bool) -> dict[str, float]:
        """By label, from a fresh copy of the model."""
        model = copy.deepcopy(self._model)
        if seed:
            torch.manual_seed(0)
        with torch.inference_mode():
            scores = model(**self._inputs(text)).logits.softmax(dim=1)[0].tolist()
        return {model.config.id2label[place]: score for place, score in enumerate(scores)}

    def generated(self, text: str) -> str:
        """The output of ``generate`` with the right special tokens."""
        inputs = self._inputs(text)
        options = {"do_sample": False, "pad_token_id": PAD, "eos_token_id": END}
        ids = self._model.generate(**inputs, max_new_tokens=STEPS, **options)
        new = ids[0, inputs["input_ids"].shape[1] :]
        return str(self._tokenizer.decode(new, skip_special_tokens=True))

    def _inputs(self, text: str) -> dict[str, torch.Tensor]:
        return dict(self._tokenizer(text, return_tensors="pt", return_token_type_ids=False))


def outputs(model: Generator, texts: Sequence[str]) -> list[str]:
    answers = model.answer(dict(enumerate(texts)), beat=no_beat)
    assert all(isinstance(each, GeneratedText) for each in answers.values())
    return [each.output for each in answers.values() if isinstance(each, GeneratedText)]
