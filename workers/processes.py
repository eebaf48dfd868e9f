"""The processes: ``python -m workers.processes control | planner | pool | host | flower``."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import structlog
from billiard import current_process
from celery import signals

from jobs import database, environment, logs, parent_death, secret_files, settings, temporary
from jobs.errors import BadRequest
from jobs.ledger import message_keys
from jobs.monitoring import exposition, meters
from jobs.monitoring.catalogue import Source
from jobs.queries.capacity import PLANNERS
from jobs.settings import Settings
from workers import (
    context,
    devices,
    draining,
    heartbeat,
    orders,
    outcomes,
    process_names,
    threads,
    time_limits,
)
from workers.app import PLAN_QUEUE, app, host_queue, pool_queue
from workers.broker import transport
from workers.broker.inbox import Inbox
from workers.broker.receipts import Receipts
from workers.heartbeat import Record, WorkerRecord
from workers.orders import Orders

QUEUE = "NIGHTSHIFT_QUEUE"
"""The queue of a worker, for its spawned pool processes."""


def control(current: Settings) -> None:
    """Decide, until a signal to stop."""
    from workers.control import loop, webhooks  # noqa: PLC0415 - the other processes do without
    from workers.control.publisher import Publisher  # noqa: PLC0415

    engine = database.connect(current.database_url, pool_size=1, name="nightshift-control")
    sessions = database.sessions(engine)
    key = functools.partial(message_keys.read, sessions)
    publisher = Publisher(app, redis_url=current.redis_url, key=key)
    of_webhooks = database.connect(
        current.database_url, pool_size=webhooks.CONNECTIONS, name="nightshift-webhooks"
    )
    sender = webhooks.WebhookSender(database.sessions(of_webhooks), settings=current)
    with exposition.exposed(current, Source.CONTROL), sender.running():
        loop.run(loop.Control(publisher, settings=current))


def planner(current: Settings) -> None:
    """Plan and finalize jobs."""
    name = process_names.node(PLANNERS)
    record = WorkerRecord(name=name, pool=PLANNERS, slots=1, device="none")
    with exposition.exposed(current, Source.PLANNER, slots=1):
        _celery_worker(current, record, name=name, queue=PLAN_QUEUE, slots=1)


def pool(current: Settings) -> None:
    """Work on chunks of this worker's pool."""
    device, slots = _device(), current.worker_processes
    name = process_names.node(current.pool, device=device)
    record = WorkerRecord(name=name, pool=current.pool, slots=slots, device=device)
    queue = pool_queue(current.pool)
    with exposition.exposed(current, Source.POOL, slots=slots):
        _celery_worker(current, record, name=name, queue=queue, slots=slots)


def host(current: Settings) -> None:
    """Take ranks of training runs, one at a time."""
    from workers.gang import host as gang_host  # noqa: PLC0415 - only hosts need it
    from workers.gang.host import HostRecord  # noqa: PLC0415

    presented = gang_host.present(current)
    name = process_names.node(presented.pool, device=presented.device)
    presented = dataclasses.replace(presented, worker=name)
    gang_host.clean(presented, context=context.get())
    with exposition.exposed(current, Source.HOST, slots=1):
        _celery_worker(
            current,
            HostRecord(presented),
            name=name,
            queue=host_queue(presented.name),
            slots=1,
        )


def _device() -> str:
    """What this host has, for people; the pool processes choose theirs through Accelerate."""
    found = devices.here()
    return f"cuda:{','.join(found)}" if found else "cpu"


def _size_recorder(record: Record) -> Callable[[int], None]:
    """Writes the size of a pool into its record; a training host has none."""

    def write(size: int) -> None:
        if isinstance(record, WorkerRecord):
            record.slots = size

    return write


def _receipts(current: Settings) -> Path:
    """Of this installation alone: ids of chunks mean nothing to another."""
    installation = hashlib.sha256(current.database_url.encode()).hexdigest()[:16]
    return temporary.folder() / f"receipts-{installation}"


def _celery_worker(current: Settings, record: Record, *, name: str, queue: str, slots: int) -> None:
    os.environ[QUEUE], os.environ[context.WORKER] = queue, name
    temporary.worker_file().write_text(name)
    draining.prepare()
    inbox = Inbox(context.get().sessions, worker=name, receipts=Receipts(_receipts(current)))
    inbox.open()
    transport.attach(app, inbox)
    taker = Orders(context.get().sessions, worker=name, record_size=_size_recorder(record))
    orders.attach(app, taker)

    def after_beat() -> None:
        inbox.settle()
        taker.look()

    presence = heartbeat.Presence(
        record,
        redis_url=current.redis_url,
        hang_seconds=current.hang_seconds,
        after_beat=after_beat,
    )
    heartbeat.attach(app, presence)
    app.worker_main(
        [
            "worker",
            f"--hostname={name}",
            f"--queues={queue}",
            f"--concurrency={slots}",
            "--pool=prefork",
            "--without-gossip",
            "--without-mingle",
            "--heartbeat-interval=10",
            "--loglevel=INFO",
        ]
    )


@signals.worker_process_init.connect
def _prepare_process(**_: object) -> None:
    logs.configure()
    outcomes.log_plainly()
    parent_death.watch_parent()  # the device must be free for the next
    meters.join(current_process().index)
    if os.environ[QUEUE].startswith(pool_queue("")):  # planners and hosts' agents use no device
        devices.take(current_process().index, count=settings.get().worker_devices)
        threads.take(settings.get())
        time_limits.enable()
        from workers.bulk import chunk_worker  # noqa: F401, PLC0415 - import torch before the first chunk


@signals.setup_logging.connect
def _keep_our_logging(**_: object) -> None:
    logs.configure()


def flower(arguments: list[str]) -> None:
    """Show jobs and queues to people; ``NIGHTSHIFT_FLOWER_BASIC_AUTH`` is ``user:password``."""
    password = secret_files.read("NIGHTSHIFT_FLOWER_BASIC_AUTH")
    if password:
        os.environ["FLOWER_BASIC_AUTH"] = password
    from workers.flower import application  # noqa: PLC0415 - Flower is not installed everywhere

    application.run(app, arguments, settings=settings.get())


def main(arguments: list[str] | None = None) -> int:
    """The command line of this module."""
    import typer  # noqa: PLC0415 - the processes of a pool, which import this module, read none

    from jobs import command_line  # noqa: PLC0415

    commands = command_line.app(__doc__)
    for role in (control, planner, pool, host):
        commands.command(role.__name__)(_started(role))

    @commands.command("flower", context_settings={"ignore_unknown_options": True})
    def show(
        options: list[str] = typer.Argument(None, help="Options of Flower."),  # noqa: B008
    ) -> int:
        """Show jobs and queues to people; further arguments are Flower's own."""
        _prepare()
        try:
            flower(list(options or ()))
        except BadRequest as error:
            sys.stderr.write(f"{error.message}\n")
            return command_line.BAD_USAGE
        return 0

    return command_line.run(commands, arguments, name="python -m workers.processes")


def _started(role: Callable[[Settings], None]) -> Callable[[], None]:
    """The command of a role."""

    def start() -> None:
        _prepare()
        structlog.get_logger().info("starting", role=role.__name__)
        process_names.begin()
        role(settings.get())

    start.__doc__ = role.__doc__
    return start


def _prepare() -> None:
    """What every process of ours begins with."""
    logs.configure()
    os.umask(environment.UMASK)


if __name__ == "__main__":
    sys.exit(main())
