"""Special token ids that config, generation config and tokenizer name differently, or wrongly."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from workers.inference import special_tokens
from workers.inference.special_tokens import SpecialTokens

SIZE = 10
IDS = st.one_of(
    st.none(), st.integers(-3, SIZE + 3), st.lists(st.integers(-3, SIZE + 3), max_size=3)
)


def tokens_of(
    *, config: Any = None, generation: Any = None, tokenizer: Any = None, size: int = SIZE
) -> SpecialTokens:
    embeddings = nn.Embedding(size, 2)
    own = SimpleNamespace(**(config or {}))
    own.get_text_config = lambda: own
    model: Any = SimpleNamespace(
        config=own,
        generation_config=SimpleNamespace(**(generation or {})),
        get_input_embeddings=lambda: embeddings,
    )
    names = ("pad_token_id", "eos_token_id", "mask_token_id", "unk_token_id")
    own_tokenizer: Any = SimpleNamespace(**(dict.fromkeys(names) | (tokenizer or {})))
    return SpecialTokens.of(model, own_tokenizer)


@pytest.mark.parametrize(
    ("config", "generation", "tokenizer", "padding"),
    [
        (0, None, 1, 0),  # heads go by the config
        (None, None, 1, 1),
        (-1, -1, 1, 1),
        (-1, -1, None, 2),  # the end-of-text token
        (SIZE, None, 1, 1),
        (None, 3, 1, 3),
        (-1, SIZE + 5, SIZE, 2),
        (0, 0, 0, 0),
    ],
)
def test_padding_is_the_models_own_id_or_else_one_of_its_vocabulary(
    config: int | None, generation: int | None, tokenizer: int | None, padding: int
) -> None:
    tokens = tokens_of(
        config={"pad_token_id": config},
        generation={"pad_token_id": generation, "eos_token_id": 2},
        tokenizer={"pad_token_id": tokenizer},
    )
    assert tokens.padding == padding


@pytest.mark.parametrize(
    ("config", "generation", "tokenizer", "ends"),
    [
        (1, [2, 3], 4, (2, 3)),
        (1, None, 4, (1,)),
        (None, None, 4, (4,)),
        (None, [-1, SIZE], 4, (4,)),
        (None, [SIZE, 5], 4, (5,)),
        (None, None, None, ()),
    ],
)
def test_a_text_ends_as_generation_has_it(
    config: Any, generation: Any, tokenizer: Any, ends: tuple[int, ...]
) -> None:
    tokens = tokens_of(
        config={"eos_token_id": config},
        generation={"eos_token_id": generation},
        tokenizer={"eos_token_id": tokenizer},
    )
    assert tokens.ends == ends


@pytest.mark.parametrize(
    ("config", "generation", "start"),
    [
        ({"decoder_start_token_id": 1}, {"decoder_start_token_id": 2}, 2),
        ({"decoder_start_token_id": 1}, {"decoder_start_token_id": -1}, 1),
        ({}, {"bos_token_id": 3}, 3),
        ({}, {}, None),
    ],
)
def test_a_decoder_starts_as_generation_has_it(
    config: dict[str, int], generation: dict[str, int], start: int | None
) -> None:
    assert tokens_of(config=config, generation=generation).start == start


@given(IDS, IDS, IDS, IDS)
def test_every_id_is_in_the_vocabulary(pad: Any, ends: Any, own: Any, mask: Any) -> None:
    tokens = tokens_of(
        config={"pad_token_id": pad, "eos_token_id": ends},
        generation={"pad_token_id": own, "decoder_start_token_id": own, "bos_token_id": pad},
        tokenizer={"pad_token_id": own, "mask_token_id": mask, "eos_token_id": mask},
    )
    every = [tokens.padding, tokens.neutral, *tokens.ends]
    every += [] if tokens.start is None else [tokens.start]
    assert all(0 <= each < SIZE for each in every)


def test_a_head_without_an_id_takes_rows_of_one_length() -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification  # noqa: PLC0415

    config = GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=1, eos_token_id=None)
    head: Any = GPT2ForSequenceClassification
    model = head(config).eval()
    ids = torch.tensor([[5, 6, 7], [7, 6, 5]])
    with pytest.raises(ValueError, match="batch sizes > 1"):
        model(input_ids=ids)
    special_tokens.set_missing_padding_id(model)
    together = model(input_ids=ids).logits
    assert torch.allclose(together[1], model(input_ids=ids[1:]).logits[0], atol=1e-6)
