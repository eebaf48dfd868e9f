"""The listener of a process: where it listens, whom it answers, what it does when it cannot."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from api.stack import ports
from jobs import temporary
from jobs.monitoring import catalogue, exposition, meters
from jobs.monitoring.catalogue import Source
from jobs.settings import Settings


@pytest.fixture
def port() -> int:
    return ports.choose()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(temporary, "folder", lambda: tmp_path)
    yield tmp_path
    meters.end()


def get(port: int, path: str = "/metrics", **headers: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}{path}", headers=headers, trust_env=False)


def test_a_process_answers_while_it_runs(port: int) -> None:
    with exposition.exposed(Settings(metrics_port=port), Source.CONTROL):
        answer = get(port)
        assert answer.status_code == 200
        assert "nightshift_control_part_failures_total" in answer.text
        assert "process_cpu_seconds_total" in answer.text
        assert get(port, "/").status_code == 404
    with pytest.raises(httpx.ConnectError):
        get(port)
    assert not meters.counts()


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_it_may_listen_on_ipv6(port: int) -> None:
    with exposition.exposed(Settings(metrics_port=port, metrics_host="::1"), Source.CONTROL):
        answer = httpx.get(f"http://[::1]:{port}/metrics", trust_env=False)
        assert answer.status_code == 200


def test_nothing_listens_unless_it_is_asked_for() -> None:
    with exposition.exposed(Settings(), Source.CONTROL):
        assert not meters.counts()


def test_a_token_is_asked_for(port: int) -> None:
    settings = Settings(metrics_port=port, metrics_token="secret")
    with exposition.exposed(settings, Source.API, more={"/more": CollectorRegistry()}):
        assert get(port).status_code == 401
        assert get(port, "/more").status_code == 401
        assert get(port, authorization="Bearer wrong").status_code == 401
        assert get(port, authorization="Bearer secret").status_code == 200
        assert get(port, "/more", authorization="Bearer secret").status_code == 200


def test_a_process_whose_port_is_taken_works_without(port: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with exposition.exposed(Settings(metrics_port=port), Source.POOL, slots=1):
            assert not meters.counts()


def test_folders_of_workers_that_were_killed_are_removed(port: int, folder: Path) -> None:
    left, living = folder / "metrics" / "999999999", folder / "metrics" / str(os.getppid())
    left.mkdir(parents=True)
    living.mkdir()
    with exposition.exposed(Settings(metrics_port=port), Source.POOL, slots=2):
        assert {each.name for each in left.parent.iterdir()} == {living.name, str(os.getpid())}
        assert "nightshift_leases_lost_total 0.0" in get(port).text
    assert list(left.parent.iterdir()) == [living]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "metrics.example.com"])
def test_beyond_loopback_a_token_is_needed(host: str) -> None:
    with pytest.raises(ValidationError, match="NIGHTSHIFT_METRICS_TOKEN"):
        Settings(metrics_port=9750, metrics_host=host)
    assert Settings(metrics_port=9750, metrics_host=host, metrics_token="secret").metrics_port
    assert Settings(metrics_host=host).metrics_port == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_on_loopback_it_is_not(host: str) -> None:
    assert Settings(metrics_port=9750, metrics_host=host).metrics_token == ""


def test_a_worker_whose_folder_cannot_be_made_works_without(port: int, folder: Path) -> None:
    (folder / "metrics").write_text("a file is in its way")
    with exposition.exposed(Settings(metrics_port=port), Source.POOL, slots=1):
        assert not meters.counts()
        with pytest.raises(httpx.ConnectError):
            get(port)


def test_a_folder_of_another_program_is_left_alone(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    monkeypatch.setenv(meters.FOLDER, str(foreign))
    with exposition.exposed(Settings(metrics_port=port), Source.CONTROL):
        meters.add(catalogue.CONTROL_MOVES, 3, part="rescue")
        assert 'moves_total{part="rescue"} 3.0' in get(port).text
    assert not list(foreign.iterdir())
    monkeypatch.setenv(meters.FOLDER, str(foreign))
    with exposition.exposed(Settings(), Source.POOL, slots=1):
        meters.join(0)
        assert not meters.counts()
    assert not list(foreign.iterdir())
