"""Flower's application with our tabs, and the process that runs it."""

from __future__ import annotations

import atexit
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from celery import Celery
from flower import command
from flower.app import Flower, rewrite_handler
from flower.options import default_options as options
from flower.urls import settings as flower_settings
from flower.views import BaseHandler
from flower.views.tasks import TasksDataTable
from tornado import web
from tornado.httputil import HTTPServerRequest
from tornado.routing import URLSpec
from tornado.web import url

from jobs import database
from jobs.settings import Settings
from workers.flower import login, operator_handlers, pages
from workers.flower.broker import OurBrokerView, OurQueueLengths, QueuesInRedis
from workers.flower.collaborators import Collaborators
from workers.flower.reader import THREADS, Reader, Writer
from workers.flower.template_loader import LayeredLoader

STATIC = Path(__file__).with_name("static")
CONFIG = Path(__file__).with_name("config.py")

WRITERS = 2
"""Connections to Postgres for what operators do."""

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""


class ReadOnly(BaseHandler):  # type: ignore[misc]
    """Refuses what would change something."""

    @web.authenticated
    def prepare(self) -> None:
        """Before any method of Flower's handler is called."""
        raise web.HTTPError(403, "Read only mode is enabled")


class Application(Flower):  # type: ignore[misc]
    """Flower, to which our handlers are added in front of its own."""

    def __init__(self, app: Celery, *, ours: Collaborators) -> None:
        loader = LayeredLoader(Path(flower_settings["template_path"]))
        super().__init__(
            capp=app, options=options, **{**flower_settings, "template_loader": loader}
        )
        prefix = options.url_prefix or ""
        found = list(_handlers(ours))
        self.add_handlers(
            ".*", [rewrite_handler(each, prefix) for each in found] if prefix else found
        )

    def get_handler_delegate(
        self, request: HTTPServerRequest, target_class: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """The handler of a request; in read-only mode none that could change anything.

        The table of tasks is read by POST as well.
        """
        changes = request.method not in READING and target_class is not TasksDataTable
        if self.options.read_only and changes:
            return super().get_handler_delegate(request, ReadOnly)
        return super().get_handler_delegate(request, target_class, *args, **kwargs)


def _handlers(ours: Collaborators) -> Iterable[URLSpec]:
    collaborators = {"ours": ours}
    queues = {"reader": ours.reader, "queues": ours.queues}
    yield url(r"/jobs", pages.JobsPage, collaborators, name="jobs")
    yield url(r"/jobs/(job_\w{1,80})", pages.JobPage, collaborators, name="job")
    yield url(r"/pools/([^/]{1,400})", pages.WorkerPage, collaborators, name="orders")
    yield url(r"/pools", pages.PoolsPage, collaborators, name="pools")
    yield url(r"/queues", pages.QueuesPage, collaborators, name="queues")
    yield url(r"/broker", OurBrokerView, queues, name="our-broker")
    yield url(r"/api/queues/length", OurQueueLengths, queues)
    yield url(r"/nightshift/(.*)", web.StaticFileHandler, {"path": str(STATIC)}, name="nightshift")
    for path, action in operator_handlers.WORKER_ORDERS.items():
        yield url(path, operator_handlers.WorkerOrder, {**collaborators, "action": action})
    yield url(r"/api/task/revoke/(.+)", operator_handlers.TaskRelease, collaborators)
    for path, reason in operator_handlers.NOT_OFFERED.items():
        yield url(path, operator_handlers.NotOffered, {"reason": reason})


def run(app: Celery, arguments: list[str], *, settings: Settings) -> None:
    """Serve until a signal to stop; ``arguments`` are Flower's own. Raises ``BadRequest``."""
    command.apply_env_options()
    command.apply_options("flower", [f"--conf={CONFIG}", *arguments])
    login.check(options)
    command.extract_settings()
    command.setup_logging()
    application = Application(app, ours=_collaborators(settings))
    atexit.register(application.stop)
    signal.signal(signal.SIGTERM, command.sigterm_handler)
    port = application.start_http_server()
    command.print_banner(app, "ssl_options" in flower_settings, port)
    try:
        application.start()
    except (KeyboardInterrupt, SystemExit):
        return


def _collaborators(settings: Settings) -> Collaborators:
    engine = database.connect_reader(
        settings.database_url, pool_size=THREADS, name="nightshift-flower"
    )
    return Collaborators(
        reader=Reader(database.sessions(engine)),
        writer=None if options.read_only else _writer(settings),
        queues=QueuesInRedis(settings.redis_url),
        settings=settings,
    )


def _writer(settings: Settings) -> Writer:
    engine = database.connect(
        settings.database_url, pool_size=WRITERS, name="nightshift-flower-operators"
    )
    return Writer(database.sessions(engine))
