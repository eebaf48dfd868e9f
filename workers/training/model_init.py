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
from jobs.errors import ModelFailure
from jobs.kinds import Lora, Task
from jobs.models import inspection
from workers.inference import model_loader
from workers.inference.batching.tokenization import DEFAULT_WINDOW
from workers.training import from_scratch
from workers.training.run_config import Order

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
    from_scratch.build(
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
    known = (inspection.inspect(order.origin).max_tokens, order.spec.train.max_tokens)
    return min((limit for limit in known if limit is not None), default=DEFAULT_WINDOW)


def model(order: Order) -> tuple[PreTrainedModel, set[str]]:
    """The model in float32 on the host, with the task's head, and its tensors that are new.

    Raises ``ModelFailure``.
    """
    found, lacking = model_loader.assembled(
        order.origin, auto=AUTO[order.spec.task], dtype=torch.float32, config=_config(order)
    )
    new = _head(found, lacking) if order.spec.task is Task.CLASSIFY else set()
    model_loader.check_complete(found, lacking - new, whose="the base's")
    return found, lacking


def _config(order: Order) -> Any:
    auto: Any = AutoConfig
    config = auto.from_pretrained(order.origin, **model_loader.SAFE)
    if order.spec.task is Task.CLASSIFY:
        config.id2label = dict(enumerate(order.labels))
        config.label2id = {label: place for place, label in enumerate(order.labels)}
        kind = "multi" if order.spec.multi_label else "single"
        config.problem_type = f"{kind}_label_classification"
    return config


def _head(model: PreTrainedModel, lacking: set[str]) -> set[str]:
    """Those of a new head, which is trained: tensors outside of the body, and its pooler's."""
    body = f"{model.base_model_prefix}."
    return {name for name in lacking if not name.startswith(body) or "pooler." in name}


def adapted(model: PreTrainedModel, lora: Lora, *, task: Task, new: set[str]) -> Any:
    """The model with low-rank adapters; they are trained, and whole modules that are saved.

    Those are a classifier's head, and whatever is ``new``. Raises ``ModelFailure``.
    """
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
        modules_to_save=_whole_modules(model, task=task, new=new) or None,
    )
    try:
        found: Any = peft.get_peft_model(model, config)
    except ValueError as error:
        raise ModelFailure(
            f"lora does not fit this base: {error}", code="lora_unsupported"
        ) from error
    _check_untied(found, adapter=peft.tuners.tuners_utils.BaseTunerLayer)
    _check_saved(found, new=new)
    return found


def _whole_modules(model: PreTrainedModel, *, task: Task, new: set[str]) -> list[str]:
    """What stands beside a classifier's body, and the modules that own other new tensors."""
    body = model.base_model_prefix
    children = dict(model.named_children())
    beside = [
        name
        for name, child in children.items()
        if task is Task.CLASSIFY and body in children and name != body and list(child.parameters())
    ]
    owners = {name.rpartition(".")[0] for name in new if name.partition(".")[0] not in beside}
    return [*beside, *sorted(owners - {""})]


def _check_untied(model: Any, *, adapter: Any) -> None:
    """A weight that two modules share is adapted in one, and merging would change both."""
    owners: dict[int, list[str]] = {}
    for name, each in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(each), []).append(_plain(name).rpartition(".")[0])
    for name, module in model.named_modules():
        if not isinstance(module, adapter):
            continue
        own = _plain(name)
        shared = [owners[id(each)] for each in module.get_base_layer().parameters()]
        others = [other for names in shared for other in names if len(names) > 1 and other != own]
        if others:
            raise ModelFailure(
                f"lora cannot adapt {own}: it is tied to {others[0]}, whose weights would change "
                "with it when the adapter is merged; leave both out of target_modules",
                code="lora_unsupported",
            )


def _check_saved(model: Any, *, new: set[str]) -> None:
    """A new tensor that is not saved with the adapter would be another one at each load."""
    saved = {_plain(name) for name, each in model.named_parameters() if each.requires_grad}
    lost = sorted(new - saved)
    if lost:
        raise ModelFailure(
            f"lora does not fit this base: {lost[0]} is new and cannot be saved with the adapter",
            code="lora_unsupported",
        )


def _plain(name: str) -> str:
    """A parameter's name before it was adapted."""
    for added in (
        "base_model.model.",
        "modules_to_save.default.",
        "original_module.",
        "base_layer.",
    ):
        name = name.replace(added, "")
    return name
