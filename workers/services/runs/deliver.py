"""Deliver a run to its caller: Celery states while it lasts, and a Celery result when it is over.

The task that enqueued a run ends with ``Ignore``, and Celery drops it. When the run is over, the very same message
(name, arguments, id, chain, group, chord, callbacks) is sent again; the task then finds its run over and returns or
raises the outcome, and Celery's own tracer stores it and continues the workflow.

Celery sends the rest of a chain before it stores the result. So a delivery is claimed before it is executed, and an
outcome that was delivered or is claimed is not delivered. What remains: a worker that dies, or waits for Redis until
its claim lapses, between those two leaves the rest of the chain to be sent a second time, with the same task ids.
"""

from datetime import timedelta
from typing import Any

import structlog

from workers.app import RESULT_LIFETIME, direct_queue
from workers.core.lifecycle import ENDINGS, STEPS, RunStatus
from workers.protocol import names
from workers.protocol.errors import TerraslotError
from workers.services.system import System
from workers.slots import announcements
from workers.store import runs
from workers.store.models import Run

log = structlog.get_logger(__name__)

OUTCOME = "terraslot_outcome"  # the header of a task that is sent once more
# A delivery takes milliseconds; one that is missing after a minute was lost, or its worker was killed.
OVERDUE = timedelta(seconds=60)
CLAIM = timedelta(seconds=60)
# Deliveries that one call repeats: a task has to be over long before its own message is delivered again.
BATCH = 500


def result_of(run: Run) -> dict[str, Any]:
    """Return a run as the dict that callers get."""
    return {
        "run_id": run.id,
        "workspace": run.workspace,
        "status": run.status.value,
        "changes": run.changes,
        "outputs": run.outputs or {},
        "agent": run.agent,
        "slot": run.slot,
        "attempt": run.attempt,
    }


def outcome(run: Run) -> dict[str, Any]:
    """Return the result of a run that succeeded; raise the :class:`RunError` of one that ended otherwise."""
    if run.status is RunStatus.SUCCEEDED:
        return result_of(run)
    error, ending = ENDINGS[run.status]
    sentence = f"Run {run.id} of workspace {run.workspace} {ending}"
    if run.reason:
        sentence += f" ({run.reason})"
    raise error(f"{sentence}: {run.error}" if run.error else f"{sentence}.")


def claim(system: System, run_id: str) -> Run | None:
    """Return a run whose outcome this process is to deliver now.

    None where it was delivered, another process delivers it, or the database does not answer.
    """
    now = system.now()
    try:
        with system.database.begin() as session:
            return runs.claim_delivery(session, run_id, now, now + CLAIM)
    except TerraslotError as error:  # an overdue outcome is sent again
        log.warning("outcome not delivered", run=run_id, why=str(error))
        return None


def announce(system: System, run: Run) -> None:
    """Set ``AsyncResult.state`` and ``.info`` of a run that is not over, unless they tell of a later step already."""
    key = system.celery.backend.get_key_for_task(run.id)
    step = run.attempt * len(STEPS) + STEPS.index(run.status)
    state = run.status.celery_state
    announcements.announce(system.redis, key, run.id, state, result_of(run), step=step, keep=RESULT_LIFETIME)


def complete(system: System, run: Run) -> None:
    """Send the task of a run that is over once more, so that Celery stores the outcome."""
    task = run.task
    system.celery.send_task(
        task["name"],
        args=task["args"],
        kwargs=task["kwargs"],
        queue=direct_queue(names.SUBMIT_QUEUE),
        # The caller waits for the result, this process does not.
        ignore_result=True,
        headers={"ignore_result": False, OUTCOME: True},
        **task["options"],
    )
    log.info("run over", run=run.id, workspace=run.workspace, status=run.status.value, reason=run.reason)


def deliver_overdue(system: System) -> int:
    """Send overdue outcomes again; return how many.

    This job's message expires after one cycle and waits in the queue of the outcomes. When it is executed, an outcome
    that was sent a cycle earlier has left the queue, so that none is sent again while its message waits there.
    """
    now = system.now()
    before = now - OVERDUE - timedelta(seconds=system.settings.cycle_seconds)
    with system.database.read() as session:
        overdue = runs.undelivered(session, before, now, BATCH)
    for run in overdue:
        complete(system, run)
    return len(overdue)


def delivered(system: System, run_id: str) -> None:
    """Remember that Celery has stored the outcome of a run."""
    with system.database.begin() as session:
        runs.mark_delivered(session, run_id, system.now())
