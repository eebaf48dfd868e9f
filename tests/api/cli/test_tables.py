"""Tables fit the terminal: the least important columns give way, and ids are never cut."""

from __future__ import annotations

import os
import pty
import struct
import subprocess
import sys
import termios
from fcntl import ioctl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from api.cli import tables
from api.cli.tables import GAP, Column
from tests.api.server.installation import Tenant

COLUMNS = (Column("JOB"), Column("STATE"), Column("NAME", cut=1), Column("WHY", cut=2))


def shown(widths: list[int]) -> int:
    return sum(widths) + GAP * (len([each for each in widths if each]) - 1)


@pytest.mark.parametrize(
    ("width", "fitted"),
    [
        (None, [28, 10, 30, 60]),
        (200, [28, 10, 30, 60]),
        (100, [28, 10, 30, 26]),
        (80, [28, 10, 28, 8]),
        (60, [28, 10, 8, 8]),
        (55, [28, 10, 13, 0]),
        (45, [28, 10, 0, 0]),
        (20, [28, 10, 0, 0]),
    ],
)
def test_the_least_important_column_gives_way_first(width: int | None, fitted: list[int]) -> None:
    assert tables.fitted(COLUMNS, [28, 10, 30, 60], width=width) == fitted


@given(
    natural=st.lists(st.integers(1, 90), min_size=4, max_size=4),
    width=st.integers(1, 200),
)
def test_no_line_is_wider_than_the_terminal_unless_the_ids_are(
    natural: list[int], width: int
) -> None:
    found = tables.fitted(COLUMNS, natural, width=width)
    assert found[:2] == natural[:2]
    assert all(cut <= whole for cut, whole in zip(found, natural, strict=True))
    assert shown(found) <= width or found[2:] == [0, 0]


def test_wide_characters_are_counted_as_two(capsys: pytest.CaptureFixture[str]) -> None:
    tables.table(("A", "B"), [("日本", 1), ("x\x1b[31m", 2)])
    lines = capsys.readouterr().out.splitlines()
    assert [cell_len(line) for line in lines] == [len("x\x1b[31m") + 3] * 3
    assert "\x1b" not in "".join(lines)


@pytest.mark.usefixtures("run")  # it points the command at the tenant
@pytest.mark.parametrize("columns", [80, 120])
def test_the_list_of_jobs_does_not_wrap(tenant: Tenant, columns: int) -> None:
    ids = [tenant.submit(name="a name that is rather long " * 3) for _ in range(3)]
    lines, notes = on_a_terminal("jobs", "list", "--limit", "2", columns=columns)
    assert [line.split()[0] for line in lines] == ["JOB", *reversed(ids[1:])]
    assert max(cell_len(line) for line in lines) <= columns
    assert "2 of 3 shown (--limit shows more)" in notes


def on_a_terminal(*arguments: str, columns: int) -> tuple[list[str], str]:
    """What a command prints on a terminal of this width, and its stderr."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "api.cli", *arguments]
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        ran = subprocess.run(
            command, stdout=theirs, stderr=subprocess.PIPE, text=True, check=True, timeout=60
        )
        os.close(theirs)
        printed = terminal.read(65_536).decode()
    return printed.replace("\r\n", "\n").splitlines(), ran.stderr
