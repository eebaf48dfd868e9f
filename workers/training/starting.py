"""The model that training starts from: a base with the task's head, or one made from scratch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

import workers.architectures  # noqa: F401 - registers its models with the auto classes
from jobs import models
from jobs.errors import ModelFailure
from jobs.specs import Lora, Task
from workers.inference import loading
from workers.inference.reading import DEFAULT_WINDOW
from workers.training import scratch
from workers.training.orders import Order

AUTO: dict[Task, Any] = {
    Task.CLASSIFY: AutoModelForSequenceClassification,
    Task.GENERATE: AutoModelForCausalLM,
    Task.TEXT2TEXT: AutoModelForSeq2SeqLM,
}
"""transformers' class of each task."""


def build_scratch(order: Order) -> None:
    """Write the untrained model that the job names; the same on every host."""
    spec = order.spec
    assert spec.architecture is not None
    scratch.build(
        spec.architecture,
        task=spec.task,
        texts=_texts(order.data / "train", targets=spec.task is not Task.CLASSIFY),
        labels=order.labels or None,
        multi_label=spec.multi_label,
        seed=spec.train.seed,
        max_tokens=spec.train.max_tokens,
        folder=order.origin,
    )


def _texts(shards: Path, *, targets: bool) -> Iterator[str]:
    """What a tokenizer should know: the texts, and those that are to be written."""
    columns = ["text", "target"] if targets else ["text"]
    for shard in sorted(shards.glob("*.parquet")):
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(columns=columns):
                for name in columns:
                    yield from filter(None, batch[name].to_pylist())


def window(order: Order) -> int:
    """Tokens of a row: the recipe's, within the model's own limit."""
    known = (models.inspect(order.origin).max_tokens, order.spec.train.max_tokens)
    return min((limit for limit in known if limit is not None), default=DEFAULT_WINDOW)


def model(order: Order) -> PreTrainedModel:
    """The model in float32 on the host, with the task's head. Raises ``ModelFailure``."""
    found, lacking = loading.assembled(
        order.origin, auto=AUTO[order.spec.task], dtype=torch.float32, config=_config(order)
    )
    _check_complete(found, lacking, head_may_be_new=order.spec.task is Task.CLASSIFY)
    return found


def _config(order: Order) -> Any:
    auto: Any = AutoConfig
    config = auto.from_pretrained(order.origin, **loading.SAFE)
    if order.spec.task is Task.CLASSIFY:
        config.id2label = dict(enumerate(order.labels))
        config.label2id = {label: place for place, label in enumerate(order.labels)}
        kind = "multi" if order.spec.multi_label else "single"
        config.problem_type = f"{kind}_label_classification"
    return config


def _check_complete(model: PreTrainedModel, lacking: set[str], *, head_may_be_new: bool) -> None:
    """A new head is trained; any other tensor that the file lacks would be a random number."""
    body = f"{model.base_model_prefix}."
    needed = sorted(
        name
        for name in lacking
        if not head_may_be_new or (name.startswith(body) and "pooler." not in name)
    )
    if needed:
        raise ModelFailure(
            f"the base's weights file lacks {len(needed)} of the model's tensors, "
            f"such as {needed[0]}"
        )


def adapted(model: PreTrainedModel, lora: Lora, *, task: Task) -> Any:
    """The model with low-rank adapters, which alone are trained, and a classifier's head."""
    import peft  # noqa: PLC0415 - takes seconds, and few jobs want it

    kinds = {Task.CLASSIFY: "SEQ_CLS", Task.GENERATE: "CAUSAL_LM", Task.TEXT2TEXT: "SEQ_2_SEQ_LM"}
    known = peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    wanted: list[str] | str | None = list(lora.target_modules or ()) or None
    if wanted is None and model.config.model_type not in known:
        wanted = "all-linear"
    config = peft.LoraConfig(
        task_type=kinds[task],
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=wanted,
    )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:
        raise ModelFailure(
            f"lora does not fit this base: {error}", code="lora_unsupported"
        ) from error
