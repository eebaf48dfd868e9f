"""A program of a rank: no message or log line is lost, and no process outlives its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.waiting import wait_until
from workers.gang import program
from workers.gang.program import HOST, INCARNATION, INSTALLATION, Program

Start = Callable[..., Program]

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a Python program from its source; kills what is left at the end."""
    started: list[Program] = []

    def start(source: str, *, name: str = "program", **environment: str) -> Program:
        script = tmp_path / f"{name}.py"
        script.write_text(textwrap.dedent(source))
        started.append(
            Program(
                [sys.executable, str(script)],
                variables=environment,
                folder=tmp_path,
                log=tmp_path / f"{name}.log",
            )
        )
        return started[-1]

    yield start
    for each in started:
        each.kill()


def test_lines_arrive_whole_and_half_lines_later(start: Start, tmp_path: Path) -> None:
    running = start(
        """
        import pathlib, sys, time
        print("first\\nsec", end="", flush=True)
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        print("ond\\nthird", flush=True)
        time.sleep(600)
        """
    )
    lines = _gather(running)
    wait_until(lambda: lines() == ["first"])
    (tmp_path / "go").touch()
    wait_until(lambda: lines() == ["first", "second", "third"])
    assert list(running.tail) == ["first", "second", "third"]


def test_what_is_written_to_stderr_is_in_the_log_as_well(start: Start) -> None:
    running = start("import sys; print('a', file=sys.stderr)")
    _end(running)
    assert running.log_lines() == ["a"]


def test_a_progress_bar_leaves_its_last_state(start: Start) -> None:
    running = start("print('1%\\r50%\\r100%'); print('done\\r')")
    _end(running)
    assert running.log_lines() == ["100%", "done"]


def test_bytes_that_are_no_text_do_no_harm(start: Start) -> None:
    running = start("import sys; sys.stdout.buffer.write(b'\\xff\\xe4\\xbd\\n')")
    _end(running)
    (line,) = running.log_lines()
    assert "\ufffd" in line


def test_a_character_that_arrives_in_halves_is_whole(start: Start, tmp_path: Path) -> None:
    running = start(
        """
        import pathlib, sys, time
        sys.stdout.buffer.write("球".encode()[:2]); sys.stdout.flush()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        sys.stdout.buffer.write("球".encode()[2:] + b"\\n")
        """
    )
    lines = _gather(running)
    wait_until(lambda: (tmp_path / "program.log").stat().st_size == 2)
    assert lines() == []
    (tmp_path / "go").touch()
    wait_until(lambda: lines() == ["球"])


def test_the_end_of_a_long_log_is_in_the_tail_once_the_program_has_ended(start: Start) -> None:
    running = start(
        """
        for number in range(60_000):
            print(f"line {number} " + "x" * 80)
        print("ValueError: the last word")
        """
    )
    _end(running)
    running.log_lines()
    assert running.tail[-1] == "ValueError: the last word"


def test_a_last_line_without_a_newline_is_read(start: Start) -> None:
    running = start(
        "import os, sys; sys.stderr.write('fatal: no'); sys.stderr.flush(); os._exit(3)"
    )
    _end(running)
    assert running.log_lines() == ["fatal: no"]
    assert running.log_lines() == []


def test_an_endless_line_is_cut(start: Start) -> None:
    running = start(
        f"import sys; sys.stdout.write('x' * {3 * program.READ_BYTES}); print(); print('end')"
    )
    _end(running)
    lines = [line for _ in range(9) for line in running.log_lines()]
    assert lines[-1] == "end"
    assert sum(map(len, lines[:-1])) == 3 * program.READ_BYTES


def test_messages_arrive_whole_from_every_process(start: Start, tmp_path: Path) -> None:
    running = start(
        """
        import pathlib, time
        one, two = (open(f"told/{n}.jsonl", "a") for n in (0, 1))
        one.write('{"type": "phase", "phase": "loading"}\\n{"type": "progr'); one.flush()
        two.write('{"type": "phase", "phase": "tokenizing"}\\n'); two.flush()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        one.write('ess", "step": 1}\\n'); one.flush()
        time.sleep(600)
        """
    )
    messages: list[dict[str, object]] = []

    def received() -> int:
        messages.extend(running.messages())
        return len(messages)

    wait_until(lambda: received() == 2)
    assert [message["type"] for message in messages] == ["phase", "phase"]
    (tmp_path / "go").touch()
    wait_until(lambda: received() == 3)
    assert messages[-1] == {"type": "progress", "step": 1}


def test_all_messages_are_read_once_the_program_has_ended(start: Start) -> None:
    running = start(
        """
        import json
        with open("told/0.jsonl", "w") as file:
            for step in range(40_000):
                file.write(json.dumps({"type": "progress", "step": step, "of": "x" * 30}) + "\\n")
            file.write(json.dumps({"type": "done"}) + "\\n")
        """
    )
    _end(running)
    assert running.messages()[-1] == {"type": "done"}


@pytest.mark.parametrize("line", ["not json", "[1, 2]", "3", "null", "", '{"step": 1}'])
def test_a_line_that_is_no_message_is_skipped(start: Start, line: str) -> None:
    lines = json.dumps(line + '\n{"type": "done"}\n')
    running = start(f"open('told/0.jsonl', 'w').write({lines})")
    _end(running)
    assert running.messages() == [{"type": "done"}]


