"""``nightshift finetune`` and ``nightshift evaluate``: from labels to a model and a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from api.cli import connection, console, corpus_arguments, progress_bars, recipes, reports
from api.cli.failures import Failure
from api.client import Client
from jobs.kinds import Architecture, CorpusFormat, Task

Named = Mapping[str, str | None]
"""Corpora as they were named on the command line, by their field in the spec."""

Corpus = Annotated[
    str, typer.Argument(help="A local file, an uploaded file's id, or a URI (s3://, hf://).")
]
TaskOption = Annotated[Task | None, typer.Option(help="What the model answers. Default: classify.")]
EvaluatedTask = Annotated[
    Task | None, typer.Option(help="Default: what the model was trained for, else classify.")
]
MultiLabel = Annotated[
    bool | None, typer.Option("--multi-label/--single-label", help="A row has several labels.")
]
TextColumn = Annotated[str | None, typer.Option(help="Default: the likeliest.")]
TargetColumn = Annotated[
    str | None, typer.Option(help="The label, or the text to be written. Default: the likeliest.")
]
MessagesColumn = Annotated[
    str | None,
    typer.Option(help="Of conversations, for generate. Default: messages, where it stands alone."),
]
Chat = Annotated[
    bool | None,
    typer.Option(
        "--chat/--no-chat",
        help="Of generate: through the model's chat template, or as plain text. Default: as the "
        "model was trained, else if it has a template and the rows have answers.",
    ),
]
System = Annotated[
    str | None,
    typer.Option(help="The system message of every chat. Default: as the model was trained."),
]
Prompt = Annotated[
    str | None,
    typer.Option(help="Of text2text: put before every text. Default: as the model was trained."),
]
Format = Annotated[
    CorpusFormat | None, typer.Option("--format", help="Default: by each name's ending.")
]
Encoding = Annotated[str | None, typer.Option(help="Of text corpora. Default: utf-8.")]
MaxTokens = Annotated[int | None, typer.Option(help="Longer rows are cut.")]
Pool = Annotated[str | None, typer.Option(help="Which hosts. Default: train.")]
Priority = Annotated[int | None, typer.Option(help="Higher goes first. Default: 0.")]
SpecFile = Annotated[
    Path | None, typer.Option("--spec", help="JSON with everything else; options overrule it.")
]
Watch = Annotated[bool | None, typer.Option("--watch/--no-watch", help="Default: on a terminal.")]


def finetune(
    corpus: Corpus,
    *,
    name: Annotated[
        str | None, typer.Option("--name", "--model-name", help="Registered under this name.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="name@version, name@alias, hf:org/name, a folder or a URI."),
    ] = None,
    architecture: Annotated[
        Architecture | None, typer.Option(help="From scratch, instead of a base.")
    ] = None,
    task: TaskOption = None,
    multi_label: MultiLabel = None,
    validation: Annotated[
        str | None, typer.Option(help="Another corpus. Default: a share of this one.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="A corpus that nothing is chosen by.")] = None,
    text_column: TextColumn = None,
    target_column: TargetColumn = None,
    messages_column: MessagesColumn = None,
    chat: Chat = None,
    system: System = None,
    prompt: Prompt = None,
    corpus_format: Format = None,
    encoding: Encoding = None,
    epochs: Annotated[int | None, typer.Option(help="Default: 3.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Ends earlier.")] = None,
    batch_rows: Annotated[int | None, typer.Option(help="Rows of a step. Default: 32.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: by its origin.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: 0.")] = None,
    max_tokens: MaxTokens = None,
    class_weights: Annotated[
        bool, typer.Option("--class-weights", help="Rows of rare labels weigh more.")
    ] = False,
    mixed_precision: Annotated[
        Literal["no", "bf16", "fp16"] | None, typer.Option(help="Default: no.")
    ] = None,
    evaluate_steps: Annotated[int | None, typer.Option(help="Default: once an epoch.")] = None,
    checkpoint_steps: Annotated[
        int | None, typer.Option(help="Default: every five minutes, and at each evaluation.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="Which version of the weights is best. Default: macro_f1, else loss."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many evaluations without a better one.")
    ] = None,
    machines: Annotated[
        str | None, typer.Option(help="Hosts: 2, or 2..4 for what is there. Default: 1.")
    ] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Train adapters, not all weights.")] = False,
    lora_r: Annotated[int | None, typer.Option(help="Their rank. Default: 8.")] = None,
    lora_merge: Annotated[
        bool, typer.Option("--lora-merge", help="Register them merged into the base.")
    ] = False,
    promote: Annotated[
        str | None, typer.Option(metavar="ALIAS", help="Move this alias if the model is better.")
    ] = None,
    promote_metric: Annotated[str | None, typer.Option(help="Default: the recipe's.")] = None,
    promote_margin: Annotated[float | None, typer.Option(help="Better by more than this.")] = None,
    promote_on: Annotated[
        str | None, typer.Option(help="The corpus that decides. Default: the test rows.")
    ] = None,
    accelerate_config: Annotated[
        Path | None, typer.Option(help="An Accelerate config (YAML or JSON): FSDP, DeepSpeed.")
    ] = None,
    pool: Pool = None,
    priority: Priority = None,
    spec: SpecFile = None,
    watch: Watch = None,
    json: connection.Json = False,
    api: connection.Api = None,
) -> None:
    """Train a model on a corpus and register it, with its evaluation."""
    named = {"corpus": corpus, "validation": validation, "test": test, "promote": promote_on}
    columns = {
        "text_column": text_column,
        "target_column": target_column,
        "messages_column": messages_column,
        "format": corpus_format,
        "encoding": encoding,
    }
    promotion = {
        "alias": promote,
        "metric": promote_metric,
        "margin": promote_margin,
        "corpus": _corpus(promote_on, columns),
    }
    if promote is None and any(value is not None for value in promotion.values()):
        raise Failure("--promote-metric, --promote-margin and --promote-on need --promote ALIAS")
    entries, precision = recipes.accelerate(accelerate_config)
    adapters = lora or lora_merge or lora_r is not None
    given = {
        "model": name,
        "base": base and corpus_arguments.model(base),
        "architecture": architecture,
        "task": task,
        "multi_label": multi_label,
        "chat": chat,
        "system": system,
        "prompt": prompt,
        "corpus": _corpus(corpus, columns),
        "validation": _corpus(validation, columns),
        "test": _corpus(test, columns),
        "train": {
            "epochs": epochs,
            "max_steps": max_steps,
            "batch_rows": batch_rows,
            "learning_rate": learning_rate,
            "seed": seed,
            "max_tokens": max_tokens,
            "class_weights": "balanced" if class_weights else None,
            "mixed_precision": mixed_precision or precision,
            "evaluate_steps": evaluate_steps,
            "checkpoint_steps": checkpoint_steps,
            "metric": metric,
            "patience": patience,
            "accelerate": entries,
        },
        "machines": machines,
        "lora": {"r": lora_r, "merge": lora_merge or None} if adapters else None,
        "promote": promotion if promote else None,
        "pool": pool,
        "priority": priority,
    }
    fields = _overlaid(given, named=named, file=spec, kind="finetune")
    if "model" not in fields:
        raise Failure("--name must say under which name the model is registered")
    _run(fields, named=named, watch=watch, json=json, api=api)


def evaluate(
    corpus: Corpus,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="name@version, name@alias, hf:org/name, a folder or a URI."
        ),
    ] = None,
    task: EvaluatedTask = None,
    multi_label: MultiLabel = None,
    text_column: TextColumn = None,
    target_column: TargetColumn = None,
    messages_column: MessagesColumn = None,
    chat: Chat = None,
    system: System = None,
    prompt: Prompt = None,
    corpus_format: Format = None,
    encoding: Encoding = None,
    max_tokens: MaxTokens = None,
    pool: Pool = None,
    priority: Priority = None,
    name: Annotated[str | None, typer.Option(help="Of the job, for people.")] = None,
    spec: SpecFile = None,
    watch: Watch = None,
    json: connection.Json = False,
    api: connection.Api = None,
) -> None:
    """Measure a model on a labelled corpus."""
    named = {"corpus": corpus}
    columns = {
        "text_column": text_column,
        "target_column": target_column,
        "messages_column": messages_column,
        "format": corpus_format,
        "encoding": encoding,
    }
    given = {
        "model": model and corpus_arguments.model(model),
        "task": task,
        "multi_label": multi_label,
        "chat": chat,
        "system": system,
        "prompt": prompt,
        "corpus": _corpus(corpus, columns),
        "max_tokens": max_tokens,
        "pool": pool,
        "priority": priority,
        "name": name,
    }
    fields = _overlaid(given, named=named, file=spec, kind="evaluate")
    if "model" not in fields:
        raise Failure("--model must say which model is evaluated")
    _run(fields, named=named, watch=watch, json=json, api=api)


def _corpus(name: str | None, columns: Mapping[str, str | None]) -> dict[str, Any] | None:
    return None if name is None else {**corpus_arguments.source(name), **columns}


def _overlaid(
    given: Mapping[str, Any], *, named: Named, file: Path | None, kind: str
) -> dict[str, Any]:
    """The spec in the file, overruled by what was given; a corpus that was named stands alone."""
    below = recipes.spec(file, kind=kind)
    for _, corpus in _places(below, named):
        if isinstance(corpus, dict):
            corpus.pop("file", None)
            corpus.pop("uri", None)
    return recipes.overlaid(below, given)


def _places(spec: Mapping[str, Any], named: Named) -> list[tuple[str, Any]]:
    """What was named on the command line, each with its corpus in a spec."""
    return [
        (name, (spec.get("promote") or {}).get("corpus") if field == "promote" else spec.get(field))
        for field, name in named.items()
        if name is not None
    ]


def _run(
    fields: dict[str, Any], *, named: Named, watch: bool | None, json: bool, api: str | None
) -> None:
    spec = corpus_arguments.checked(fields).model_dump(mode="json")
    with connection.connect(api) as client:
        corpus_arguments.upload(client, [(corpus, name) for name, corpus in _places(spec, named)])
        job = client.submit(spec)
        if watch if watch is not None else progress_bars.is_terminal():
            console.note(f"{job['id']} submitted")
            _deliver(client, progress_bars.job(client, job["id"]), json=json)
        elif json:
            console.as_json(job)
        else:
            console.line(job["id"])


def _deliver(client: Client, job: dict[str, Any], *, json: bool) -> None:
    report = client.report(job["id"]) if job["state"] == "succeeded" else None
    if json:
        console.as_json({**job, "report": report})
    else:
        progress_bars.summary(job)
    progress_bars.check_succeeded(job)
    if report is not None and not json:
        reports.show(job, report)
