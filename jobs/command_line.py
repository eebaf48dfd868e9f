"""The small command lines of our modules, with typer: a wrong argument is one line and exit code 2.

Typer is loaded by processes that read a command line, and by no others.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

BAD_USAGE = 2


def app(explanation: str | None) -> typer.Typer:
    """A command line with this explanation, whose commands are added by their caller."""
    made = typer.Typer(
        help=explanation,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        no_args_is_help=False,
    )
    made.callback()(lambda: None)  # a single command has its name, too
    return made


def run(made: typer.Typer, arguments: Sequence[str] | None, *, name: str) -> int:
    """Run one command; what it returned, or 0. ``name``: how the program is started."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = made(given, prog_name=name, standalone_mode=False)
    except typer.TyperException as error:
        sys.stderr.write(f"{name}: {' '.join(error.format_message().split())} (see --help)\n")
        return BAD_USAGE
    return code if isinstance(code, int) else 0
