"""A message of a person that is delivered again is answered like the first time, and decides nothing again.

What a message has decided is entered with its task's id among the run's events, in the transaction that decides; so
it is known also where the worker died before Celery stored the answer. So is a refusal: a confirmation that came
before there was a plan, or after it was gone, must not confirm one that nobody has seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workers.core.errors import AgentGone, AgentSilent, IllegalTransition, NotWaiting
from workers.protocol.errors import TerraslotError
from workers.services.runs import deliver
from workers.services.system import System
from workers.store import runs
from workers.store.models import Run, RunEventRecord

# In the detail of an event: the id of the message that was behind it, and the error that it was answered with.
TASK, REFUSED = "task", "refused"

_REFUSALS = (AgentGone, AgentSilent, IllegalTransition, NotWaiting)
_BY_NAME = {kind.__name__: kind for kind in _REFUSALS}


def deduplicate(system: System, run_id: str, task: str, decide: Callable[[], Run]) -> dict[str, Any]:
    """Let the message of ``task`` decide about a run, and return the answer; raises what ``decide`` raises.

    Asked before as well as after it refused: two deliveries may be at it at the same moment.
    """
    run, decided = _decision(system, run_id, task)
    if decided is not None:
        return _answer(run, decided)
    try:
        return deliver.result_of(decide())
    except _REFUSALS as error:
        run, decided = _decision(system, run_id, task)
        if decided is None:
            _remember(system, run, task, error)
        elif REFUSED not in (decided.detail or {}):
            return _answer(run, decided)
        raise


def _decision(system: System, run_id: str, task: str) -> tuple[Run, RunEventRecord | None]:
    """Return a run and the last of its events that the message was behind, if there is any."""
    with system.database.read() as session:
        run = runs.find(session, run_id)
        decided = [event for event in runs.events(session, run.id) if (event.detail or {}).get(TASK) == task]
    return run, decided[-1] if decided else None


def _answer(run: Run, decided: RunEventRecord) -> dict[str, Any]:
    detail = decided.detail or {}
    if REFUSED in detail:
        raise _BY_NAME[detail[REFUSED]](f"This was refused when it came first: {detail['why'].rstrip('.')}.")
    return {**deliver.result_of(run), "status": decided.status.value}


def _remember(system: System, run: Run, task: str, error: TerraslotError) -> None:
    detail = {TASK: task, REFUSED: type(error).__name__, "why": str(error)}
    with system.database.begin() as session:
        runs.remark(session, run, "request refused", now=system.now(), detail=detail)
