"""One caller never takes the last place, and callers take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi.routing import APIRoute

from api.server import traffic
from api.server.app import create_app
from api.server.budgets import Budget, TooMany
from api.server.traffic import Kind
from jobs.settings import Settings


def _budget(*, total: int, per_caller: int, waits: bool = False) -> Budget:
    return Budget("things", total=total, per_caller=per_caller, waits=waits)


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_beyond_its_limit_a_caller_is_refused_and_others_are_not() -> None:
    async def story() -> None:
        budget = _budget(total=4, per_caller=2)
        async with budget.place("a"), budget.place("a"):
            with pytest.raises(TooMany, match="2 things may be under way at a time"):
                async with budget.place("a"):
                    pass
            async with budget.place("b"), budget.place("b"):
                with pytest.raises(TooMany, match="this server has 4 things under way"):
                    async with budget.place("c"):
                        pass
        async with budget.place("a"):
            pass

    asyncio.run(story())


def test_a_refusal_is_known_before_a_place_is_taken() -> None:
    async def story() -> None:
        budget, patient = _budget(total=4, per_caller=1), _budget(total=1, per_caller=1, waits=True)
        async with budget.place("a"), patient.place("a"):
            with pytest.raises(TooMany):
                budget.check("a")
            budget.check("b")
            patient.check("a")
        budget.check("a")

    asyncio.run(story())


def test_callers_that_wait_take_turns() -> None:
    async def story() -> list[str]:
        budget, order = _budget(total=1, per_caller=1, waits=True), list[str]()

        async def one(caller: str, number: int) -> None:
            async with budget.place(caller):
                order.append(f"{caller}{number}")
                await _turns()

        many = [one("a", number) for number in range(4)]
        await asyncio.gather(*many, *(one("b", number) for number in range(2)))
        return order

    assert asyncio.run(story()) == ["a0", "a1", "b0", "a2", "b1", "a3"]


def test_a_caller_over_its_limit_does_not_hold_up_the_line() -> None:
    async def story() -> None:
        budget = _budget(total=3, per_caller=2, waits=True)
        async with budget.place("a"), budget.place("a"):
            third = asyncio.create_task(_hold(budget, "a"))
            await _turns()
            async with budget.place("b"):
                assert not third.done()
        await third

    asyncio.run(story())


@pytest.mark.parametrize("begin", [_turns, None])
def test_a_request_that_is_cancelled_in_the_line_takes_no_place(
    begin: Callable[[], Awaitable[None]] | None,
) -> None:
    async def story() -> None:
        budget = _budget(total=1, per_caller=1, waits=True)
        async with budget.place("a"):
            waiting = asyncio.create_task(_hold(budget, "b"))
            await _turns()
        if begin:
            await begin()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(5), budget.place("c"):
            pass

    asyncio.run(story())


async def _hold(budget: Budget, caller: str) -> None:
    async with budget.place(caller):
        await _turns()


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/healthz", Kind.LIVENESS),
        ("GET", "/readyz", Kind.PUBLIC),
        ("GET", "/v1/jobs", Kind.ORDINARY),
        ("POST", "/v1/files", Kind.UPLOAD),
        ("GET", "/v1/files", Kind.ORDINARY),
        ("HEAD", "/v1/files/file-1/content", Kind.ORDINARY),
        ("GET", "/v1/jobs/j/verification", Kind.VERIFICATION),
        ("GET", "/v1/jobs/j/results", Kind.DOWNLOAD),
    ],
)
def test_a_request_has_its_kind(method: str, path: str, kind: Kind) -> None:
    assert traffic.kind_of(method, path) is kind


def test_every_route_that_streams_an_answer_has_a_kind_of_its_own() -> None:
    long = {Kind.DOWNLOAD, Kind.STREAM}
    routes = [route for route in _routes() if "StreamingResponse" in _class(route)]
    assert routes
    for route in routes:
        path = route.path.replace("{", "").replace("}", "").replace(":path", "")
        assert traffic.kind_of("GET", path) in long, route.path


def _routes() -> list[APIRoute]:
    found: list[APIRoute] = []
    for each in create_app(Settings()).routes:
        router = getattr(each, "original_router", None)
        found += (route for route in router.routes if isinstance(route, APIRoute)) if router else ()
    return [route for route in found if "GET" in (route.methods or ())]


def _class(route: APIRoute) -> str:
    response: Any = route.response_class
    return " ".join(each.__name__ for each in getattr(response, "value", response).__mro__)
