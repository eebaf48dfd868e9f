"""The commands of bulk jobs: corpus and model in, a result for every row out.

Each is made from the spec of its kind.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import (
    arguments,
    captured,
    connection,
    console,
    corpus_arguments,
    option_forms,
    out_files,
    outcomes,
    progress_bars,
    spec_options,
)
from api.cli.option_names import OptionNames
from api.client import Client
from jobs.kinds import BulkSpec


@dataclass(frozen=True, kw_only=True)
class BulkArguments:
    """What a command takes beside the options of its spec."""

    corpus: corpus_arguments.Argument
    out: Annotated[
        Path | None,
        typer.Option(
            help="Wait, then write results here: .parquet, .jsonl, .csv.",
            rich_help_panel=spec_options.PANELS["output"],
        ),
    ] = None
    force: arguments.Force = False
    watch: arguments.Watch = None
    json: arguments.Json = False
    idempotency_key: arguments.IdempotencyKey = None
    api: connection.Api = None


def command(spec: type[BulkSpec]) -> Callable[..., None]:
    """The command of a kind, with the spec's words as its help."""
    options = spec_options.of_spec(spec, option_forms.BULK, overlay=False)
    words = OptionNames.of(options)

    def run(**given: Any) -> None:
        own = {field.name: given.pop(field.name) for field in fields(BulkArguments)}
        own_arguments = BulkArguments(**own)
        with words.spoken():
            chosen = spec_options.gathered(options, given)
            kind = spec.model_fields["kind"].default
            _run(_spec(chosen, own_arguments, kind=kind), own_arguments)

    first, *rest = inspect.signature(BulkArguments, eval_str=True).parameters.values()
    parameters = [first, *(option.parameter for option in options), *rest]
    run.__doc__ = spec.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _spec(chosen: dict[str, Any], given: BulkArguments, *, kind: str) -> dict[str, Any]:
    """The spec as it will be sent. Raises ``Failure`` and what the API would refuse."""
    out = given.out
    if out is not None:
        out_files.check(out, force=given.force)
    corpus = corpus_arguments.read_as(given.corpus, chosen.get("corpus", {}))
    output = {
        **chosen.get("output", {}),
        "format": None if out is None else out_files.result_format(out),
    }
    spec = {**chosen, "kind": kind, "corpus": corpus, "output": output}
    return corpus_arguments.checked(spec, {("corpus",): given.corpus}).model_dump(mode="json")


def _run(spec: dict[str, Any], given: BulkArguments) -> None:
    with connection.connect(given.api) as client:
        named = [(spec["corpus"], given.corpus)]
        corpus_arguments.upload(client, named, reuse=given.idempotency_key is not None)
        if captured.take(spec):
            return
        job = client.submit(spec, idempotency_key=given.idempotency_key)
        with progress_bars.leaving(job["id"]):
            if progress_bars.is_wanted(given.watch):
                console.note(f"{job['id']} submitted")
                _deliver(client, progress_bars.job(client, job["id"]), given)
            elif given.out is not None:
                _deliver(client, client.wait(job["id"]), given)
            else:
                console.answer(job, job["id"], json=given.json)


def _deliver(client: Client, job: dict[str, Any], given: BulkArguments) -> None:
    out = given.out
    if given.json:
        console.as_json(outcomes.told(job))
    else:
        progress_bars.summary(job)
    outcomes.check(job)
    if out is not None:
        with progress_bars.transfer("fetching", out) as progress:
            client.download(job["id"], out, progress=progress)
    if not given.json:
        where = out or f"`nightshift jobs results {job['id']}`"
        console.line(f"results: {where}")