def test_messages_and_log_of_an_earlier_program_are_not_read_again(start: Start) -> None:
    """The evaluation program follows the training program in the same folder."""
    first = start("print('first'); open('told/0.jsonl', 'w').write('{\"type\": \"stopped\"}\\n')")
    _end(first)
    assert first.messages() == [{"type": "stopped"}]
    assert first.log_lines() == ["first"]
    second = start("print('second'); open('told/0.jsonl', 'a').write('{\"type\": \"done\"}\\n')")
    _end(second)
    assert second.messages() == [{"type": "done"}]
    assert second.log_lines() == ["second"]


@pytest.mark.parametrize(
    ("source", "code"),
    [("", 0), ("raise SystemExit(75)", 75), ("import os; os.kill(os.getpid(), 9)", -9)],
)
def test_the_exit_code_is_the_programs(start: Start, source: str, code: int) -> None:
    running = start(source)
    _end(running)
    assert running.ended() == code


def test_the_program_has_no_input_and_its_variables(start: Start) -> None:
    running = start("import os, sys; print(os.environ['MINE'], sys.stdin.read() == '')", MINE="yes")
    _end(running)
    assert running.log_lines() == ["yes True"]


def test_kill_ends_grandchildren_in_sessions_of_their_own(start: Start, tmp_path: Path) -> None:
    running = start(
        f"""
        import subprocess, sys, time
        child = '''
        import subprocess, sys, time
        own = subprocess.Popen([sys.executable, "-c", "{SLEEP}"], start_new_session=True)
        open("pids", "w").write(str(own.pid))
        time.sleep(600)
        '''
        import textwrap
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(child)], start_new_session=True)
        time.sleep(600)
        """
    )
    pid = _pid(tmp_path / "pids")
    assert _lives(pid)
    running.kill()
    assert not _lives(pid)
    assert running.ended() == -signal.SIGKILL


def test_kill_ends_children_whose_launcher_has_ended_before(start: Start, tmp_path: Path) -> None:
    running = start(
        f"""
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "{SLEEP}"])
        open("pids", "w").write(str(child.pid))
        """
    )
    pid = _pid(tmp_path / "pids")
    _end(running)
    running.kill()
    wait_until(lambda: not _lives(pid))


def test_a_program_that_ignores_sigterm_is_killed(start: Start) -> None:
    running = start(
        f"import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True); {SLEEP}"
    )
    lines = _gather(running)
    wait_until(lambda: lines() == ["1"])
    running.kill()
    running.kill()
    assert running.ended() == -signal.SIGKILL


def test_the_program_dies_with_its_agent(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SLEEP)
    agent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import pathlib, sys, time
                from workers.gang.program import Program
                folder = pathlib.Path(sys.argv[1])
                command = [sys.executable, str(folder / "program.py")]
                running = Program(command, variables={}, folder=folder, log=folder / "log")
                (folder / "pid.new").write_text(str(running.pid))
                (folder / "pid.new").rename(folder / "pid")
                time.sleep(600)
                """
            ),
            str(tmp_path),
        ]
    )
    pid = _pid(tmp_path / "pid")
    assert _lives(pid)
    agent.kill()
    agent.wait()
    wait_until(lambda: not _lives(pid))


def test_programs_of_an_earlier_agent_of_this_host_are_killed(start: Start) -> None:
    def named(name: str, installation: str, host: str, incarnation: str) -> Program:
        variables = {INSTALLATION: installation, HOST: host, INCARNATION: incarnation}
        return start(SLEEP, name=name, **variables)

    left = named("left", "ours-4711", "me", "old")
    others = [
        named("current", "ours-4711", "me", "new"),
        named("another host", "ours-4711", "you", "old"),
        named("another installation", "theirs-4711", "me", "old"),
        start(SLEEP, name="unnamed"),
    ]
    wait_until(lambda: psutil.Process(others[2].pid).environ().get(INSTALLATION) == "theirs-4711")
    this = {"installation": "ours-4711", "host": "me", "incarnation": "new"}
    assert program.end_leftovers(**this) == 1
    wait_until(lambda: left.ended() is not None)
    assert [each.ended() for each in others] == [None] * 4
    assert program.end_leftovers(**this) == 0


def test_the_tests_own_process_is_never_a_leftover() -> None:
    assert program.end_leftovers(installation="none", host="none", incarnation="new") == 0
    assert _lives(os.getpid())


def test_a_program_has_no_secret_of_its_agent(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ("NIGHTSHIFT_DATABASE_URL", "REDIS_URL", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN")
    for name in (*secrets, "NIGHTSHIFT_API_KEY", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, "hush")
    running = start("import os; print('hush' in os.environ.values(), 'PATH' in os.environ)")
    _end(running)
    assert running.log_lines() == ["False True"]


def _gather(running: Program) -> Callable[[], list[str]]:
    """All lines so far, at each call."""
    lines: list[str] = []

    def gather() -> list[str]:
        lines.extend(running.log_lines())
        return lines

    return gather


def _end(running: Program) -> None:
    wait_until(lambda: running.ended() is not None, seconds=30)


def _pid(file: Path) -> int:
    wait_until(lambda: file.exists() and file.read_text(), seconds=30)
    return int(file.read_text())


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
