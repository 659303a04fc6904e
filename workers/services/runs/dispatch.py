"""The dispatcher gives free slots to the runnable runs of a pool, by priority, then round, then age.

One process at a time dispatches a pool. A wake-up that arrives meanwhile sets the lock's rerun flag, and the process
dispatches once more, so that no wake-up is lost. What adds a run calls :func:`dispatch`, what frees a slot asks for it
by a message (:mod:`workers.services.runs.wake`); beat does so too, as a safety net.
"""

from collections import defaultdict
from datetime import datetime
from typing import Any, NamedTuple

import structlog

from workers import metrics
from workers.core.errors import UnknownVersion
from workers.core.lifecycle import RunEvent, RunStatus
from workers.core.programs import PoolPrograms
from workers.protocol import names
from workers.protocol.encryption import NoKey
from workers.protocol.errors import TerraslotError
from workers.protocol.kinds import Phase, RunKind
from workers.protocol.leases import APPLY_SLOT, Lease, PoolStats
from workers.protocol.messages import Order
from workers.protocol.programs import Program
from workers.protocol.version import OLDEST_AGENT
from workers.services.errors import explained, isolate
from workers.services.runs import deliver, orders, task_events
from workers.services.runs.finish import deadline, fail, record
from workers.services.runs.logs import move
from workers.services.runs.requirements import expect_available
from workers.services.runs.wake import request_agents
from workers.services.system import System
from workers.slots.slot_map import SlotMap
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store import pools, runs, workspace_queue
from workers.store.database import Session
from workers.store.models import Run

log = structlog.get_logger(__name__)

# Rounds of one call: the process that dispatches for all others has work of its own.
ROUNDS = 10
# Runs read at a time: at least as many as an ordinary pool has free slots.
BATCH = 100
_Pool = tuple[PoolSpec, PoolPrograms]


class _PassedOver(defaultdict[RunKind, set[str]]):
    """By kind, what runs require that no agent with a free slot has: those behind them are looked at."""

    def __init__(self) -> None:
        super().__init__(set)

    @property
    def count(self) -> int:
        return sum(map(len, self.values()))


def dispatch(system: System, pool: str) -> int:
    """Give every free slot of ``pool`` that can be used to a run that waits; return how many were given.

    Returns 0 at once where another process dispatches this pool: that one dispatches once more. A task goes on with
    what is still asked for after some rounds.
    """
    given: list[int] = []

    def go_on() -> None:
        system.celery.send_task(names.DISPATCH, args=[pool])

    system.lock(pool, "dispatch").work(lambda: given.append(_give_all(system, pool)), rounds=ROUNDS, left=go_on)
    return sum(given)


def dispatch_requested(system: System, pool: str) -> int:
    """Dispatch a pool as a message asks for it; return how many slots were given."""
    system.wake_up(pool, "dispatch").received()
    return dispatch(system, pool)


def dispatch_new(system: System, pool: str) -> None:
    """Dispatch a pool that a run was added to, and ask for agents where no slot is left: others may have been first."""
    dispatch(system, pool)
    request_agents(system, pool)


def _give_all(system: System, pool: str) -> int:
    slots = system.slots(pool)
    given, wide, passed_over = 0, False, _PassedOver()
    while kinds := _kinds_with_room(stats := slots.stats()):
        # No more than there are free slots, unless some of those runs can't start now.
        limit = BATCH if wide else min(BATCH, stats.free_plan)
        with system.database.read() as session:
            waiting = runs.runnable(session, pool, kinds, limit, passed_over)
            found = pools.with_programs(session, pool) if waiting else None
        if found and found[0].draining:
            break
        before = passed_over.count
        batch = _give(system, slots, found, waiting, passed_over) if found else 0
        given += batch
        # A run that was added or a slot that was freed since then has set the lock's rerun flag.
        if len(waiting) < limit or (wide and not batch and passed_over.count == before):
            break
        wide = batch < limit
    return given


def _kinds_with_room(stats: PoolStats) -> set[RunKind]:
    free = {RunKind.PLAN: stats.free_plan, RunKind.PLAN_AND_APPLY: stats.free_apply}
    return {kind for kind, slots in free.items() if slots}


def _give(system: System, slots: SlotMap, pool: _Pool, waiting: list[Run], passed_over: _PassedOver) -> int:
    given, full = 0, set[RunKind]()
    for run in waiting:
        if run.kind in full or run.terraform in passed_over[run.kind]:
            continue
        taken = _try_to_start(system, slots, pool, run)
        if taken is None and run.terraform is not None:
            passed_over[run.kind].add(run.terraform)
        elif taken is None:
            full.add(run.kind)
        given += bool(taken)
    return given


def _try_to_start(system: System, slots: SlotMap, pool: _Pool, run: Run) -> bool | None:
    """Start a run; an error of this run alone stops no other. Raises where a server is away."""
    with isolate("run not started", **run.about):
        try:
            return start(system, slots, pool, run)
        except (orders.NotMade, UnknownVersion) as error:
            log.warning("run can't be started", **run.about, why=str(error))
            fail(system, run, str(error))
        except NoKey as error:
            # Another process may have the key, and other runs need none.
            log.warning("run waits for a key", **run.about, why=str(error))
            _keep_error(system, run, str(error))
    return False


