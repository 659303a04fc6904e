"""What a new run requires of its program, and whether the agents of its pool have it."""

from workers.core.errors import UnknownVersion
from workers.core.programs import PoolPrograms, no_such_program
from workers.services.system import System
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store import pools
from workers.store.database import Session


def required(system: System, session: Session, workspace: WorkspaceSpec) -> str | None:
    """Return what a run of a workspace requires, as :func:`requirement` does."""
    return requirement(system, workspace, *pools.with_programs(session, workspace.pool))


def requirement(system: System, workspace: WorkspaceSpec, pool: PoolSpec, programs: PoolPrograms) -> str | None:
    """Return what a run of a workspace requires: what the workspace says, or else its pool.

    Raises :class:`UnknownVersion` where no agent of the pool has it. A pool whose agents are not known is asked later.
    """
    wanted = workspace.terraform or pool.terraform
    if wanted is not None:
        expect_available(system, pool, programs, wanted)
    return wanted


def expect_available(system: System, pool: PoolSpec, programs: PoolPrograms, requirement: str) -> None:
    """Raise :class:`UnknownVersion` where it is known that no agent of a pool has what is required."""
    if not programs.meeting(requirement) and programs.tell_of(system.pods(pool).template(pool)):
        raise UnknownVersion(no_such_program(requirement, pool.name, programs.programs))
