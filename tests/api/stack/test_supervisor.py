"""The supervisor over small real processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.stack import supervisor as rules
from api.stack.failure import StackFailure
from api.stack.service import Service
from api.stack.supervisor import Slot, Supervisor
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

SLEEP = "import time; time.sleep(300)"

Make = Callable[..., Service]


@given(st.integers(1, 1000))
def test_a_pause_doubles_up_to_ten_seconds(deaths: int) -> None:
    assert 0.2 <= rules.pause(deaths) <= 10.0
    assert rules.pause(deaths + 1) == min(2 * rules.pause(deaths), 10.0)


@given(st.integers(0, 1000))
def test_only_a_service_that_never_worked_is_given_up(faults: int) -> None:
    assert not rules.is_hopeless(faults, proven=True)
    assert rules.is_hopeless(faults, proven=False) == (faults >= 5)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(said: list[str]) -> Iterator[Supervisor]:
    supervisor = Supervisor(report=said.append, changed=lambda _slots: None)
    yield supervisor
    supervisor.stop()


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(script: str, **fields: object) -> Service:
        name = str(fields.pop("name", "child"))
        command = (sys.executable, "-S", "-c", script)
        return Service(name, command, tmp_path / f"{name}.log", **fields)  # type: ignore[arg-type]

    return make


def slot(supervisor: Supervisor) -> Slot:
    return supervisor.slots[-1]


def pid(supervisor: Supervisor) -> int:
    child = slot(supervisor).child
    return child.pid if child else 0


def tend_until(supervisor: Supervisor, fact: Callable[[], bool]) -> None:
    def tended() -> bool:
        supervisor.turn()
        return fact()

    wait_until(tended)


def test_a_service_without_a_probe_is_ready_when_it_has_lived_a_second(
    supervisor: Supervisor, make: Make, said: list[str], tmp_path: Path
) -> None:
    supervisor.start([make(SLEEP)])
    assert said == [f"child     {'started':<44} pid {pid(supervisor):<8} {tmp_path / 'child.log'}"]


def test_start_returns_when_the_probe_says_so(
    supervisor: Supervisor, make: Make, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    script = f"open({str(flag)!r}, 'w'); {SLEEP}"
    supervisor.start([make(script, probe=flag.exists)])
    assert flag.exists()


def test_a_killed_child_comes_back(supervisor: Supervisor, make: Make) -> None:
    supervisor.start([make(SLEEP, probe=lambda: True)])
    first = pid(supervisor)
    os.kill(first, signal.SIGKILL)
    tend_until(supervisor, lambda: pid(supervisor) not in (0, first))
    assert psutil.pid_exists(pid(supervisor))


def test_a_child_killed_often_after_it_was_ready_is_not_given_up(
    supervisor: Supervisor, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr("api.stack.service.SETTLED", 0.0)
    supervisor.start([make(SLEEP)])
    for _ in range(7):
        os.kill(pid(supervisor), signal.SIGKILL)
        tend_until(supervisor, lambda: not pid(supervisor))
        tend_until(supervisor, lambda: slot(supervisor).is_ready)
    assert slot(supervisor).deaths == 7


def test_a_child_that_never_works_is_given_up_with_the_end_of_its_log(
    supervisor: Supervisor, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "LONGEST_PAUSE", 0.05)
    script = "print('the config is missing'); raise SystemExit(9)"
    with pytest.raises(StackFailure, match=r"(?s)exit code 9, 5 times.*the config is missing"):
        supervisor.start([make(script)])


def test_stop_ends_children_and_what_they_started(
    supervisor: Supervisor, make: Make, tmp_path: Path
) -> None:
    script = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-S', '-c', {SLEEP!r}])\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(300)"
    )
    supervisor.start([make(script)])
    pids = [pid(supervisor), int((tmp_path / "child.log").read_text())]
    supervisor.stop()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_a_child_that_ignores_the_wish_to_stop_is_killed_after_its_grace(
    supervisor: Supervisor, make: Make
) -> None:
    script = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
    supervisor.start([make(script, grace_seconds=0.3)])
    child = pid(supervisor)
    supervisor.stop()
    assert not psutil.pid_exists(child)


def test_what_was_started_last_is_stopped_first(
    supervisor: Supervisor, make: Make, tmp_path: Path
) -> None:
    order = tmp_path / "order"
    script = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        f"    open({str(order)!r}, 'a').write('NAME ')\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "time.sleep(300)"
    )
    supervisor.start([make(script.replace("NAME", "server"), name="server")])
    supervisor.start([make(script.replace("NAME", "worker"), name="worker")])
    supervisor.stop()
    assert order.read_text() == "worker server "


def test_a_stage_is_asked_to_stop_when_the_one_before_has_ended(
    supervisor: Supervisor, make: Make, tmp_path: Path
) -> None:
    order = tmp_path / "order"
    script = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        f"    open({str(order)!r}, 'a').write('NAME asked ')\n"
        "    time.sleep(0.5)\n"
        f"    open({str(order)!r}, 'a').write('NAME ended ')\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "time.sleep(300)"
    )
    supervisor.start(
        [
            make(script.replace("NAME", "control"), name="control", stop_stage=1),
            make(script.replace("NAME", "host"), name="host"),
        ]
    )
    supervisor.stop()
    assert order.read_text() == "host asked host ended control asked control ended "


def test_a_second_interrupt_ends_all_at_once_and_says_what_is_lost(
    supervisor: Supervisor, make: Make, said: list[str], tmp_path: Path
) -> None:
    stubborn = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
    clean = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), print('clean'), sys.exit()))\n"
        "time.sleep(300)"
    )
    supervisor.start([make(clean, name="server", grace_seconds=60, hurried_seconds=60)])
    supervisor.start([make(stubborn, name="host", grace_seconds=60)])
    with supervisor.listening():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        supervisor.stop(lost=lambda: ["lost: steps 3 to 5"])
    *_, lost, host, server = said
    assert lost == "lost: steps 3 to 5"
    assert host.startswith("host      was killed after 0.")
    assert server.startswith("server    ended after")
    assert (tmp_path / "server.log").read_text() == "clean\n"


def test_the_patience_is_that_of_all_stages(supervisor: Supervisor, make: Make) -> None:
    supervisor.start([make(SLEEP, name="server", grace_seconds=30)])
    supervisor.start(
        [
            make(SLEEP, name="host", grace_seconds=270),
            make(SLEEP, name="pool", grace_seconds=60),
            make(SLEEP, name="api", grace_seconds=10, stop_stage=1),
        ]
    )
    assert supervisor.patience == 30 + 270 + 10


def test_a_child_sees_no_terminal_and_leads_its_own_session(
    supervisor: Supervisor, make: Make, tmp_path: Path
) -> None:
    script = f"import os; print(os.getsid(0) == os.getpid(), os.isatty(0), flush=True); {SLEEP}"
    supervisor.start([make(script)])
    assert (tmp_path / "child.log").read_text() == "True False\n"