def _keep_error(system: System, run: Run, error: str) -> None:
    if run.start_error != error:
        with system.database.begin() as session:
            runs.change(session, run.id, expect=RunStatus.PENDING, now=system.now(), start_error=error)


def start(system: System, slots: SlotMap, pool: _Pool, run: Run) -> bool | None:
    """Take a slot for a pending run, commit, send the order.

    Returns None where no agent has a free slot and what the run requires, False where the run holds a slot already or
    is no longer runnable, else True. Raises, having taken nothing, where its order can't be made, or no agent of its
    pool has what it requires.
    """
    spec, programs = pool
    meeting: list[Program] = []
    if run.terraform is not None:
        meeting = programs.meeting(run.terraform)
        if not meeting:
            expect_available(system, spec, programs, run.terraform)
            return None
    token = orders.new_token()
    lease = slots.acquire(run.id, run.kind, token, meeting)
    if lease is None:
        return None
    if lease.token != token:
        return False  # of an earlier attempt, or of another dispatcher; reconcile releases one that is left over
    try:
        updated, order = _dispatched(system, slots, spec, run, lease)
    except _NeedsNewer as error:
        _leave_to_newer(slots, lease.agent, error.version)
        slots.release(run.id, token)
        return False
    except Exception:
        slots.release(run.id, token)
        raise
    if updated is None:
        slots.release(run.id, token)
        return False
    send(system, updated, Start(spec, lease, order))
    return True


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


def take_slot(system: System, session: Session, workspace: WorkspaceSpec, pool: _Pool, run: Run) -> Start | None:
    """Take a slot for a run that is about to be entered in this transaction, and make its order.

    None where the dispatcher decides: no slot is free, others wait for one, or the run has to wait for its workspace.
    That and the pool must be locked. Raises :class:`NotStarted`, having taken nothing.
    """
    try:
        return _slot_at_once(system, session, workspace, pool, run)
    except _NeedsNewer:
        return None  # the dispatcher decides what becomes of the older agent
    except Exception as error:
        raise NotStarted(explained(error)) from error


def _slot_at_once(system: System, session: Session, workspace: WorkspaceSpec, pool: _Pool, run: Run) -> Start | None:
    spec, programs = pool
    meeting = programs.meeting(run.terraform) if run.terraform else []
    waiting = workspace_queue.waiting_kinds(session, run.pool)
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
            _expect_known(slots, lease, orders.oldest_agent(session, order, spec))
            return Start(spec, lease, order)
    except Exception:
        slots.release(run.id, token)
        raise
    slots.release(run.id, token)
    return None


def send(system: System, run: Run, start: Start) -> None:
    """Tell the caller and the agent of a run that it has started; after the commit."""
    if run.attempt == 1:
        metrics.WAITING.add((run.updated_at - run.created_at).total_seconds(), run.pool, run.kind)
    orders.send(system, run, start.order, tell=deliver.announcement(system, run))
    task_events.moved(system, run)
    _protect(system, start.pool, start.lease)
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
    sent = order.model_copy(update={"commit": updated.commit})
    orders.send(system, updated, sent, tell=deliver.announcement(system, updated))
    task_events.moved(system, updated)
    return updated


class _NeedsNewer(Exception):
    """The agent is older than the version that a run needs."""

    def __init__(self, version: int) -> None:
        super().__init__()
        self.version = version


def _leave_to_newer(slots: SlotMap, older: str, needed: int) -> None:
    """Drain an agent that would not execute a run as it is meant, so that the run finds a newer one.

    Where no agent is newer, the next would be like this one, and drained for the same run: then the run waits alone.
    """
    if any(agent.protocol >= needed for agent in slots.snapshot()):
        slots.drain(older)


def _dispatched(system: System, slots: SlotMap, spec: PoolSpec, run: Run, lease: Lease) -> tuple[Run | None, Order]:
    if run.attempt:
        move(system, run)  # its lines belong to the attempt before
    now = system.now()
    with system.database.begin() as session:
        order = orders.make(system, session, run, Phase.PLAN, spec, slot=lease.slot, token=lease.token)
        _expect_known(slots, lease, orders.oldest_agent(session, order, spec))
        columns, detail = Start(spec, lease, order).of(run, now)
        updated = runs.record(
            session, run.id, RunEvent.DISPATCHED, expect=RunStatus.PENDING, now=now, detail=detail, **columns
        )
    return updated, order


def _expect_known(slots: SlotMap, lease: Lease, needed: int) -> None:
    """Raise where the agent is too old for a run."""
    if needed > OLDEST_AGENT:
        agent = slots.agent(lease.agent)
        if agent is None or agent.protocol < needed:
            raise _NeedsNewer(needed)


def _protect(system: System, spec: PoolSpec, lease: Lease) -> None:
    if system.pods(spec).moves_pods:
        protected = [spec.name, lease.agent, lease.run]
        system.celery.send_task(names.PROTECT, args=protected, expires=system.settings.cycle_seconds)
