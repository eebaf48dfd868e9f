"""Small models to train from scratch, as classes of transformers.

``import workers.architectures`` registers them with the auto classes, which then load a folder
whose config names one of them without remote code (promise P10).
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
