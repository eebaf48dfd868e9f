"""The tokenizer as training uses it: texts are truncated to the window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase


class TruncatingTokenizer:
    """A tokenizer that truncates texts to ``max_tokens``."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int) -> None:
        self._tokenizer: Any = tokenizer
        self.max_tokens = max_tokens
        # A text without any token still needs one to be a row.
        self._placeholder = [tokenizer.unk_token_id or tokenizer.eos_token_id or 0]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, truncated to the window; at least one."""
        truncated = {"truncation": True, "max_length": self.max_tokens}
        return [row or self._placeholder for row in self._ids(list(texts), **truncated)]

    def encode_targets(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of target texts, with the special tokens of a decoder."""
        truncated = {"truncation": True, "max_length": self.max_tokens}
        ids = self._ids(None, text_target=list(texts), **truncated)
        return [row or self._placeholder for row in ids]

    def encode_whole(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        """Token ids of each text, not truncated."""
        return self._ids(list(texts), add_special_tokens=special)

    def _ids(self, texts: list[str] | None, **options: Any) -> list[list[int]]:
        encoded = self._tokenizer(
            texts,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
            **options,
        )
        return list(encoded["input_ids"])
