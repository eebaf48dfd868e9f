"""The model that training starts from: a base with the task's head, or one built from scratch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from accelerate.utils import set_seed
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import workers.architectures  # noqa: F401 - registers its models with the auto classes
from jobs.errors import ModelFailure
from jobs.kinds import Lora, Task
from jobs.models import inspection
from workers.inference import model_loader
from workers.inference.batching.tokenization import DEFAULT_WINDOW
from workers.inference.probes.preflight import check_vocabulary
from workers.training import from_scratch
from workers.training.objectives.objective import Objective, objective_for
from workers.training.run_config import RunConfig

AUTO: dict[Task, Any] = {
    Task.CLASSIFY: AutoModelForSequenceClassification,
    Task.GENERATE: AutoModelForCausalLM,
    Task.TEXT2TEXT: AutoModelForSeq2SeqLM,
}
"""The auto class of transformers for each task."""


@dataclass(frozen=True)
class BaseModel:
    """The model before the first step, in float32 on the host, and how it reads rows."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    objective: Objective
    max_tokens: int  # of a row: the window


def load(run: RunConfig) -> BaseModel:
    """The model with the task's head and, if the job asks for it, LoRA adapters.

    Raises ``ModelFailure`` and ``JobFailure``.
    """
    max_tokens = window(run)
    tokenizer = model_loader.tokenizer(run.origin)
    set_seed(run.spec.train.seed)  # a new head has the same weights on every rank
    loaded, new = model(run)
    check_vocabulary(loaded, tokenizer, special=True)
    objective = objective_for(
        run.signature, tokenizer=tokenizer, model=loaded, labels=run.labels, max_tokens=max_tokens
    )
    if run.spec.lora is not None:
        loaded = adapted(loaded, run.spec.lora, task=run.spec.task, new=new)
    return BaseModel(loaded, tokenizer, objective, max_tokens)


def build_scratch(run: RunConfig) -> None:
    """Write an untrained model of the job's architecture; the same bytes on every host."""
    spec = run.spec
    assert spec.architecture is not None
    from_scratch.build(
        spec.architecture,
        task=spec.task,
        texts=_texts(run.data / "train", targets=spec.task is not Task.CLASSIFY),
        labels=run.labels or None,
        multi_label=spec.multi_label,
        seed=spec.train.seed,
        max_tokens=spec.train.max_tokens,
        folder=run.origin,
    )


def _texts(shards: Path, *, targets: bool) -> Iterator[str]:
    """The texts that the tokenizer is trained on, with target texts if ``targets``."""
    columns = ["text", "target"] if targets else ["text"]
    for shard in sorted(shards.glob("*.parquet")):
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(columns=columns):
                for name in columns:
                    yield from filter(None, batch[name].to_pylist())


def window(run: RunConfig) -> int:
    """Tokens of a row: the recipe's limit, but at most the model's own."""
    limits = (inspection.inspect(run.origin).max_tokens, run.spec.train.max_tokens)
    return min((limit for limit in limits if limit is not None), default=DEFAULT_WINDOW)


def model(run: RunConfig) -> tuple[PreTrainedModel, set[str]]:
    """The model with the task's head, and the names of its new tensors.

    Raises ``ModelFailure``.
    """
    loaded, missing = model_loader.assembled(
        run.origin, auto=AUTO[run.spec.task], dtype=torch.float32, config=_config(run)
    )
    head = _head(loaded, missing) if run.spec.task is Task.CLASSIFY else set()
    model_loader.check_complete(loaded, missing - head, whose="the base's")
    return loaded, missing


def _config(run: RunConfig) -> Any:
    auto: Any = AutoConfig
    config = auto.from_pretrained(run.origin, **model_loader.SAFE)
    if run.spec.task is Task.CLASSIFY:
        config.id2label = dict(enumerate(run.labels))
        config.label2id = {label: label_id for label_id, label in enumerate(run.labels)}
        kind = "multi" if run.spec.multi_label else "single"
        config.problem_type = f"{kind}_label_classification"
    return config


def _head(model: PreTrainedModel, missing: set[str]) -> set[str]:
    """The missing tensors of a new head: those outside the body, and the body's pooler."""
    body = f"{model.base_model_prefix}."
    return {name for name in missing if not name.startswith(body) or "pooler." in name}


def adapted(model: PreTrainedModel, lora: Lora, *, task: Task, new: set[str]) -> Any:
    """The model with LoRA adapters.

    A classifier's head and the modules with ``new`` tensors are trained and saved whole. Raises
    ``ModelFailure``.
    """
    import peft  # noqa: PLC0415 - takes seconds, and few jobs need it

    kinds = {Task.CLASSIFY: "SEQ_CLS", Task.GENERATE: "CAUSAL_LM", Task.TEXT2TEXT: "SEQ_2_SEQ_LM"}
    known_models = peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    targets: list[str] | str | None = list(lora.target_modules or ()) or None
    if targets is None and model.config.model_type not in known_models:
        targets = "all-linear"
    config = peft.LoraConfig(
        task_type=kinds[task],
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        modules_to_save=_whole_modules(model, task=task, new=new) or None,
    )
    try:
        adapted_model: Any = peft.get_peft_model(model, config)
    except ValueError as error:
        raise ModelFailure(
            f"lora does not fit this base: {error}", code="lora_unsupported"
        ) from error
    _check_untied(adapted_model, adapter=peft.tuners.tuners_utils.BaseTunerLayer)
    _check_saved(adapted_model, new=new)
    return adapted_model


def _whole_modules(model: PreTrainedModel, *, task: Task, new: set[str]) -> list[str]:
    """A classifier's modules outside its body, and the modules that own other new tensors."""
    body = model.base_model_prefix
    children = dict(model.named_children())
    heads = [
        name
        for name, child in children.items()
        if task is Task.CLASSIFY and body in children and name != body and list(child.parameters())
    ]
    owners = {name.rpartition(".")[0] for name in new if name.partition(".")[0] not in heads}
    return [*heads, *sorted(owners - {""})]


def _check_untied(model: Any, *, adapter: Any) -> None:
    """Refuse an adapter on a weight that two modules share: merging would change both."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(_plain(name).rpartition(".")[0])
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
    """Refuse a new tensor that is not saved with the adapter: each load would draw it again."""
    saved = {_plain(name) for name, each in model.named_parameters() if each.requires_grad}
    lost = sorted(new - saved)
    if lost:
        raise ModelFailure(
            f"lora does not fit this base: {lost[0]} is new and cannot be saved with the adapter",
            code="lora_unsupported",
        )


def _plain(name: str) -> str:
    """The name of a parameter in the model without adapters."""
    for prefix in (
        "base_model.model.",
        "modules_to_save.default.",
        "original_module.",
        "base_layer.",
    ):
        name = name.replace(prefix, "")
    return name
