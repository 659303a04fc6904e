"""Deliver a run to its caller: Celery states while it lasts, and a Celery result when it is over.

The task that enqueued a run ends with ``Ignore``, and Celery drops it. When the run is over and nothing of a workflow
waits for it, the process that has ended it stores the outcome as the task's result. Else the very same message (name,
arguments, id, chain, group, chord, callbacks) is sent again; the task then finds its run over and returns or raises the
outcome, and Celery's own tracer stores it and continues the workflow.

Celery sends the rest of a chain before it stores the result. So a delivery is claimed before it is executed, and an
outcome that was delivered or is claimed is not delivered. What remains: a worker that dies, or waits for Redis until
its claim lapses, between those two leaves the rest of the chain to be sent a second time, with the same task ids.

Celery may refuse to send a message for what its caller has written into it, and a worker may drop it. So an outcome is
sent again a few times; after that it is stored as the task's result, without what the message asks for beside it.
"""

import random
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from celery import states

from workers import metrics, traces
from workers.app import RESULT_LIFETIME, direct_queue
from workers.core.delivery import LONGEST_PAUSE, next_pause
from workers.core.errors import RunError
from workers.core.lifecycle import STEPS, EventDetail, RunNote
from workers.protocol import names
from workers.protocol.errors import TerraslotError
from workers.services.errors import explained, is_outage, isolate
from workers.services.runs import task_events
from workers.services.runs.outcome import outcome, result_of
from workers.services.system import System
from workers.slots import announcements
from workers.slots.connection import Step, run_together
from workers.store import deliveries, runs
from workers.store.models import Run

log = structlog.get_logger(__name__)

# What waits for a task beside its result, among the options of its message.
_WORKFLOW = frozenset({"chain", "chord", "link", "link_error"})
OUTCOME = "terraslot_outcome"  # the header of a task that is sent once more
# A delivery takes milliseconds; one that is missing after a minute was lost, or its worker was killed.
OVERDUE = timedelta(seconds=60)
CLAIM = timedelta(seconds=60)
# Deliveries that one call repeats: a task has to be over long before its own message is delivered again.
BATCH = 500
# Attempts that are entered in one transaction, and that a process which dies then has used up in vain.
TOGETHER = 25


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
    task_events.moved(system, run)
    run_together(system.redis, [announcement(system, run)])


def announcement(system: System, run: Run, *, waiting: str | None = None) -> Step:
    """Return the step by which a run is announced; ``waiting``: what a pending one waits for at this moment."""
    key = system.celery.backend.get_key_for_task(run.id)
    step = run.attempt * len(STEPS) + STEPS.index(run.status)
    info = result_of(run)
    if waiting is not None:
        info |= {"waiting": waiting, "waiting_at": system.now().isoformat()}
    return announcements.announcement(key, run.id, run.status.celery_state, info, step=step, keep=RESULT_LIFETIME)


def claims(run: Run, now: datetime) -> dict[str, Any]:
    """Return the columns by which the process that ends a run claims to store its outcome itself.

    It does where no chain, chord or callback waits for it: Celery has to do nothing else then.
    """
    plain = run.task.get("node") is not None and not _WORKFLOW.intersection(run.task["options"])
    return {"delivery_claimed_until": now + CLAIM} if plain else {}


def result_step(system: System, run: Run) -> Step | None:
    """Return the step that stores the outcome of a run whose delivery this process has claimed as it ended it."""
    with isolate("outcome not stored", **run.about):
        if run.delivery_claimed_until is not None:
            backend, state = system.celery.backend, run.status.celery_state
            try:
                result = outcome(run)
            except RunError as error:
                result = backend.encode_result(error, state)
            options = run.task["options"]
            facts = {name: options[name] for name in ("group_id", "parent_id") if name in options}
            return announcements.outcome(
                backend.get_key_for_task(run.id), run.id, state, result,
                keep=RESULT_LIFETIME, date_done=system.now().isoformat(), **facts,
            )  # fmt: skip
    return None


def complete(system: System, over: Sequence[Run], stored: Collection[str] = ()) -> None:
    """Deliver the outcomes of runs that are over, but for those that are ``stored``, which is remembered.

    The task of each is sent once more, so that Celery stores the outcome. One that can't be sent is overdue a minute
    later. Raises an outage.
    """
    for run in over:
        metrics.FINISHED.add(run.pool, run.kind, run.status, run.reason or "")
        log.info("run over", **run.about, status=run.status.value, reason=run.reason)
    task_events.over(system, over)
    error: str | None = None
    try:
        _complete(system, over, stored)
    except Exception as raised:
        error = type(raised).__name__
        raise
    finally:
        for run in over:
            _draw_end(system, run, error)


