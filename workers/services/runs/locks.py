"""The lock of a state that a run has met: whose it is, whether that one lives, and its end."""

from dataclasses import dataclass
from datetime import datetime

from workers.core import state_locks as core
from workers.core.errors import LockNotEnded
from workers.core.lifecycle import EXECUTING
from workers.core.state_locks import Executed, executed, holder, sentence
from workers.protocol.kinds import RunKind
from workers.protocol.states import DeadHolder, StateLock, StateStep
from workers.services.system import System
from workers.store import run_queries, runs, states
from workers.store.database import Session
from workers.store.models import Run

# Runs of a workspace among which the holder of a lock is looked for.
_LATEST = 200
_TOLD = 50  # of the phases that have left no process, the latest ones


@dataclass(frozen=True, slots=True)
class Met:
    """A lock, and what is known of its holder now. ``alive``: it is not known to be dead."""

    lock: StateLock
    holder: Executed | None
    alive: bool

    def __str__(self) -> str:
        return sentence(self.lock, self.holder, alive=self.alive)


@dataclass(frozen=True, slots=True)
class LockView:
    """A lock that a run has met. ``holder``: the run that has it, if that is known; ``alive``: it may live."""

    id: str
    who: str
    operation: str
    created: str
    holder: str | None
    alive: bool
    ended_at: datetime | None
    said: str


def shown(system: System, run_id: str) -> LockView | None:
    """Return the lock that a run has met, as it stands now; None where it has met none."""
    with system.database.read() as session:
        record = states.lock_of(session, run_id)
        if record is None:
            return None
        lock = StateLock.model_validate(record.lock)
        about = lock.id, lock.who, lock.operation, lock.created
        if record.ended_at is not None:
            return LockView(*about, record.holder, alive=False, ended_at=record.ended_at, said="It was ended.")
        found = met(system, session, runs.get(session, run_id).workspace, lock)
    by = found.holder.run if found.holder else None
    return LockView(*about, by, alive=found.alive, ended_at=None, said=str(found))


def met(system: System, session: Session, workspace: str, lock: StateLock) -> Met:
    """Return what is known of the holder of a lock on the state of a workspace."""
    found = holder(lock, _phases(session, workspace))
    alive = found is None or found.until is None or (found.silent and not _is_gone(system, session, found))
    return Met(lock, found, alive)


def dead_holders(system: System, session: Session, run: Run) -> tuple[DeadHolder, ...]:
    """Return whose lock on its workspace's state a run that plans now does not wait for."""
    if not _locks(run) or not (run.attempt or states.may_be_locked(session, run.workspace)):
        return ()
    found = _phases(session, run.workspace)
    return tuple(core.dead_holders(found, gone=lambda phase: _is_gone(system, session, phase)))[-_TOLD:]


def _phases(session: Session, workspace: str) -> list[Executed]:
    """Return the phases that may have taken the lock of a workspace's state."""
    may_hold = [run for run in states.candidates(session, workspace, EXECUTING, _LATEST) if _locks(run)]
    happened = states.events(session, [run.id for run in may_hold])
    return [phase for run in may_hold for phase in executed(run.id, happened[run.id])]


def enter(system: System, session: Session, run: Run, found: Met) -> None:
    """Enter the lock that a run has met; for :func:`workers.store.runs.record`."""
    states.enter_lock(session, run, found.lock, found.holder.run if found.holder else None, system.now())


def unlock(system: System, run_id: str) -> tuple[str, StateStep]:
    """Return the workspace and the step of a run that ends the lock that a run has met, or holds.

    Raises :class:`LockNotEnded` unless its holder is a run of this system that is known to be dead.
    """
    with system.database.read() as session:
        run = run_queries.find(session, run_id)
        record = states.lock_met(session, run.id)
        if record is None:
            raise LockNotEnded(
                f"Run {run.id} has met no lock, and no other run has met one that it holds: apply the workspace, and "
                "the run that meets the lock says whose it is."
            )
        lock = StateLock.model_validate(record.lock)
        if record.ended_at is not None:
            raise LockNotEnded(
                f"The lock {lock.id} that run {record.run} has met was ended at {record.ended_at:%H:%M} UTC."
            )
        workspace = runs.get(session, record.run).workspace
        found = met(system, session, workspace, lock)
    if found.alive:
        raise LockNotEnded(f"The lock is not ended. {found}")
    return workspace, StateStep(unlock=lock.id)


def _locks(run: Run) -> bool:
    """Whether a run may take a lock: a plan alone does not."""
    return run.kind is RunKind.PLAN_AND_APPLY or "state" in (run.options or {})


def _is_gone(system: System, session: Session, phase: Executed) -> bool:
    return system.slots(runs.get(session, phase.run).pool).agent(phase.agent) is None
