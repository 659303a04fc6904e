"""A message of a person that is delivered again is answered like the first time, and decides nothing again.

What a message has decided is entered with its task's id among the run's events, in the transaction that decides; so
it is known also where the worker died before Celery stored the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workers.core.errors import IllegalTransition, NotWaiting
from workers.services import delivery
from workers.services.system import System
from workers.store import runs
from workers.store.models import Run

TASK = "task"  # in the detail of an event: the id of the message that was behind it


def once(system: System, run_id: str, task: str, decide: Callable[[], Run]) -> dict[str, Any]:
    """Let the message of ``task`` decide about a run, and return the answer; raises what ``decide`` raises.

    Asked before as well as after it refused: a confirmation that comes again must not confirm the next plan, and two
    deliveries may be at it at the same moment.
    """
    if answer := _answer(system, run_id, task):
        return answer
    try:
        return delivery.result_of(decide())
    except (NotWaiting, IllegalTransition):
        if answer := _answer(system, run_id, task):
            return answer
        raise


def _answer(system: System, run_id: str, task: str) -> dict[str, Any] | None:
    with system.database.read() as session:
        run = runs.find(session, run_id)
        decided = [event for event in runs.events(session, run.id) if (event.detail or {}).get(TASK) == task]
    return {**delivery.result_of(run), "status": decided[-1].status.value} if decided else None
