"""A client that harms no one: how long its requests take while others are attacked, or not."""

from __future__ import annotations

import http.client
import threading
import time
from statistics import quantiles
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from api.client import Client
from tests.support.waiting import wait_until


class Others:
    """Lists jobs, each time on a new connection, from the beginning of a block to its end."""

    def __init__(self, url: str, key: str) -> None:
        self._address = urlsplit(url)
        self._headers = {"authorization": f"Bearer {key}"}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seconds: list[float] = []
        self.failed = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._thread.join()

    def __str__(self) -> str:
        cuts = [1000 * cut for cut in quantiles(self.seconds, n=20)]
        times = f"p50 {cuts[9]:.0f} ms, p95 {cuts[18]:.0f} ms"
        return f"{times}, {self.failed} of {len(self.seconds)} failed"

    def stop(self) -> None:
        """Send no more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            begun = time.perf_counter()
            self.failed += not self._ask()
            self.seconds.append(time.perf_counter() - begun)

    def _ask(self) -> bool:
        connection = http.client.HTTPConnection(
            self._address.hostname or "", self._address.port, timeout=20
        )
        try:
            connection.request("GET", "/v1/jobs", headers=self._headers)
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()


def seconds_of_a_job(client: Client, spec: dict[str, object], *, limit: float) -> float:
    """How long a job takes from its submission until it has succeeded."""
    begun = time.monotonic()
    job_id = client.submit(spec)["id"]
    wait_until(lambda: client.get(job_id)["state"] in ("succeeded", "failed"), seconds=limit)
    assert client.get(job_id)["state"] == "succeeded"
    return time.monotonic() - begun
