"""The next fires of a schedule, as they would be let go if nothing changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from jobs.schedules import calendar
from jobs.schedules.timing import Timing


@dataclass(frozen=True)
class PreviewedFire:
    """A fire that is to come."""

    due: datetime
    local: str
    let_go_at: datetime


def next_fires(
    timing: Timing,
    *,
    schedule_id: str,
    after: datetime,
    last_local: datetime | None = None,
    fired: int = 0,
    count: int = 20,
) -> list[PreviewedFire]:
    """At most ``count`` fires after a moment; ``fired``: how many of ``max_fires`` there were."""
    left = count if timing.max_fires is None else min(count, timing.max_fires - fired)
    coming = calendar.fire_times(timing, after=after, last_local=last_local)
    fires = list(islice(coming, max(0, left) + 1))
    shown = []
    for index, fire in enumerate(fires[: max(0, left)]):
        following = fires[index + 1].due if index + 1 < len(fires) else None
        let_go_at = calendar.jittered(
            fire, schedule_id=schedule_id, timing=timing, next_due=following
        )
        shown.append(PreviewedFire(fire.due, fire.local.isoformat(), let_go_at))
    return shown
