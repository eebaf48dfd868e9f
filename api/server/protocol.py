"""HTTP/1.1 on one connection: uvicorn's protocol with strict heads and time limits (promise P12).

uvicorn has a time limit for idle connections alone. Here every phase has one: the head, the body,
which must arrive at a slowest rate, an answer that is not taken, and the rest of a body that is not
read any more. See docs/decisions/0036-limits-of-the-http-server.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from api.server import framing
from api.server.connections import Connections, Phase
from api.server.framing import Refusal

log = structlog.get_logger(__name__)

EVENTS = 100
"""Pieces of one connection that are parsed before other connections get their turn: a body may
come in chunks of one byte."""

LINGER_SECONDS = 2.0
"""How long a body is discarded after its request was answered: closed at once, the client would
not see the answer."""

BUSY = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "too_many_connections",
    "this server has as many connections as it may; try again in a moment",
)


@dataclass(frozen=True)
class TimeLimits:
    """How long a client may take, in seconds."""

    head: float
    """For the whole head of a request, from its first byte or the opening of the connection."""
    stall: float
    """For ``slowest`` times this many bytes of a body, and for any byte of an answer."""
    slowest: int
    """Bytes of a body per second."""


def protocol(times: TimeLimits, *, connections: int) -> type[H11Protocol]:
    """The class of the connections of one server, which may have this many open."""
    registry = Connections(connections)

    class Limited(LimitedProtocol):
        limits = times
        connections_open = registry

    return Limited


class StrictConnection(h11.Connection):
    """h11, which forgives much, behind the checks of ``framing``; it parses in small turns."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=framing.MAX_HEAD)
        self.refused = framing.bad("the request cannot be read as HTTP")
        self.left = EVENTS

    def next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        """As h11, but ``NEED_DATA`` as well when the turn is over (``left`` is -1)."""
        self.left -= 1
        if self.left < 0:
            return h11.NEED_DATA
        in_head = self.their_state is h11.IDLE
        if in_head:
            self._check_head()
        try:
            return super().next_event()
        except h11.RemoteProtocolError as error:
            too_long = error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.refused = (
                framing.TOO_LARGE if in_head and too_long else framing.bad(_reason(error))
            )
            raise

    def _check_head(self) -> None:
        head = framing.head_of(self.trailing_data[0])
        found = framing.refusal(head) if head else None
        if found:
            self.refused = found
            raise h11.RemoteProtocolError(found.message)


