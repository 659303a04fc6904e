"""What a caller's ``AsyncResult`` says of a run never goes backwards, however late a process tells what it saw."""

from __future__ import annotations

from tests.services.conftest import ControlPlane
from workers.core.lifecycle import RunStatus
from workers.services.runs import decide, deliver
from workers.services.runs.finish import requeue_or_fail


def test_what_was_told_later_stays(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    run = control.submit()
    agent.work()
    waiting = control.run(run.id)
    decide.confirm(control.system, run.id)

    deliver.announce(control.system, waiting)
    deliver.announce(control.system, run)

    assert control.celery_state(run.id) == "APPLYING"


def test_an_outcome_stays(control: ControlPlane) -> None:
    """Also an error, which Celery itself would let be overwritten: whoever waits for it would wait for ever."""
    control.workspace()
    control.agent()
    run = control.submit()
    control.system.celery.backend.store_result(run.id, ValueError("no"), "FAILURE")

    deliver.announce(control.system, run)

    assert control.celery_state(run.id) == "FAILURE"


def test_a_run_that_is_planned_anew_is_seen_to_wait_again(control: ControlPlane) -> None:
    control.workspace()
    agent = control.agent()
    control.submit()
    agent.work()
    waiting = control.run("run-1")

    lost = requeue_or_fail(control.system, waiting, "its pod is gone", may_have_started=False)
    deliver.announce(control.system, waiting)

    assert lost is not None
    assert (lost.status, control.celery_state("run-1")) == (RunStatus.PENDING, "PENDING")


def test_the_same_may_be_told_twice(control: ControlPlane) -> None:
    control.workspace()
    control.agent()
    run = control.submit()

    deliver.announce(control.system, run)

    assert control.celery_state(run.id) == "PLANNING"
    assert control.redis.ttl(f"celery-task-meta-{run.id}") > 29 * 86400
