"""``nightshift finetune`` and ``nightshift evaluate``: from labels to a model and a report.

Options lie over the spec of ``--spec``, and both over the defaults.
"""

from __future__ import annotations

import inspect
import json as json_format
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from api.cli import (
    arguments,
    captured,
    connection,
    console,
    corpus_arguments,
    groups,
    option_forms,
    outcomes,
    progress_bars,
    recipes,
    reports,
    spec_options,
)
from api.cli.failures import Failure
from api.cli.option_names import OptionNames
from api.cli.spec_options import OptionForm, SpecOption
from api.client import Client
from jobs import validation
from jobs.kinds import EvaluateSpec, FinetuneSpec, TrainingSpec
from jobs.kinds.base import OF_SEVERAL, PLACES
from jobs.kinds.groups import GroupSpec

Corpora = Mapping[tuple[str, ...], str]
"""Corpora as the command line names them, by the path of their field in the spec."""


@dataclass(frozen=True, kw_only=True)
class TrainingArguments:
    """What a command takes beside the options of its spec."""

    corpus: corpus_arguments.Argument
    spec: Annotated[
        Path | None, typer.Option("--spec", help="JSON with everything else; options overrule it.")
    ] = None
    watch: arguments.Watch = None
    json: arguments.Json = False
    idempotency_key: arguments.IdempotencyKey = None
    api: connection.Api = None


@dataclass(frozen=True, kw_only=True)
class FinetuneArguments(TrainingArguments):
    """What the command of a fine-tune takes besides."""

    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTION=A,B",
            help="Train once with each of these values, such as `learning-rate=1e-5,3e-5`. Given "
            "several times: with every combination.",
        ),
    ] = None


def command(
    spec: type[TrainingSpec],
    forms: Mapping[str, OptionForm],
    *,
    takes: type[TrainingArguments],
    without_model: str,
) -> Callable[..., None]:
    """The command of a kind; ``without_model`` is what it answers where no model is named."""
    options = spec_options.of_spec(spec, forms, overlay=True)
    words = OptionNames.of(options)

    def run(**given: Any) -> None:
        own = {field.name: given.pop(field.name) for field in fields(takes)}
        own_arguments = takes(**own)
        kind = spec.model_fields["kind"].default
        corpora = _corpora(options, given, corpus=own_arguments.corpus)
        with words.spoken():
            chosen = _with_corpora(spec_options.gathered(options, given), corpora)
            _check_promotion(chosen)
            _bring_accelerate(chosen)
            whole = _overlaid(chosen, corpora=corpora, file=own_arguments.spec, kind=kind)
            if "model" not in whole:
                raise Failure(without_model)
            if isinstance(own_arguments, FinetuneArguments) and own_arguments.sweep:
                grid = dict(_swept(each, words=words) for each in own_arguments.sweep)
                _run_sweep(whole, grid, corpora=corpora, given=own_arguments)
            else:
                _run(whole, corpora=corpora, given=own_arguments)

    first, *rest = inspect.signature(takes, eval_str=True).parameters.values()
    parameters = [first, *(option.parameter for option in options), *rest]
    run.__doc__ = spec.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


finetune = command(
    FinetuneSpec,
    option_forms.FINETUNE,
    takes=FinetuneArguments,
    without_model="--name must say under which name the model is registered",
)
evaluate = command(
    EvaluateSpec,
    option_forms.EVALUATE,
    takes=TrainingArguments,
    without_model="--model must say which model is evaluated",
)


def _corpora(
    options: list[SpecOption], given: Mapping[str, Any], *, corpus: str
) -> dict[tuple[str, ...], str]:
    others = {
        option.path: given[option.parameter.name] for option in options if option.names_corpus
    }
    return {("corpus",): corpus} | {path: name for path, name in others.items() if name is not None}


def _with_corpora(chosen: dict[str, Any], corpora: Corpora) -> dict[str, Any]:
    """Every corpus that was named, read as the options of the corpus have it."""
    options = chosen.get("corpus", {})
    columns = {name: value for name, value in options.items() if name not in OF_SEVERAL}
    for (*above, field), name in corpora.items():
        place = chosen
        for step in above:
            place = place[step]
        is_first = (*above, field) == ("corpus",)
        place[field] = corpus_arguments.read_as(name, options if is_first else columns)
    return chosen


