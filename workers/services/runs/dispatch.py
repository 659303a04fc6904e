"""The dispatcher gives free slots to the runnable runs of a pool, by priority, then round, then age.

One process at a time dispatches a pool. A wake-up that arrives meanwhile sets the lock's rerun flag, and the process
dispatches once more, so that no wake-up is lost. What adds a run calls :func:`dispatch`, what frees a slot asks for it
by a message (:mod:`workers.services.runs.wake`); beat does so too, as a safety net.
"""

from collections import defaultdict

import structlog

from workers.core.errors import UnknownVersion
from workers.core.lifecycle import RunStatus
from workers.core.programs import PoolPrograms
from workers.protocol import names
from workers.protocol.encryption import NoKey
from workers.protocol.kinds import RunKind
from workers.protocol.leases import PoolStats
from workers.services.errors import explained, is_outage, isolate
from workers.services.runs import orders
from workers.services.runs.finish import fail
from workers.services.runs.requirements import expect_available
from workers.services.runs.start import NeedsNewer, Taken, start
from workers.services.runs.wake import request_agents
from workers.services.system import System
from workers.slots.slot_map import Ask, SlotMap
from workers.specs.pools import PoolSpec
from workers.store import pools, runs, workspace_queue
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
            waiting = workspace_queue.runnable(session, pool, kinds, limit, passed_over)
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
    """Start together those of the runs that find a slot; return how many. An error of one of them stops no other.

    Raises where a server is away.
    """
    try:
        return _start(system, slots, pool, waiting, passed_over)
    except Exception as error:
        if is_outage(error) and not isinstance(error, NoKey):
            raise
        log.info("runs are started one by one", pool=pool[0].name, why=explained(error))
    return sum(_start_alone(system, slots, pool, run, passed_over) for run in waiting)


def _start_alone(system: System, slots: SlotMap, pool: _Pool, run: Run, passed_over: _PassedOver) -> int:
    with isolate("run not started", **run.about):
        try:
            return _start(system, slots, pool, [run], passed_over)
        except NeedsNewer as error:
            error.leave(slots)
        except (orders.NotMade, UnknownVersion) as error:
            log.warning("run can't be started", **run.about, why=str(error))
            fail(system, run, str(error))
        except NoKey as error:
            # Another process may have the key, and other runs need none.
            log.warning("run waits for a key", **run.about, why=str(error))
            _keep_error(system, run, str(error))
    return 0


def _keep_error(system: System, run: Run, error: str) -> None:
    if run.start_error != error:
        with system.database.begin() as session:
            runs.change(session, run.id, expect=RunStatus.PENDING, now=system.now(), start_error=error)


def _start(system: System, slots: SlotMap, pool: _Pool, waiting: list[Run], passed_over: _PassedOver) -> int:
    """Take slots for runs, in their order, and start those that got one; return how many.

    Raises, having taken nothing, where one of them can't be started.
    """
    asks = {run.id: ask for run in waiting if (ask := _ask(system, pool, run)) is not None}
    leases = slots.acquire_each(list(asks.values()))
    taken = []
    for run in waiting:
        lease = leases.get(run.id)
        if lease is None and run.terraform is not None:
            passed_over[run.kind].add(run.terraform)
        elif lease is not None and lease.token == asks[run.id].token:
            taken.append(Taken(run, lease))
        # Another token is of an earlier attempt, or of another dispatcher; reconcile releases one that is left over.
    return start(system, pool[0], taken)


def _ask(system: System, pool: _Pool, run: Run) -> Ask | None:
    """Return what a run asks of the slot map; None where no agent has what it requires, and one may come that does."""
    spec, programs = pool
    meeting = programs.meeting(run.terraform) if run.terraform else []
    if run.terraform and not meeting:
        expect_available(system, spec, programs, run.terraform)
        return None
    return Ask(run.id, run.kind, orders.new_token(), meeting)
