"""The page about nightly fine-tunes is the example that runs, and its commands can be read."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from api.cli import app
from api.cli.nightly import expectations
from api.cli.nightly.nights import NIGHTS

PAGE = (Path(__file__).parents[2] / "docs" / "nightly.md").read_text(encoding="utf-8")
WRITTEN = re.findall(r"^\$ nightshift ((?:.*\\\n)*.*)", PAGE, re.MULTILINE)
COMMANDS = [shlex.split(each.replace("\\\n", " "), comments=True) for each in WRITTEN]


@pytest.mark.parametrize("night", NIGHTS, ids=lambda night: f"night {night.number}")
def test_every_night_is_on_the_page(night: object) -> None:
    number, story = (getattr(night, name) for name in ("number", "story"))
    assert f"| {number} | {story} |" in PAGE


@pytest.mark.parametrize("check", expectations.CHECKS, ids=expectations.sentence)
def test_every_expectation_is_in_the_output_on_the_page(check: expectations.Check) -> None:
    assert f"yes  {expectations.sentence(check)}" in PAGE


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_of_the_page_can_be_read(words: list[str]) -> None:
    own, dashes, behind = _parted(words)
    read(own)
    if dashes:
        read(behind)


def read(words: list[str]) -> None:
    """Let the command line read its arguments. Raises what it would say of a wrong one."""
    command: Any = typer.main.get_command(app)
    while (inner := getattr(command, "commands", {}).get(words[0])) is not None:
        command, words = inner, words[1:]
        if not hasattr(command, "commands"):
            break
    context = command.make_context("nightshift", list(words))
    assert context.args == []


def _parted(words: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in words:
        return words, False, []
    place = words.index("--")
    return words[:place], True, words[place + 1 :]
