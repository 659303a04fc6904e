"""What reconcile may have done, as values: decided in :mod:`workers.core.reconcile`, performed by the services."""

from dataclasses import dataclass
from enum import StrEnum

from workers.core.pods import Pod
from workers.core.views import HeldRun
from workers.protocol.leases import CancelMode, Lease


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete a pod that failed, never registered or has been silent for too long."""

    pod: Pod
    reason: str
    failed_to_start: bool = False


@dataclass(frozen=True, slots=True)
class FinishRemoval:
    """Delete the pod of an idle agent that was claimed by a process that died before it deleted the pod."""

    pod: Pod
    claim: str


@dataclass(frozen=True, slots=True)
class DrainAgent:
    """Give an agent no further runs: its pod is ending, its pool drains, or its version is not supported.

    ``cordon``: its node takes no pods, and the drain ends with that.
    """

    agent: str
    reason: str = "its pod is ending"
    cordon: bool = False


@dataclass(frozen=True, slots=True)
class UndrainAgent:
    """Give runs again to an agent that was drained for its node, which takes pods again."""

    agent: str


@dataclass(frozen=True, slots=True)
class DeregisterAgent:
    """Remove an agent whose pod is gone from the map, which requeues or fails the runs that it held."""

    agent: str
    instance_id: str


@dataclass(frozen=True, slots=True)
class ReleaseLease:
    """Release a slot that is held for a run which does not hold it by the database."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class RequeueOrFail:
    """Plan a run anew, or fail it: no agent executes it. ``lease``: what is left in the map, to be released then."""

    run: HeldRun
    reason: str
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class CancelRun:
    """Cancel a run: that was asked for, or its time is over, and the lease does not say so yet."""

    run: HeldRun
    mode: CancelMode
    reason: str


class Repair(StrEnum):
    """What is done about a run and its lease where both say how."""

    EXPIRE = "expire"  # the run was not confirmed in time
    REMIND = "remind"  # the run is not confirmed yet, and expires soon
    REVERT_CONFIRMATION = "revert confirmation"  # it stopped half-way: running in the map, waiting in the database
    RESEND_ORDER = "resend order"  # it is not redeemed yet, and may be lost; its token starts it once at most
    REVOKE_ORDER = "revoke order"  # it was not redeemed in time: revoke the lease, and plan the run anew
    PAUSE_DEADLINE = "pause deadline"  # the agent that keeps the plan is silent: an apply's time stands still
    RESUME_DEADLINE = "resume deadline"  # the agent is heard again: the apply has its full time from now on


@dataclass(frozen=True, slots=True)
class RepairRun:
    """Do what ``repair`` says about a run that has a lease."""

    repair: Repair
    run: HeldRun
    lease: Lease


Action = (
    DeletePod | FinishRemoval | DrainAgent | UndrainAgent | DeregisterAgent | ReleaseLease | RequeueOrFail | CancelRun
    | RepairRun
)  # fmt: skip
