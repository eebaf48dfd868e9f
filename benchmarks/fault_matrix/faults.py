"""Making a fault: of a process or of a server, for a block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from benchmarks.fault_matrix import stage as stages
from benchmarks.fault_matrix.cells import Fault
from benchmarks.fault_matrix.links import Link
from benchmarks.fault_matrix.stage import Stage, Unit


def of_process(unit: Unit, fault: Fault) -> AbstractContextManager[None]:
    """The fault of a process: made at the beginning of the block, over at its end."""
    match fault:
        case Fault.STOPPED:
            return stages.stopped(unit.pids())
        case Fault.KILLED:
            return _killed(unit)
        case Fault.BLACK_HOLE:
            return _cut(unit.links.values())
        case Fault.SILENT:
            return _silent(unit)


def of_server(stage: Stage, name: str, fault: Fault) -> AbstractContextManager[None]:
    """The same of a server."""
    server = stage.servers[name]
    match fault:
        case Fault.STOPPED:
            return stages.stopped(stages.tree(server.pid))
        case Fault.KILLED:
            return _server_killed(stage, name)
        case Fault.BLACK_HOLE:
            return _cut(stage.links(name))
        case Fault.SILENT:
            return stages.silent(server, stage.ports[name])


@contextlib.contextmanager
def _killed(unit: Unit) -> Iterator[None]:
    unit.process.kill()
    unit.restart()
    yield


@contextlib.contextmanager
def _silent(unit: Unit) -> Iterator[None]:
    unit.process.kill()
    unit.restart()
    with stages.stopped([unit.process.pid]):
        yield


@contextlib.contextmanager
def _server_killed(stage: Stage, name: str) -> Iterator[None]:
    stage.servers[name].kill()
    stage.servers[name].start(seconds=60)
    yield


@contextlib.contextmanager
def _cut(links: Iterable[Link]) -> Iterator[None]:
    cut = list(links)
    try:
        for link in cut:
            link.cut()
        yield
    finally:
        for link in cut:
            link.join()
