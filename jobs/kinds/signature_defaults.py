"""What a version's signature means for a job: its defaults, its contradictions (promise P13).

By default a job reads rows as the version was trained. An option that differs is applied, with a
warning where it is likely a mistake, and refused where it cannot work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from jobs.errors import CorpusFailure, ModelFailure
from jobs.kinds import (
    AnyTraining,
    DatasetSplit,
    EvaluateSpec,
    FinetuneSpec,
    Options,
    Task,
)
from jobs.models.inspection import MULTI_LABEL, ModelFacts
from jobs.models.signatures import RowForm, Signature

T = TypeVar("T")


def with_defaults(options: Options, signature: Signature | None) -> Options:
    """The options, with the signature's values for those that are not set."""
    if signature is None or not options.is_as_trained(signature):
        return options
    given = options.model_dump()
    values = options.trained_values(signature)
    missing = {name: value for name, value in values.items() if given[name] is None}
    return options.model_copy(update=missing)


def contradictions(
    options: Options, signature: Signature | None, *, limit: int | None = None, pairs: bool = False
) -> tuple[str, ...]:
    """Where the options differ from how the model was trained, one sentence for each.

    ``limit`` is the model's longest window. ``pairs``: the corpus has a second text column.
    """
    if signature is None:
        return ()
    if not options.is_as_trained(signature):
        warning = options.other_use(signature)
        return () if warning is None else (warning,)
    sentences = []
    given = options.model_dump()
    for name, trained in options.trained_values(signature).items():
        value = given[name]
        if name == "max_tokens" and None not in (value, limit):
            value = min(value, limit)
        if value is not None and value != trained and not _is_free(name, signature):
            sentences.append(_contradiction(name, value, trained))
    if pairs:
        sentences.append("pair_column is given, and the model was trained on single texts")
    return tuple(sentences)


def training_signature(spec: AnyTraining, facts: ModelFacts | None) -> Signature:
    """How the rows of a fine-tune or an evaluation are read, before the rows are known.

    ``facts`` describe the base or the evaluated model; ``None``: training from scratch. Raises
    ``ModelFailure``.
    """
    known = None if facts is None else facts.signature
    task = _task(spec, known)
    known = known if known is not None and known.task is task else None
    chat = _chat(spec, facts, known) if task is Task.GENERATE else False
    return Signature(
        task=task,
        multi_label=_multi_label(spec, facts, known, task=task),
        chat=chat,
        system=_or(spec.system, known and known.system) if chat else None,
        prompt=_or(spec.prompt, known.prompt if known else "") if task is Task.TEXT2TEXT else "",
        max_tokens=_window(spec, facts, known),
    )


def with_row_forms(
    signature: Signature, spec: AnyTraining, forms: Mapping[DatasetSplit, RowForm]
) -> Signature:
    """The signature for corpora of these forms; the first form is that of the training rows.

    Raises ``CorpusFailure`` for rows that cannot be read with this signature.
    """
    first = next(iter(forms.values()))
    if signature.task is not Task.GENERATE:
        return signature.model_copy(update={"rows": RowForm.PAIR})
    for split, form in forms.items():
        _check_form(split, form, signature, spec)
    chat = signature.chat and first is not RowForm.TEXT
    system = signature.system if chat else None
    return signature.model_copy(update={"rows": first, "chat": chat, "system": system})


def differences(signature: Signature, trained: Signature) -> tuple[str, ...]:
    """Where an evaluation differs from how the model was trained, one sentence for each."""
    names = {
        Task.CLASSIFY: ("multi_label", "max_tokens"),
        Task.GENERATE: ("chat", "system", "max_tokens"),
        Task.TEXT2TEXT: ("prompt", "max_tokens"),
    }
    if signature.rows is RowForm.TEXT and trained.chat:
        advice = "pass target_column or messages_column"
        return (f"the corpus is plain text, and the model was trained on chats: {advice}",)
    pairs = (
        (name, getattr(signature, name), getattr(trained, name)) for name in names[trained.task]
    )
    return tuple(
        _contradiction(name, value, known)
        for name, value, known in pairs
        if value != known and not _is_free(name, trained)
    )


def _contradiction(name: str, value: object, trained: object) -> str:
    return (
        f"{name} is {_value(value)}, and the model was trained with {_value(trained)}: "
        f"leave {name} out to use it as it was trained"
    )


def _is_free(name: str, signature: Signature) -> bool:
    """Whether a job may choose freely: conversations have their own system messages."""
    return name == "system" and signature.rows is RowForm.MESSAGES


def _task(spec: AnyTraining, known: Signature | None) -> Task:
    match spec:
        case FinetuneSpec():
            return spec.task
        case EvaluateSpec():
            return _evaluated_task(spec, known)


def _evaluated_task(spec: EvaluateSpec, known: Signature | None) -> Task:
    if known is not None and spec.task not in (None, known.task):
        raise ModelFailure(
            f"the model was trained to {known.task}, and the job evaluates it for {spec.task}: "
            "leave task out",
            code="model_other_task",
        )
    return spec.task or (known.task if known else Task.CLASSIFY)


def _multi_label(
    spec: AnyTraining, facts: ModelFacts | None, known: Signature | None, *, task: Task
) -> bool:
    match spec:
        case FinetuneSpec():
            return spec.multi_label
        case EvaluateSpec():
            classifier = facts if task is Task.CLASSIFY else None
            by_config = classifier is not None and classifier.problem_type == MULTI_LABEL
            return _or(spec.multi_label, known.multi_label if known else by_config)


def _chat(spec: AnyTraining, facts: ModelFacts | None, known: Signature | None) -> bool:
    has_template = facts is not None and facts.has_chat_template
    wanted = spec.chat or spec.system is not None
    if wanted and not has_template:
        raise ModelFailure(
            "the model's tokenizer has no chat template: leave chat and system out, and train on "
            "plain prompts",
            code="model_no_chat_template",
        )
    if wanted:
        return True
    if known is None:
        return _or(spec.chat, has_template)
    match spec:
        case FinetuneSpec() if known.rows is RowForm.TEXT:
            # A base trained on plain texts alone has not learned to answer without its template.
            return _or(spec.chat, has_template)
        case FinetuneSpec() | EvaluateSpec():
            return _or(spec.chat, known.chat)


def _window(spec: AnyTraining, facts: ModelFacts | None, known: Signature | None) -> int | None:
    match spec:
        case FinetuneSpec():
            default = None
        case EvaluateSpec():
            default = None if known is None else known.max_tokens
    window = _or(spec.reading_limits.max_tokens, default)
    limits = (window, None if facts is None else facts.max_tokens)
    return min((limit for limit in limits if limit is not None), default=None)


def _check_form(
    split: DatasetSplit, form: RowForm, signature: Signature, spec: AnyTraining
) -> None:
    if form is RowForm.MESSAGES and not signature.chat:
        why = "chat is false" if spec.chat is False else "the model is used without a chat template"
        raise CorpusFailure(
            f"the {split} corpus holds messages, which need a chat template, and {why}: choose a "
            "base with one, leave chat out, or pass prompts and completions",
            code="messages_need_chat",
        )
    if form is RowForm.TEXT and (spec.chat or spec.system is not None):
        raise CorpusFailure(
            f"the {split} corpus is plain text, and chat needs what the assistant answers: pass "
            "target_column or messages_column, or leave chat and system out",
            code="chat_needs_answers",
        )


def _or(given: T | None, default: T) -> T:
    """The given value, even if it is false or empty."""
    return default if given is None else given


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else repr(value)
