"""LSTMs (Hochreiter & Schmidhuber 1997): a classifier and a language model."""

# mypy: allow-untyped-calls
# (the base classes of transformers are typed in part)

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel, initialization
from transformers.modeling_outputs import CausalLMOutput, SequenceClassifierOutput


class LSTMConfig(PreTrainedConfig):
    """The shape of an LSTM. The language model's output weights are its embeddings."""

    model_type = "nightshift-lstm"

    vocab_size: int = 20_000
    hidden_size: int = 256  # of embeddings and of a layer's output; each direction has half
    num_hidden_layers: int = 1
    dropout: float = 0.3
    initializer_range: float = 0.1
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    tie_word_embeddings: bool = True


class LSTMPreTrainedModel(PreTrainedModel):
    """What both models share: config, embeddings and weight initialization."""

    config_class = LSTMConfig
    base_model_prefix = "lstm"
    embedding: nn.Embedding

    def get_input_embeddings(self) -> nn.Module:
        """The embeddings, from which transformers reads the size of the vocabulary."""
        return self.embedding

    def _embedding(self, config: LSTMConfig) -> nn.Embedding:
        return nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        """Orthogonal recurrent weights, open forget gates (Jozefowicz et al. 2015)."""
        if isinstance(module, nn.LSTM):
            _init_lstm(module)
        elif isinstance(module, nn.Linear):
            initialization.xavier_uniform_(module.weight)
            initialization.zeros_(module.bias)
        else:
            super()._init_weights(module)


class LSTMForSequenceClassification(LSTMPreTrainedModel):
    """Bidirectional layers, max pooling over the text (Conneau et al. 2017), and a head.

    The logits of a row do not depend on padding, on either side (promise P6).
    """

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        self.num_labels: int = config.num_labels or 0
        self.embedding = self._embedding(config)
        self.layers = nn.ModuleList(
            BidirectionalLayer(config.hidden_size) for _ in range(config.num_hidden_layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits (rows, labels) for token ids (rows, tokens); with ``labels`` also the loss."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        order, lengths = left_aligned_order(mask)
        reversal = reversed_order(lengths, longest=mask.shape[1])
        states = self.embedding(input_ids.gather(1, order))
        for layer in self.layers:
            states = layer(self.dropout(states), reversal)
        padding = torch.arange(mask.shape[1], device=mask.device) >= lengths.unsqueeze(1)
        low = torch.finfo(states.dtype).min
        pooled = states.masked_fill(padding.unsqueeze(2), low).amax(dim=1)
        logits = self.classifier(self.dropout(pooled))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                labels=labels, pooled_logits=logits, logits=logits, config=self.config
            )
        return SequenceClassifierOutput(loss=loss, logits=logits)


class LSTMForCausalLM(LSTMPreTrainedModel, GenerationMixin):
    """Unidirectional layers that predict the next token from each state.

    The logits of a text do not depend on padding, on either side. There is no cache between the
    steps of a generation: each step reads the whole text again.
    """

    _tied_weights_keys = {"lm_head.weight": "embedding.weight"}  # noqa: RUF012 (as in transformers)

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        self.embedding = self._embedding(config)
        self.layers = nn.ModuleList(
            nn.LSTM(config.hidden_size, config.hidden_size, batch_first=True)
            for _ in range(config.num_hidden_layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        """The output layer, which transformers ties to the embeddings."""
        return cast("nn.Linear", self.lm_head)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **_: Any,
    ) -> CausalLMOutput:
        """Logits (rows, tokens, vocabulary) of each next token; with ``labels`` also the loss.

        Labels are the token ids, not shifted; -100 where no token is predicted.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        order, _lengths = left_aligned_order(mask)
        states = self.embedding(input_ids.gather(1, order))
        for layer in self.layers:
            states, _state = layer(self.dropout(states))
        logits = self.lm_head(reordered(self.dropout(states), order.argsort(dim=1)))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size
            )
        return CausalLMOutput(loss=loss, logits=logits)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> dict[str, Any]:
        """The whole text so far, at every step."""
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False


class BidirectionalLayer(nn.Module):
    """A bidirectional layer. The backward half starts at the text's last token, not at padding."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.forwards = nn.LSTM(size, size // 2, batch_first=True)
        self.backwards = nn.LSTM(size, size // 2, batch_first=True)

    def forward(self, states: torch.Tensor, reversal: torch.Tensor) -> torch.Tensor:
        """(rows, tokens, size) in and out; ``reversal`` reverses each row's text."""
        forward_states, _ = self.forwards(states)
        backward_states, _ = self.backwards(reordered(states, reversal))
        return torch.cat([forward_states, reordered(backward_states, reversal)], dim=2)


def left_aligned_order(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices (rows, tokens) that move each row's text before its padding; the texts' lengths."""
    text = mask.to(torch.long)
    return text.argsort(dim=1, descending=True, stable=True), text.sum(dim=1)


def reversed_order(lengths: torch.Tensor, *, longest: int) -> torch.Tensor:
    """Indices (rows, tokens) that reverse each row's text and keep the padding behind it."""
    index = torch.arange(longest, device=lengths.device).expand(len(lengths), -1)
    mirrored = lengths.unsqueeze(1) - 1 - index
    return torch.where(mirrored >= 0, mirrored, index)


def reordered(states: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """States (rows, tokens, size) with the tokens of each row in this order."""
    return states.gather(1, order.unsqueeze(2).expand(-1, -1, states.shape[2]))


def _init_lstm(lstm: nn.LSTM) -> None:
    for name, weight in lstm.named_parameters():
        if name.startswith("weight_ih"):
            initialization.xavier_uniform_(weight)
        elif name.startswith("weight_hh"):
            initialization.orthogonal_(weight)
        else:
            initialization.zeros_(weight)
            # Gates are in the order input, forget, cell, output; the other bias adds to this one.
            if name.startswith("bias_ih") and not getattr(weight, "_is_hf_initialized", False):
                weight[lstm.hidden_size : 2 * lstm.hidden_size] = 1.0
