"""Small models to train from scratch, as transformers models; importing this registers them.

After ``import workers.architectures`` a folder whose config names one of these is loaded by the
auto classes like any other, without remote code.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from workers.architectures.lstm import (
    LSTMConfig,
    LSTMForCausalLM,
    LSTMForSequenceClassification,
)
from workers.architectures.textcnn import TextCNNConfig, TextCNNForSequenceClassification

__all__ = [
    "LSTMConfig",
    "LSTMForCausalLM",
    "LSTMForSequenceClassification",
    "TextCNNConfig",
    "TextCNNForSequenceClassification",
]


def _register() -> None:
    configs: Any = AutoConfig
    classifiers: Any = AutoModelForSequenceClassification
    generators: Any = AutoModelForCausalLM
    configs.register(TextCNNConfig.model_type, TextCNNConfig)
    configs.register(LSTMConfig.model_type, LSTMConfig)
    classifiers.register(TextCNNConfig, TextCNNForSequenceClassification)
    classifiers.register(LSTMConfig, LSTMForSequenceClassification)
    generators.register(LSTMConfig, LSTMForCausalLM)


_register()