def _check_promotion(chosen: Mapping[str, Any]) -> None:
    if "promote" in chosen and "alias" not in chosen["promote"]:
        raise Failure("options that begin with --promote- need --promote ALIAS")


def _bring_accelerate(chosen: dict[str, Any]) -> None:
    """Put the entries of an Accelerate config in the place of its path."""
    recipe = chosen.get("train", {})
    entries, precision = recipes.accelerate(recipe.pop("accelerate", None))
    if entries is not None:
        recipe["accelerate"] = entries
    if precision is not None:
        recipe.setdefault("mixed_precision", precision)


def _overlaid(
    chosen: Mapping[str, Any], *, corpora: Corpora, file: Path | None, kind: str
) -> dict[str, Any]:
    """The spec in the file, overruled by what was given; a corpus that was named stands alone."""
    below = recipes.spec(file, kind=kind)
    for path in corpora:
        corpus = _at(below, path)
        if isinstance(corpus, dict):
            for place in PLACES:
                corpus.pop(place, None)
    return recipes.overlaid(below, chosen)


def _at(spec: Any, path: tuple[str, ...]) -> Any:
    """What stands in a spec at this path; ``None``: nothing does."""
    for step in path:
        spec = spec.get(step) if isinstance(spec, dict) else None
    return spec


def _run(whole: dict[str, Any], *, corpora: Corpora, given: TrainingArguments) -> None:
    spec = corpus_arguments.checked(whole, corpora).model_dump(mode="json")
    with connection.connect(given.api) as client:
        named = [(_at(spec, path), name) for path, name in corpora.items()]
        corpus_arguments.upload(client, named, reuse=given.idempotency_key is not None)
        if captured.take(spec):
            return
        job = client.submit(spec, idempotency_key=given.idempotency_key)
        with progress_bars.leaving(job["id"]):
            if progress_bars.is_wanted(given.watch):
                console.note(f"{job['id']} submitted")
                _deliver(client, progress_bars.job(client, job["id"]), json=given.json)
            else:
                console.answer(job, job["id"], json=given.json)


def _swept(written: str, *, words: OptionNames) -> tuple[str, list[Any]]:
    """The path of an option in the spec, and its values."""
    name, equals, values = written.partition("=")
    if not name or not equals or not values:
        raise Failure(
            f"--sweep must be OPTION=A,B, such as learning-rate=1e-5,3e-5, not {written!r}"
        )
    option = f"--{name.removeprefix('--').replace('_', '-')}"
    paths = {option: path for path, option in words.of_path.items()}
    return paths.get(option, name), [_value(each.strip()) for each in values.split(",")]


def _value(written: str) -> Any:
    try:
        return json_format.loads(written)
    except ValueError:
        return written


def _run_sweep(
    whole: dict[str, Any],
    grid: Mapping[str, list[Any]],
    *,
    corpora: Corpora,
    given: TrainingArguments,
) -> None:
    job = corpus_arguments.checked(whole, corpora).model_dump(mode="json")
    for path, name in corpora.items():
        corpus = _at(job, path)
        if isinstance(corpus, dict) and corpus["file"] == corpus_arguments.TO_BE_UPLOADED:
            corpus["file"] = name
    spec = {"name": job["name"], "sweep": {"job": job, "grid": grid}}
    try:
        GroupSpec.model_validate(spec)
    except ValidationError as error:  # its fields are no options
        raise Failure(f"--sweep: {validation.sentence(error.errors()[0])}") from error
    groups.submit(
        spec,
        watch=given.watch,
        json=given.json,
        idempotency_key=given.idempotency_key,
        api=given.api,
    )


def _deliver(client: Client, job: dict[str, Any], *, json: bool) -> None:
    report = client.report(job["id"]) if job["state"] == "succeeded" else None
    if json:
        console.as_json({**outcomes.told(job), "report": report})
    else:
        progress_bars.summary(job)
    if report is not None and not json:
        reports.show(job, report)
    outcomes.check(job)
