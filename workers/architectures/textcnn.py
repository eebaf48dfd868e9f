"""TextCNN (Kim 2014, "Convolutional Neural Networks for Sentence Classification")."""

# mypy: allow-untyped-calls
# (the base classes of transformers are typed in part)

from __future__ import annotations

from dataclasses import field
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel, initialization
from transformers.modeling_outputs import SequenceClassifierOutput


class TextCNNConfig(PreTrainedConfig):
    """The shape of a TextCNN; ``widths`` are the filters' widths in tokens."""

    model_type = "nightshift-textcnn"

    vocab_size: int = 20_000
    hidden_size: int = 256  # of a token's embedding
    widths: list[int] = field(default_factory=lambda: [2, 3, 4])
    filters: int = 128  # of each width
    dropout: float = 0.5
    initializer_range: float = 0.03
    pad_token_id: int | None = 0


class TextCNNForSequenceClassification(PreTrainedModel):
    """Convolutions over embeddings, max pooling over the text, and a head.

    The logits of a row do not depend on padding, on either side (promise P6): embeddings of padding
    are zeros, as around the text, and windows without a token are left out of the maximum.
    """

    config_class = TextCNNConfig
    base_model_prefix = "textcnn"

    def __init__(self, config: TextCNNConfig) -> None:
        super().__init__(config)
        self.num_labels: int = config.num_labels or 0
        self.embedding = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.hidden_size, config.filters, width) for width in config.widths
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.filters * len(config.widths), self.num_labels)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The embeddings, from which transformers reads the size of the vocabulary."""
        return self.embedding

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits (rows, labels) for token ids (rows, tokens); with ``labels`` also the loss."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        embedded = self.embedding(input_ids)
        text = mask.to(embedded.dtype).unsqueeze(2)
        states = embedded * text
        pooled = torch.cat([_max_pooled(each, states, text) for each in self.convolutions], dim=1)
        logits = self.classifier(self.dropout(pooled))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                labels=labels, pooled_logits=logits, logits=logits, config=self.config
            )
        return SequenceClassifierOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        """Glorot initialization of filters and head; embeddings by the config."""
        if isinstance(module, nn.Conv1d | nn.Linear):
            initialization.xavier_uniform_(module.weight)
            initialization.zeros_(module.bias)  # type: ignore[arg-type]
        else:
            super()._init_weights(module)


def _max_pooled(convolution: Any, states: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """(rows, filters): the maximum of each filter over all windows with at least one token.

    One matrix product over concatenated windows is faster than a convolution on CPU.
    """
    width = convolution.kernel_size[0]
    weight = convolution.weight.transpose(1, 2).flatten(1)
    windows = torch.cat(_shifted(states, width), dim=2)
    values = functional.relu(functional.linear(windows, weight, convolution.bias))
    has_token = torch.cat(_shifted(text, width), dim=2).amax(dim=2, keepdim=True)
    # After ReLU no value is below zero, so a zero never wins over a value of the text.
    return (values * has_token).amax(dim=1)


def _shifted(states: torch.Tensor, width: int) -> list[torch.Tensor]:
    """The first tokens of all windows, then their second ones, and so on; windows may overhang."""
    overhang = width - 1
    padded = functional.pad(states, (0, 0, overhang, overhang))
    windows = states.shape[1] + overhang
    return [padded[:, shift : shift + windows] for shift in range(width)]
