"""Start runs on slots that they have: take the slot, commit, then tell the caller and the agent.

A run is started as it is entered (:mod:`workers.services.runs.submit`), or by the dispatcher, which starts several
together. What is sent is what was committed.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import structlog

from workers import metrics, traces
from workers.core.lifecycle import RunEvent, RunStatus
from workers.protocol import names
from workers.protocol.errors import TerraslotError
from workers.protocol.kinds import Phase, RunKind
from workers.protocol.leases import APPLY_SLOT, Lease
from workers.protocol.messages import Order
from workers.protocol.version import OLDEST_AGENT
from workers.services.errors import explained
from workers.services.runs import deliver, orders, task_events
from workers.services.runs.finish import deadline, record
from workers.services.runs.logs import move
from workers.services.system import System
from workers.slots.connection import run_together
from workers.slots.slot_map import SlotMap
from workers.specs.pools import PoolSpec
from workers.store import runs, workspace_queue, workspaces
from workers.store.configurations import PoolToJoin, WorkspaceToRun
from workers.store.database import Session
from workers.store.models import Run

log = structlog.get_logger(__name__)


class Taken(NamedTuple):
    """A run that is pending, and the slot that it was given."""

    run: Run
    lease: Lease


class Start(NamedTuple):
    """What the start of a run needs: a slot that it has, and the order for its agent."""

    pool: PoolSpec
    lease: Lease
    order: Order

    def of(self, run: Run, now: datetime) -> runs.Started:
        """Return what the start changes of a run."""
        until = deadline(now, self.pool, self.order.timeout)
        agent, slot = self.lease.agent, self.lease.slot
        columns = {"agent": agent, "slot": slot, "token": self.lease.token, "attempt": run.attempt + 1}
        fresh = {"ordered_at": now, "started_at": None, "program": None, "deadline": until, "start_error": None}
        return runs.Started(columns | fresh, {"agent": agent, "slot": slot})


class NotStarted(TerraslotError):
    """A run can't be started as it is entered, which is no reason not to enter it; the message says why."""


def take_slot(system: System, session: Session, workspace: WorkspaceToRun, pool: PoolToJoin, run: Run) -> Start | None:
    """Take a slot for a run that is about to be entered in this transaction, and make its order.

    None where the dispatcher decides: no slot is free, others wait for one, or the run has to wait for its workspace.
    That and the pool must be locked. Raises :class:`NotStarted`, having taken nothing.
    """
    try:
        return _slot_at_once(system, session, workspace, pool, run)
    except NeedsNewer:
        return None  # the dispatcher decides what becomes of the older agent
    except Exception as error:
        raise NotStarted(explained(error)) from error


def _slot_at_once(
    system: System, session: Session, workspace: WorkspaceToRun, pool: PoolToJoin, run: Run
) -> Start | None:
    spec, programs, waiting = pool
    meeting = programs.meeting(run.terraform) if run.terraform else []
    queues = run.kind is RunKind.PLAN_AND_APPLY and not workspace_queue.is_idle(session, run.workspace)
    if spec.draining or run.kind in waiting or queues or (run.terraform and not meeting):
        return None
    slots, token = system.slots(run.pool), orders.new_token()
    lease = slots.acquire(run.id, run.kind, token, meeting)
    if lease is None or lease.token != token:
        return None
    try:
        if not (waiting and lease.slot == APPLY_SLOT):  # which is of use to every run that waits
            order = orders.make(
                system, session, run, Phase.PLAN, spec, slot=lease.slot, token=token, workspace=workspace
            )
            _expect_known(system, lease, spec, orders.oldest_agent(session, order, spec))
            return Start(spec, lease, order)
    except Exception:
        slots.release(run.id, token)
        raise
    slots.release(run.id, token)
    return None


def start(system: System, pool: PoolSpec, taken: Sequence[Taken]) -> int:
    """Commit that runs of a pool start, each on its slot, and send their orders; return how many did.

    A run that is no longer runnable gives its slot back. Raises, with all slots given back, where one can't be started.
    """
    if not taken:
        return 0
    try:
        started = _committed(system, pool, taken)
    except Exception:
        _give_back(system, pool, taken)
        raise
    _give_back(system, pool, [each for each in taken if each.run.id not in started])
    send(system, list(started.values()))
    return len(started)


