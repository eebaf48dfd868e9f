"""Flower's settings: a view for operators, never the truth; bounded memory, tasks in words.

``workers.outcomes`` decides which state a task ends in; ``result`` and ``traceback`` say why.
"""

from __future__ import annotations

import os
from typing import Any

from jobs import message_words

address = "127.0.0.1"  # the command line may open it; a password is required in any case
read_only = os.environ.get("FLOWER_READ_ONLY", "true")  # a conf file wins over the environment
max_tasks = 10_000
max_workers = 5_000
purge_offline_workers = 300
state_save_interval = 60_000
natural_time = True
tasks_columns = "name,args,state,result,received,started,runtime,worker"


def format_task(task: Any) -> Any:
    """Show the words of the message, and apart from them the job that it is about."""
    words = message_words.read(str(task.args or "").strip("()'\","))
    task.args, task.kwargs = words.text, words.job_id or ""
    return task
