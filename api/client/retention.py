"""The part of the Python client that is about retention and storage: ``client.retention``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from api.client.transport import Answer

PROJECT = "/v1/retention"


class Retention:
    """How long things are kept. A period is a text such as ``30d``, or ``forever``."""

    def __init__(self, *, ask: Callable[..., Answer]) -> None:
        self._ask = ask

    def get(self) -> Answer:
        """The policy of the project, and what holds by it."""
        return self._ask("GET", PROJECT)

    def set(self, periods: Mapping[str, str]) -> Answer:
        """Replace the policy; what is not named is as the installation says."""
        return self._ask("PUT", PROJECT, json=dict(periods))

    def of_job(self, job_id: str) -> Answer:
        """What of a job goes when, and what is gone."""
        return self._ask("GET", _path(job_id))

    def set_job(self, job_id: str, periods: Mapping[str, str], *, keep: bool = False) -> Answer:
        """Replace the periods of one job; ``keep``: nothing of it is removed or deleted."""
        return self._ask("PUT", _path(job_id), json={**periods, "keep": keep})

    def keep(self, job_id: str, *, keep: bool = True) -> Answer:
        """Keep everything of a job, whatever its periods are, or no longer."""
        return self.set_job(job_id, self.of_job(job_id)["own"], keep=keep)

    def usage(self) -> Answer:
        """Objects and bytes of the project by kind, as they were counted last."""
        return self._ask("GET", "/v1/storage")


def _path(job_id: str) -> str:
    return f"/v1/jobs/{job_id}/retention"