def _committed(system: System, pool: PoolSpec, taken: Sequence[Taken]) -> dict[str, tuple[Run, Start]]:
    """Enter that runs start, in one transaction; return those of which that is so, as they are now."""
    for run, _ in taken:
        if run.attempt:
            move(system, run)  # its lines belong to the attempt before
    now, started = system.now(), {}
    with system.database.begin() as session:
        runs.lock(session, [run.id for run, _ in taken])
        known = workspaces.these_to_run(session, {run.workspace for run, _ in taken})
        for run, lease in taken:
            order = orders.make(
                system, session, run, Phase.PLAN, pool, slot=lease.slot, token=lease.token,
                workspace=known.get(run.workspace),
            )  # fmt: skip
            _expect_known(system, lease, pool, orders.oldest_agent(session, order, pool))
            begun = Start(pool, lease, order)
            columns, detail = begun.of(run, now)
            updated = runs.record(
                session, run.id, RunEvent.DISPATCHED, expect=RunStatus.PENDING, now=now, detail=detail, **columns
            )
            if updated is not None:
                started[run.id] = updated, begun
    return started


def _give_back(system: System, pool: PoolSpec, taken: Sequence[Taken]) -> None:
    slots = system.slots(pool.name)
    run_together(system.redis, [slots.release_step(run.id, lease.token) for run, lease in taken])


def send(system: System, started: Sequence[tuple[Run, Start]]) -> None:
    """Tell the callers and the agents of runs that have started; after the commit, in one round trip."""
    with traces.span("dispatch", *(run for run, _ in started)):
        orders.send(system, [(run, begun.order) for run, begun in started], tell=deliver.announcement)
    for run, begun in started:
        task_events.moved(system, run)
        _protect(system, begun.pool, begun.lease)
        if run.attempt == 1:
            metrics.WAITING.add((run.updated_at - run.created_at).total_seconds(), run.pool, run.kind)
            traces.draw("wait for slot", run, run.created_at, run.updated_at)
        log.info("run dispatched", **run.about)


def start_apply(system: System, run: Run, event: RunEvent, pool: PoolSpec, order: Order, **changes: Any) -> Run | None:
    """Commit that a run goes on to its apply, whose lease has the order's token already, and send the order.

    Returns None, with the slot released, where the run has changed since it was read.
    """
    now = system.now()
    times = {"ordered_at": now, "started_at": None, "deadline": deadline(now, pool, order.timeout)}
    updated = record(system, run, event, token=order.token, **times, **changes)
    if updated is None:
        system.slots(run.pool).release(run.id, order.token)
        return None
    if event is RunEvent.CONFIRMED:
        traces.draw("wait for confirmation", updated, run.updated_at, now, phase=None)
    sent = order.model_copy(update={"commit": updated.commit})
    with traces.span("dispatch", updated):
        orders.send(system, [(updated, sent)], tell=deliver.announcement)
    task_events.moved(system, updated)
    return updated


class NeedsNewer(Exception):
    """An agent is older than the version that a run needs."""

    def __init__(self, agent: str, version: int) -> None:
        super().__init__(f"Agent {agent} has not the version {version}.")
        self._agent, self._version = agent, version

    def leave(self, slots: SlotMap) -> None:
        """Drain the agent, which would not execute the run as it is meant, so that the run finds a newer one.

        Where no agent is newer, the next would be like this one, and drained for the same run: then the run waits.
        """
        if any(agent.protocol >= self._version for agent in slots.snapshot()):
            slots.drain(self._agent)


def _expect_known(system: System, lease: Lease, pool: PoolSpec, needed: int) -> None:
    """Raise where the agent is too old for a run."""
    if needed > OLDEST_AGENT:
        agent = system.slots(pool.name).agent(lease.agent)
        if agent is None or agent.protocol < needed:
            raise NeedsNewer(lease.agent, needed)


def _protect(system: System, spec: PoolSpec, lease: Lease) -> None:
    if system.pods(spec).moves_pods:
        protected = [spec.name, lease.agent, lease.run]
        system.celery.send_task(names.PROTECT, args=protected, expires=system.settings.cycle_seconds)