class Flow(FlowControl):
    """Whether the connection is read: not while its turn is over, nor while the body is full."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self.paused_lately = False
        self._turn_over = False

    def pause_reading(self) -> None:
        self.paused_lately = True
        super().pause_reading()

    def resume_reading(self) -> None:
        if not self._turn_over:
            super().resume_reading()

    def end_turn(self) -> None:
        super().pause_reading()
        self._turn_over = True

    def begin_turn(self) -> None:
        self._turn_over = False
        self.resume_reading()


class LimitedProtocol(H11Protocol):
    """One connection, its phase, and the timer of that phase."""

    limits: TimeLimits
    connections_open: Connections

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn: StrictConnection = StrictConnection()
        self.address = ""
        self._phase: Phase | None = None
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None
        self._received = 0
        self._served = False
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._flow = Flow(transport)
        self.flow = self._flow
        self.address = self.client[0] if self.client else ""
        if self.connections_open.admit(self):
            self._watch()
        else:
            transport.write(BUSY.response())
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections_open.leave(self)
        self._stop(self._timer, self._answer_timer)
        self._timer = self._answer_timer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if not self._refused:
            super().data_received(data)

    def handle_events(self) -> None:
        """Parse what has come, up to ``EVENTS`` pieces; the rest after the others' turn."""
        if self._refused:
            return
        self.conn.left = EVENTS
        super().handle_events()
        if self.conn.left < 0:
            self._flow.end_turn()
            self.loop.call_soon(self._go_on)
        self._watch()

    def on_response_complete(self) -> None:
        self._served = True
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - it says less than the refusal
        """The answer to what cannot be parsed."""
        self._refuse(self.conn.refused)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._arm(LINGER_SECONDS, self.drop)  # a client that reads nothing holds the last bytes

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_answer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop(self._answer_timer)
        self._answer_timer = None

    def drop(self) -> None:
        """Close at once, whatever is still to be sent."""
        self.transport.abort()

    def age(self) -> float:
        """Seconds in the current phase."""
        return time.monotonic() - self._since

    def _go_on(self) -> None:
        if not self.transport.is_closing():
            self._flow.begin_turn()
            self.handle_events()

    def _watch(self) -> None:
        """Begin the time limit of the phase, where it is another one than before."""
        phase = self._phase_now()
        if phase is self._phase or self._refused or self.transport.is_closing():
            return
        self._phase, self._since = phase, time.monotonic()
        self.connections_open.move(self, phase)
        match phase:
            case Phase.HEAD:
                self._arm(self.limits.head, self._head_late)
            case Phase.BODY:
                self._begin_window()
            case Phase.DISCARD:
                self._arm(LINGER_SECONDS, self.drop)
            case Phase.IDLE | Phase.ANSWER:  # uvicorn's own timer; the application's time
                self._stop(self._timer)

    def _phase_now(self) -> Phase:
        if self.conn.their_state is h11.IDLE:
            begun = not self._served or self.conn.trailing_data[0]
            return Phase.HEAD if begun else Phase.IDLE
        if self.conn.their_state is h11.SEND_BODY:
            return Phase.DISCARD if self.cycle.response_complete else Phase.BODY
        return Phase.ANSWER

    def _head_late(self) -> None:
        message = f"the head of a request must be complete within {self.limits.head:g} seconds"
        self._refuse(Refusal(HTTPStatus.REQUEST_TIMEOUT, "head_timeout", message))

    def _begin_window(self) -> None:
        self._received = 0
        self._flow.paused_lately = self._flow.read_paused
        self._arm(self.limits.stall, self._end_window)

    def _end_window(self) -> None:
        """A pause of ours is not the client's fault."""
        least = self.limits.slowest * self.limits.stall
        if self._flow.paused_lately or self._received >= least:
            self._begin_window()
            return
        message = (
            f"the body stalled: at least {least:,.0f} bytes must arrive in each "
            f"{self.limits.stall:g} seconds"
        )
        self._refuse(Refusal(HTTPStatus.REQUEST_TIMEOUT, "body_timeout", message))

    def _watch_answer(self) -> None:
        before = self.transport.get_write_buffer_size()
        self._stop(self._answer_timer)
        self._answer_timer = self.loop.call_later(self.limits.stall, self._check_answer, before)

    def _check_answer(self, before: int) -> None:
        if self.transport.get_write_buffer_size() >= before:
            log.info("a client took nothing of its answer", address=self.address)
            self.drop()
        else:
            self._watch_answer()

    def _refuse(self, why: Refusal) -> None:
        """Answer and end the connection; an answer that is under way is cut off."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self.connections_open.move(self, Phase.DISCARD)
        log.info("refused", code=why.code, reason=why.message, address=self.address)
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if answering and self.cycle.response_started:
            self.drop()
            return
        if self._phase is not Phase.HEAD or self._received:
            self.transport.write(why.response())
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._arm(LINGER_SECONDS, self.drop)

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop(self._timer)
        self._timer = self.loop.call_later(seconds, then)

    @staticmethod
    def _stop(*timers: asyncio.TimerHandle | None) -> None:
        for timer in timers:
            if timer is not None:
                timer.cancel()


def _reason(error: h11.RemoteProtocolError) -> str:
    """h11's message without the bytes that it repeats."""
    return f"the request is not HTTP/1.1: {str(error).partition(': b')[0]}"
