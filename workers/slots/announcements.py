"""What the caller of a run sees of it while it is not over: the state and the info of its task's result.

Stored and published as Celery's Redis backend does it, but in one step and never backwards. Celery's own way would
let a process that is late overwrite what another one told after it, an error that is the outcome included.
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from workers.slots.connection import Script, Step

_ANNOUNCE = Script.load("announce")


def announcement(key: bytes, task: str, state: str, info: Mapping[str, Any], *, step: int, keep: timedelta) -> Step:
    """Return the step that lets the result under Celery's ``key`` of a task say ``state`` and ``info``.

    It changes nothing where that says something of a later ``step`` already. It is kept for so long, unless something
    follows.
    """
    return _ANNOUNCE.step([key], _result(task, state, info, step=step), step, round(keep.total_seconds()))


def outcome(key: bytes, task: str, state: str, result: Mapping[str, Any], *, keep: timedelta, **facts: Any) -> Step:
    """Return the step that stores the outcome of a task under Celery's ``key`` for so long, and tells who waits.

    Its reply is 1. ``facts``: what else Celery keeps with a result.
    """
    return _ANNOUNCE.step([key], _result(task, state, result, **facts), "", round(keep.total_seconds()))


def _result(task: str, state: str, result: Mapping[str, Any], **facts: Any) -> str:
    return json.dumps({"task_id": task, "status": state, "result": result, "traceback": None, "children": [], **facts})
