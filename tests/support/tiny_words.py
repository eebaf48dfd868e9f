"""A tokenizer of forty words and four special tokens, one id a word, for models of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BEGIN, PAD, END, UNKNOWN = range(4)
"""The ids of the special tokens."""

WORDS = tuple(f"w{number}" for number in range(40))
VOCABULARY = 4 + len(WORDS)


def word_tokenizer(folder: Path, *, frame: bool = True, padding: bool = True) -> Path:
    """Saved beside a model: ``frame`` puts the begin and end tokens around a text."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *WORDS]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if frame:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> $B </s>",
            special_tokens=[("<s>", BEGIN), ("</s>", END)],
        )
    build: Any = PreTrainedTokenizerFast
    build(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>" if padding else None,
    ).save_pretrained(folder)
    return folder


def word_texts(count: int, *, longest: int = 12) -> list[str]:
    """Different texts of one to ``longest`` words."""
    return [
        " ".join(WORDS[(row * 7 + place * 3) % len(WORDS)] for place in range(1 + row % longest))
        for row in range(count)
    ]
