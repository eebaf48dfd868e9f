"""Random models of two layers for pipelines: of texts, images and sounds, real architectures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForAudioClassification,
    AutoModelForCTC,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForObjectDetection,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    CLIPConfig,
    CLIPModel,
    ViTConfig,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    YolosConfig,
)

from tests.support.tiny_models import tiny_encoder

ENTITIES = ("O", "PER", "LOC")
RATE = 8_000
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MASK = "[MASK]"
_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
}


def entity_finder(folder: Path) -> Path:
    """BERT for token classification."""
    tokenizers: Any = AutoTokenizer
    tokenizer = tokenizers.from_pretrained(tiny_encoder(folder))
    config: Any = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **_SHAPE)
    config.id2label = dict(enumerate(ENTITIES))
    config.label2id = {label: index for index, label in enumerate(ENTITIES)}
    return _saved(AutoModelForTokenClassification, config, folder)


def mask_filler(folder: Path) -> Path:
    """BERT for masked language modelling; its mask is ``MASK``."""
    tokenizers: Any = AutoTokenizer
    tokenizer = tokenizers.from_pretrained(tiny_encoder(folder))
    tokenizer.add_special_tokens({"mask_token": MASK})
    tokenizer.save_pretrained(folder)
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **_SHAPE)
    return _saved(AutoModelForMaskedLM, config, folder)


def image_classifier(folder: Path, *, labels: int = 3) -> Path:
    """ViT for images of 32 by 32."""
    make: Any = ViTConfig
    config = make(image_size=32, patch_size=16, num_labels=labels, **_SHAPE)
    _processor(folder, "ViTImageProcessor", size={"height": 32, "width": 32})
    return _saved(AutoModelForImageClassification, config, folder)


def object_finder(folder: Path) -> Path:
    """YOLOS for small images."""
    make: Any = YolosConfig
    config = make(
        image_size=[64, 64], patch_size=16, num_detection_tokens=5, num_labels=3, **_SHAPE
    )
    _processor(folder, "YolosImageProcessor", size={"height": 64, "width": 64}, do_pad=False)
    return _saved(AutoModelForObjectDetection, config, folder)


def image_matcher(folder: Path) -> Path:
    """CLIP, which scores how well texts fit an image."""
    tokenizers: Any = AutoTokenizer
    tokenizer = tokenizers.from_pretrained(tiny_encoder(folder))
    texts = {**_SHAPE, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.sep_token_id}
    config: Any = CLIPConfig(
        text_config={**texts, "max_position_embeddings": 128},
        vision_config={**_SHAPE, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    _processor(
        folder,
        "CLIPImageProcessor",
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
    )
    return _saved(CLIPModel, config, folder, of_class=True)


def sound_classifier(folder: Path) -> Path:
    """Wav2Vec2 with a head for whole sounds."""
    _listener(folder)
    return _saved(AutoModelForAudioClassification, _wav2vec2(num_labels=3), folder)


def transcriber(folder: Path) -> Path:
    """Wav2Vec2 that spells what it hears."""
    _listener(folder)
    names = ["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS]
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({name: index for index, name in enumerate(names)}))
    make: Any = Wav2Vec2CTCTokenizer
    make(str(vocabulary)).save_pretrained(folder)
    return _saved(AutoModelForCTC, _wav2vec2(vocab_size=len(names), pad_token_id=0), folder)


def an_image(path: Path, *, seed: int, size: tuple[int, int] = (40, 30)) -> Path:
    """Coloured noise as PNG."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def a_sound(path: Path, *, seed: int, rate: int = RATE, channels: int = 1) -> Path:
    """Half a second of noise."""
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (rate // 2, channels))
    soundfile.write(path, noise, rate)
    return path


def _wav2vec2(**more: Any) -> Any:
    return Wav2Vec2Config(
        conv_dim=[16, 16],
        conv_kernel=[10, 4],
        conv_stride=[20, 8],
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        **_SHAPE,
        **more,
    )


def _listener(folder: Path) -> None:
    make: Any = Wav2Vec2FeatureExtractor
    make(sampling_rate=RATE).save_pretrained(folder)


def _processor(folder: Path, kind: str, **config: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    processor = {"image_processor_type": kind, "do_resize": True, **config}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def _saved(auto: Any, config: Any, folder: Path, *, of_class: bool = False) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = (auto(config) if of_class else auto.from_config(config)).eval()
    model.save_pretrained(folder)
    assert isinstance(AutoConfig.from_pretrained(folder), type(config))
    return folder