def _complete(system: System, over: Sequence[Run], stored: Collection[str]) -> None:
    if stored:
        delivered(system, stored)
    for run in over:
        if run.delivery_claimed_until is None:
            with isolate("outcome not sent", **run.about):
                _send(system, run)


def _draw_end(system: System, run: Run, error: str | None) -> None:
    """Add the delivery of a run, and the run itself, to its trace."""
    now, outcome = system.now(), run.status.value
    traces.draw("deliver", run, run.finished_at, now, error=error, outcome=outcome)
    failed = run.reason and run.reason.value
    traces.draw_run(run, run.created_at, now, error=failed, outcome=outcome, kind=run.kind.value)


def deliver_overdue(system: System) -> int:
    """Send overdue outcomes again; return how many. Their attempts are entered together, each is sent by itself.

    This job's message expires after one cycle and waits in the queue of the outcomes. When it is executed, an outcome
    that was sent a cycle earlier has left the queue, so that none is sent again while its message waits there.
    """
    now = system.now()
    before = now - OVERDUE - timedelta(seconds=system.settings.cycle_seconds)
    with system.database.read() as session:
        found = deliveries.overdue(session, before=before, now=now, limit=BATCH)
    some = (found[first : first + TOGETHER] for first in range(0, len(found), TOGETHER))
    return sum(_deliver_again(system, each, pause) for few in some for each, pause in _entered(system, few))


def _entered(system: System, found: Sequence[deliveries.Overdue]) -> list[tuple[deliveries.Overdue, float | None]]:
    """Enter the attempts that are made now, before them; return those that no other process makes, and their pauses.

    Where that raises, each is entered by itself.
    """
    attempts = [(each, next_pause(each.attempts, refused=each.error is not None)) for each in found]
    now = system.now()
    with isolate("attempts not entered", runs=[each.run for each in found]), system.database.begin() as session:
        return [
            (each, pause)
            for each, pause in attempts
            if deliveries.enter_attempt(session, each, now + timedelta(seconds=_jittered(pause or LONGEST_PAUSE)))
        ]
    return [entered for each in found for entered in _entered(system, [each])] if len(found) > 1 else []


def _deliver_again(system: System, found: deliveries.Overdue, pause: float | None) -> bool:
    with isolate("outcome not delivered", run=found.run):
        return _give_up(system, found) if pause is None else _try_to_send(system, found)
    return False


def _try_to_send(system: System, found: deliveries.Overdue) -> bool:
    try:
        with system.database.read() as session:
            run = runs.get(session, found.run)
        with traces.span("deliver again", run):
            _send(system, run)
    except Exception as error:
        if is_outage(error):
            raise
        log.exception("outcome not sent", run=found.run, tries=found.attempts + 1)
        with system.database.begin() as session:
            deliveries.refused(session, found.run, explained(error))
        return False
    metrics.DELIVERIES.add("repeated")
    return True


def _give_up(system: System, found: deliveries.Overdue) -> bool:
    """Store an outcome as the result of its task; the rest of what its message asks for is not sent."""
    run = claim(system, found.run)
    if run is None:
        return False
    try:
        system.celery.backend.store_result(run.id, outcome(run), states.SUCCESS)
    except RunError as error:
        system.celery.backend.store_result(run.id, error, states.FAILURE)
    reason = (found.error or "no worker took it").rstrip(".")
    why = (
        f"its outcome was sent {found.attempts} times again, and never arrived ({reason}): it is stored as the "
        "task's result, and no chain, chord or callback of the task went on"
    )
    metrics.DELIVERIES.add("given up")
    log.error("delivery given up", **run.about, why=why)
    with system.database.begin() as session:
        if runs.mark_delivered(session, [run.id], system.now()):
            detail = EventDetail(why=why)
            runs.remark(session, run, RunNote.DELIVERY_GIVEN_UP, now=system.now(), detail=detail)
    return True


def _send(system: System, run: Run) -> None:
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


def _jittered(seconds: float) -> float:
    """Return a time near to this one: outcomes that an outage made overdue together are not sent together again."""
    return seconds * random.uniform(0.75, 1.25)  # noqa: S311 - nothing depends on its being unknown


def delivered(system: System, run_ids: Collection[str]) -> None:
    """Remember that the outcomes of these runs are the results of their tasks."""
    with system.database.begin() as session:
        newly = runs.mark_delivered(session, run_ids, system.now())
    metrics.DELIVERIES.add("stored", number=len(newly))
