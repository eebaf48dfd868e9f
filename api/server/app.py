"""The HTTP API as one FastAPI application; ``python -m api.server`` serves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus

import anyio.to_thread
from fastapi import Depends, FastAPI, Request, Response

from api.server import creates, errors, openapi, query_fields, scopes, traffic, viewer
from api.server.collect_thread import CollectThread
from api.server.dependencies import Resources
from api.server.gate import Gate
from api.server.looks import Looks
from api.server.middleware import Requests
from api.server.pages import (
    job_pages,
    model_pages,
    pool_pages,
    schedule_pages,
    selection_pages,
    sign_in_pages,
    static_files,
)
from api.server.purge_thread import PurgeThread
from api.server.routes import (
    audit,
    events,
    files,
    groups,
    health,
    hosts,
    jobs,
    keys,
    models,
    pools,
    projects,
    results,
    retention,
    runs,
    schedules,
    webhooks,
    workers,
)
from api.server.sse import StreamOver
from api.server.upload_leases import UploadLeases
from api.server.uploads import Uploads
from jobs import database, distribution, objects
from jobs.monitoring import exposition, ledger_metrics
from jobs.monitoring.catalogue import Source
from jobs.settings import Settings

UNKNOWN_VERSION = "0"
"""Of a source tree that is not installed."""

CONNECTIONS = 10
"""To Postgres, and as many again under load."""


@contextmanager
def monitored(settings: Settings) -> Iterator[None]:
    """Answer Prometheus: what this process counts, and what the ledger holds."""
    engine = database.connect(settings.database_url, pool_size=1, name="nightshift-metrics")
    ledger = ledger_metrics.registry(database.sessions(engine))
    with exposition.exposed(settings, Source.API, more={exposition.LEDGER: ledger}):
        yield
    engine.dispose()


async def over(_request: Request, _error: Exception) -> Response:
    """204: the one answer after which a browser's ``EventSource`` does not connect again."""
    return Response(status_code=HTTPStatus.NO_CONTENT)


def create_app(settings: Settings) -> FastAPI:
    """The application. Its engine and object store live as long as its lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = traffic.THREADS
        engine = database.connect(settings.database_url, pool_size=CONNECTIONS, name="api")
        sessions = database.sessions(engine)
        store = objects.connect(settings.object_store_url)
        purge_thread = PurgeThread(sessions, store)
        leases = UploadLeases(
            store=store, sessions=sessions, duration=settings.upload_lease_duration
        )
        app.state.resources = Resources(
            settings=settings,
            sessions=sessions,
            store=store,
            uploads=Uploads(
                store=store,
                sessions=sessions,
                leases=leases,
                max_bytes=settings.max_upload_bytes,
            ),
            purge_thread=purge_thread,
            looks=Looks(sessions),
        )
        renewing = asyncio.create_task(leases.run())
        collect_thread = CollectThread(sessions, store, settings=settings)
        with purge_thread.running(), collect_thread.running(), monitored(settings):
            yield
        renewing.cancel()
        engine.dispose()

    app = FastAPI(
        title=openapi.TITLE,
        version=distribution.version() or UNKNOWN_VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        dependencies=[
            Depends(scopes.check),
            Depends(query_fields.check),
            Depends(creates.note_named),
        ],
    )
    rooms = (
        *(health, files, jobs, groups, events, results, runs),
        *(schedules, models, webhooks, hosts, workers, pools, retention),
        *(projects, keys, audit),
        *(sign_in_pages, job_pages, selection_pages, pool_pages, schedule_pages, model_pages),
    )
    for room in rooms:
        app.include_router(room.router)
    viewer.install(app)
    static_files.install(app)
    errors.install(app)
    app.add_exception_handler(StreamOver, over)
    openapi.install(app)
    app.add_middleware(Gate, settings=settings)
    app.add_middleware(Requests, routes=[each for room in rooms for each in room.router.routes])
    return app
