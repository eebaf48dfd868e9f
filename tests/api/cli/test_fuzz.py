"""Whatever an option is given, a command answers with one sentence, and never with a trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

import pytest
import typer.main

from api import cli
from api.cli import connection, failures

VALUES = (
    "",
    " ",
    "abc",
    "-1",
    "1e999",
    "9" * 5_000,
    "nan",
    "x" * 70_000,
    "\x1b[31m\x07",
    "a\nb",
    "\0",
    "\udcff",
    "日本語\u202e",
    "{",
    "../..",
    "s3://b/k",
)
STARTS_A_STACK = {"up", "demo", "nightly", "restore"}
NEEDED = {
    "CORPUS": "corpus.jsonl",
    "JOB": "job_1",
    "FILE": "file-1",
    "POOL": "gpu",
    "MODEL": "news@1",
    "NAME": "news",
    "NAME@VERSION": "news@1",
    "ALIAS": "champion",
    "SCHEDULE": "nightly",
    "ENDPOINT": "we_1",
    "DELIVERY": "1",
    "KEY": "key_1",
    "PROJECT": "team-b",
    "URL": "http://127.0.0.1:9",
    "PATH": "corpus.jsonl",
    "TO": "backup",
    "--model": "/m",
    "--name": "news",
    "--base": "/m",
    "--out": "out.jsonl",
    "--since": "2d",
    "--until": "1d",
}
"""What makes a command whole, apart from the option that is tried."""


@dataclass(frozen=True)
class Tried:
    """A command, and one option or argument of it."""

    command: tuple[str, ...]
    name: str
    whole: tuple[str, ...]
    is_argument: bool

    def arguments(self, value: str) -> list[str]:
        """The command with this value in its place."""
        given = [value if each == self.name else each for each in self.whole]
        if self.is_argument and self.name not in self.whole:  # it may be left out
            given.append(value)
        return [*self.command, *given] if self.is_argument else [*self._with(value)]

    def _with(self, value: str) -> Iterator[str]:
        yield from (*self.command, f"{self.name}={value}")
        pairs = iter(self.whole)
        for each in pairs:
            if each.startswith("-"):
                filled = next(pairs)
                if each != self.name:
                    yield from (each, filled)
            else:
                yield NEEDED[each]


def _tried() -> Iterator[Tried]:
    """Every option and argument with a value; one that several commands share is tried once."""
    seen = set()
    for command, leaf in _commands():
        whole = tuple(_whole(leaf))
        for param in leaf.params:
            name = _name(param)
            marks = (name, getattr(param, "help", ""))
            if getattr(param, "is_flag", False) or name == "--help" or marks in seen:
                continue
            seen.add(marks)
            yield Tried(command, name, whole, is_argument=param.param_type_name == "argument")


def _commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    root: Any = typer.main.get_command(cli.app)
    for name, command in root.commands.items():
        if name in STARTS_A_STACK:
            continue
        for last, leaf in getattr(command, "commands", {"": command}).items():
            yield tuple(filter(None, (name, last))), leaf


def _whole(leaf: Any) -> Iterator[str]:
    for param in leaf.params:
        name = _name(param)
        if param.param_type_name == "argument":
            if param.required:
                yield name
        elif param.required or name in {"--base", "--name"} & set(NEEDED) & {
            each for each in param.opts if leaf.name == "finetune"
        }:
            yield from (name, NEEDED[name])


def _name(param: Any) -> str:
    if param.param_type_name == "argument":
        return str(param.metavar or param.name).upper()
    return str(max(param.opts, key=len) if param.opts[0].startswith("-") else param.opts[0])


def _unreachable(api: str | None) -> Never:
    connection.address(api)
    raise failures.Failure("the API does not answer", code=failures.UNREACHABLE)


TRIED = list(_tried())


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a corpus, and an API that does not answer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("NIGHTSHIFT_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NIGHTSHIFT_API_KEY", "ns-key")
    monkeypatch.setattr(connection, "connect", _unreachable)
    (tmp_path / "corpus.jsonl").write_text('{"text": "one", "label": "a"}\n')


@pytest.mark.parametrize("tried", TRIED, ids=lambda tried: " ".join((*tried.command, tried.name)))
def test_no_value_of_an_option_ends_in_a_trace(
    tried: Tried, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in VALUES:
        code = cli.main(tried.arguments(value))
        said = capsys.readouterr()
        shown = f"{value[:20]!r} -> {code} {said.err[:300]}"
        assert code in {0, failures.FAILED, failures.BAD_INPUT, failures.UNREACHABLE}, shown
        assert code == 0 or (said.err.count("\n") == 1 and len(said.err) < 1_500), shown
        assert "\x1b[31m" not in said.err, shown
        assert "pydantic" not in said.err, shown
        assert "pattern" not in said.err, shown
