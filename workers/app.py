"""The Celery application: how hints travel. Nothing here owns work; see ``docs/lifecycle.md``.

Messages are JSON, signed, acknowledged as soon as they are received, never retried and never
delayed by the broker; there is no result backend. What a lost message would have done, control does
again. What a worker receives passes ``workers.broker`` before Celery sees it.
"""

from __future__ import annotations

from celery import Celery

from jobs import settings
from workers.broker import transport

PLAN_QUEUE = "plan"


def pool_queue(pool: str) -> str:
    """The queue of a pool's chunk messages."""
    return f"pool.{pool}"


def host_queue(host: str) -> str:
    """The queue of one training host's ranks."""
    return f"host.{host}"


def make(redis_url: str) -> Celery:
    """An application on this broker."""
    transport.register()
    app = Celery("nightshift", broker=redis_url, include=["workers.tasks"])
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        task_publish_retry=False,
        task_create_missing_queues=True,
        task_default_queue=PLAN_QUEUE,  # there is no queue of Celery's default name
        task_send_sent_event=False,  # would make one metric label per producer process
        task_track_started=True,
        worker_send_task_events=True,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,  # nothing is hoarded behind a chunk that runs
        worker_proc_alive_timeout=120,  # importing torch takes longer than the default of 4 s
        worker_pool_start_method="spawn",  # a CUDA context must not be forked
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_consumer="workers.consumer:ReconnectingConsumer",
        broker_channel_error_retry=True,  # an error of Redis ends no worker
        broker_transport_options=dict(transport.OPTIONS),
        event_queue_expires=60.0,
        timezone="UTC",
    )
    return app


app = make(settings.get().redis_url)
