"""The parts of the documentation that are made from code.

State charts, faults, settings and values stand between markers in their pages; the page of the
fault matrix and the picture of the rooms are files. ``python docs/generate.py`` rewrites all of
them; ``--check`` changes nothing and fails when one is stale.
"""  # noqa: INP001 - a program beside the packages, not one of them

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import rooms
import typer.main
from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from api.cli import app
from jobs import kinds, states
from jobs.corpora import conversion_examples
from jobs.corpora.conversion_examples import Conversion, JsonConversion, Refused
from jobs.decisions import faults
from jobs.monitoring import catalogue
from jobs.monitoring.catalogue import Metric
from jobs.row_codes import RowCode
from jobs.settings import Settings

DOCS = Path(__file__).parent
PREFIX = "NIGHTSHIFT_"


def main(arguments: list[str] | None = None) -> int:
    """0 when all is up to date, or was rewritten; 1 when ``--check`` finds a stale one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail if stale")
    check = parser.parse_args(arguments).check
    made = {path: renewed(path) for path in PAGES} | {path: make() for path, make in FILES.items()}
    stale = [path for path, text in made.items() if text != _read(path)]
    for path in stale:
        sys.stdout.write(f"{path.name} is stale\n" if check else f"{path.name} is rewritten\n")
        if not check:
            path.write_text(made[path], encoding="utf-8")
    return 1 if check and stale else 0


def renewed(path: Path) -> str:
    """The page as it should be."""
    text = path.read_text(encoding="utf-8")
    for name, make in PAGES[path].items():
        text = _replaced(text, name, make(), path=path)
    return text


def job_chart() -> str:
    """The life cycle of a job as a Mermaid state diagram."""
    return _chart(states.JOB_MOVES, first=states.JobState.QUEUED, final=states.FINAL)


def chunk_chart() -> str:
    """The life cycle of a chunk as a Mermaid state diagram."""
    final = (states.ChunkState.DONE, states.ChunkState.SPLIT)
    return _chart(states.CHUNK_MOVES, first=states.ChunkState.PENDING, final=final)


def run_chart() -> str:
    """The life cycle of a training run as a Mermaid state diagram."""
    final = frozenset(states.RunState) - states.LIVE_RUN
    return _chart(states.RUN_MOVES, first=states.RunState.FORMING, final=final)


def rank_chart() -> str:
    """The life cycle of one host's part in a run as a Mermaid state diagram."""
    return _chart(
        states.RANK_MOVES, first=states.RankState.PENDING, final=(states.RankState.ENDED,)
    )


