"""Flower's settings: a view for operators, never the truth; bounded memory, tasks in words.

``workers.outcomes`` decides which state a task ends in; ``result`` says why.
"""

from __future__ import annotations

from typing import Any

address = "127.0.0.1"  # the command line may open it; a password then is a must
max_tasks = 10_000
max_workers = 5_000
purge_offline_workers = 300
persistent = False
natural_time = True
tasks_columns = "name,args,state,result,received,started,runtime,worker"


def format_task(task: Any) -> Any:
    """Arguments were put into words at publish (`rows 0 to 999 of job_...`)."""
    task.kwargs = ""
    if task.args:
        task.args = str(task.args).strip("()'\",")
    return task
