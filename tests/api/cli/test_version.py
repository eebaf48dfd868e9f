"""``nightshift --version`` and the completion of shells."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from api import cli
from jobs import distribution

PROGRAM = [sys.executable, "-m", "api.cli"]


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    version = distribution.version() or "of a source tree that is not installed"
    assert capsys.readouterr().out == f"nightshift {version}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "place", "wanted"),
    [
        ("nightshift do", 1, {"doctor", "down"}),
        ("nightshift jobs w", 2, {"watch", "why"}),
        ("nightshift jobs list --st", 3, {"--state"}),
    ],
)
def test_a_shell_completes_commands_and_options(words: str, place: int, wanted: set[str]) -> None:
    asked = {
        "_NIGHTSHIFT_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(place),
    }
    done = subprocess.run(
        PROGRAM, env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(shell: str) -> None:
    """``--show-completion`` looks at the process above for the shell that it runs in."""
    done = subprocess.run(
        PROGRAM,
        env={**os.environ, "_NIGHTSHIFT_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"_NIGHTSHIFT_COMPLETE=complete_", done.stdout)