def settings_table() -> str:
    """Every setting with its default and meaning."""
    rows = [_setting(name, field) for name, field in Settings.model_fields.items()]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def metrics_table() -> str:
    """Every metric by who has it, in the order of the catalogue."""
    rows = [
        " | ".join(
            [
                f"| `{each.name}`",
                each.type,
                _labels(each),
                ", ".join(each.sources),
                f"{each.help} |",
            ]
        )
        for each in catalogue.ALL
    ]
    return "\n".join(["| metric | type | labels | of | meaning |", "|---" * 5 + "|", *rows])


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{label.name}`" for label in metric.labels)


def json_values() -> str:
    """What each value of JSON becomes."""
    return _values(conversion_examples.JSON, "in the file", *_PARTS, "content of a message")


def csv_values() -> str:
    """What each cell of CSV becomes."""
    return _values(conversion_examples.CSV, "in the file", *_PARTS)


def arrow_values() -> str:
    """What the values of each type of Arrow become."""
    return _values(conversion_examples.ARROW, "type", *_PARTS)


_PARTS = ("id", "text", "label", "labels of `multi_label`")


def _values(table: Iterable[Conversion], *head: str) -> str:
    rows = [_row(each) for each in table]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows])


def _row(value: Conversion) -> str:
    given = value.given or "nothing"
    if value.given and not isinstance(value, conversion_examples.ArrowConversion):
        given = _code(value.given)
    cells = [given, *map(_outcome, (value.id, value.text, value.label, value.labels))]
    if isinstance(value, JsonConversion):
        cells.append(_outcome(value.chat))
    return f"| {' | '.join(cells)} |"


def _outcome(value: object) -> str:
    """A text, or a code and whether the row or the whole corpus is refused with it."""
    match value:
        case None:
            return "null"
        case RowCode():
            return f"row: `{value}`"
        case Refused():
            return f"corpus: `{value}`"
        case tuple():
            return ", ".join(map(_code, value)) or "none"
    return _code(str(value))


def _code(text: str) -> str:
    if not text:
        return "the empty string"
    shown = text.replace("|", "\\|")
    return f"`` {shown} ``" if shown.strip() != shown else f"`{shown}`"


def faults_table() -> str:
    """Every rule of the classification of faults, in the order in which they are tried."""
    stages = list(faults.Stage)
    rows = [
        " | ".join(
            [f"| {rule.what}", *(rule.blame_at(stage) for stage in stages), f"{_code_of(rule)} |"]
        )
        for rule in faults.RULES
    ]
    head = f"| what is raised | {' | '.join(stages)} | code |"
    return "\n".join([head, "|---" * (len(stages) + 2) + "|", *rows])


def bulk_options() -> str:
    """The options that every kind of bulk work has."""
    return _options(_bulk_options())


def own_options(kind: str) -> Callable[[], str]:
    """The options of a kind that not every one of its sort has."""
    return lambda: _options(each for each in _options_of(kind) if each not in _bulk_options())


def finetune_options() -> str:
    """The options of a fine-tune."""
    return _options(_options_of("finetune"))


def evaluate_options() -> str:
    """The options of an evaluation."""
    return _options(_options_of("evaluate"))


def schedule_options() -> str:
    """The options of a schedule, which `create` and `edit` share."""
    of_edit = _options_of("schedules", "edit")
    return _options(each for each in _options_of("schedules", "create") if each in of_edit)


_BULK = sorted(kinds.BULK)
_Option = tuple[str, str]


@functools.cache
def _options_of(*path: str) -> list[_Option]:
    """Each option of a command as it is written, and its help."""
    command: Any = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    return [
        (_written(option), f"{option.help}{_default_of(option)}")
        for option in command.params
        if option.param_type_name == "option"
    ]


def _written(option: Any) -> str:
    names = "/".join([option.opts[0], *option.secondary_opts])
    others = [f"`{name}`" for name in option.opts[1:]]
    return " or ".join([f"`{names}`", *others])


def _default_of(option: Any) -> str:
    value = getattr(option.default, "value", option.default)
    return "" if value in (None, False, ()) or option.required else f" Default: `{value}`."


@functools.cache
def _bulk_options() -> list[_Option]:
    first, *others = map(_options_of, _BULK)
    return [option for option in first if all(option in each for each in others)]


def _options(options: Iterable[_Option]) -> str:
    rows = [f"| {name} | {_cell(text)} |" for name, text in options]
    return "\n".join(["| option | meaning |", "|---|---|", *rows])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def fault_matrix() -> str:
    """The page of what the fault matrix has measured."""
    sys.path.insert(0, str(rooms.ROOT))  # benchmarks are not installed
    from benchmarks.fault_matrix import page  # noqa: PLC0415

    return page.page()


PAGES: dict[Path, dict[str, Callable[[], str]]] = {
    DOCS / "lifecycle.md": {
        "job states": job_chart,
        "chunk states": chunk_chart,
        "run states": run_chart,
        "rank states": rank_chart,
    },
    DOCS / "cli.md": {
        "options of all bulk commands": bulk_options,
        **{f"options of {kind}": own_options(kind) for kind in _BULK},
        "options of finetune": finetune_options,
        "options of evaluate": evaluate_options,
        "options of schedules": schedule_options,
    },
    DOCS / "faults.md": {"faults": faults_table},
    DOCS / "metrics.md": {"metrics": metrics_table},
    DOCS / "settings.md": {"settings": settings_table},
    DOCS / "values.md": {
        "values of JSON": json_values,
        "cells of CSV": csv_values,
        "values of Arrow": arrow_values,
    },
}


FILES: dict[Path, Callable[[], str]] = {
    DOCS / "fault-matrix.md": fault_matrix,
    DOCS / "pictures" / "rooms.svg": rooms.picture,
}
"""Files that are made as a whole."""


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _code_of(rule: faults.FaultRule) -> str:
    return f"`{rule.code}`" if rule.code else "its own"


def _replaced(text: str, name: str, made: str, *, path: Path) -> str:
    begin, end = f"<!-- made from code: {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise SystemExit(f"{path.name} must have {begin} and {end} exactly once")
    return pattern.sub(lambda _: f"{begin}\n{made}\n{end}", text)


def _chart(
    moves: Mapping[Any, Mapping[Any, str]], *, first: StrEnum, final: Iterable[StrEnum]
) -> str:
    arrows = [
        f"    {state} --> {target}: {why}"
        for state, targets in moves.items()
        for target, why in targets.items()
    ]
    ends = [f"    {state} --> [*]" for state in moves if state in frozenset(final)]
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}", *arrows, *ends, "```"]
    return "\n".join(lines)


def _setting(name: str, field: FieldInfo) -> str:
    meaning = (field.description or "").replace("|", "\\|")
    return f"| {_variables(name, field)} | `{_default(field)}` | {meaning} |"


def _variables(name: str, field: FieldInfo) -> str:
    if not isinstance(field.validation_alias, AliasChoices):
        return f"`{PREFIX}{name.upper()}`"
    return " or ".join(f"`{alias}`" for alias in field.validation_alias.choices)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        raise SystemExit(f"a setting must have a default: {field.description}")
    if isinstance(value, BaseModel):
        return value.model_dump_json(exclude_none=True)
    return value if isinstance(value, str) and value else json.dumps(value)


if __name__ == "__main__":
    sys.exit(main())
