"""What is asked of the Jobs tab, read from the address of a page and written back to it; pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlencode

from jobs import ids
from jobs.kinds import KINDS
from jobs.queries.all_jobs import AllJobsFilter
from jobs.queries.job_filters import JobFilter
from jobs.states import JobState

LONGEST = 200

_ID = re.compile(rf"{ids.JOB}[0-9a-f]{{24}}")


@dataclass(frozen=True, kw_only=True)
class JobSearch:
    """The fields of the form, empty where nothing is asked; ``after``: a job before the page."""

    text: str = ""
    project: str = ""
    model: str = ""
    kind: str = ""
    state: str = ""
    after: str = ""

    @classmethod
    def read(cls, given: Mapping[str, Sequence[str]]) -> Self:
        """From the parameters of an address. Raises ``ValueError``, in words for its reader."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name, values in given.items():
            if name not in known:
                raise ValueError(f"{name[:LONGEST]!r} is none of {', '.join(known)}")
            if len(values) > 1:
                raise ValueError(f"{name} must be given once")
            if len(values[0]) > LONGEST or not values[0].isprintable():
                raise ValueError(f"{name} must be at most {LONGEST} printable characters")
        found = cls(**{name: values[0].strip() for name, values in given.items()})
        if found.kind not in {"", *KINDS}:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}")
        if found.state not in {"", *JobState}:
            raise ValueError(f"state must be one of {', '.join(JobState)}")
        return found

    @property
    def filter(self) -> AllJobsFilter:
        """The conditions; a text that is the id of a job means that job, any other a name."""
        is_id = _ID.fullmatch(self.text) is not None
        return AllJobsFilter(
            jobs=JobFilter(
                state=JobState(self.state) if self.state else None,
                kind=self.kind or None,
                name=None if is_id else self.text or None,
            ),
            id=self.text if is_id else None,
            project=self.project or None,
            model=self.model or None,
        )

    def address(self, *, after: str) -> str:
        """The parameters of the page behind the job ``after``; empty: of the first page."""
        fields = dataclasses.asdict(self) | {"after": after}
        return urlencode({name: value for name, value in fields.items() if value})
