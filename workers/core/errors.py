"""The errors of the control plane that a person can meet, each with one sentence: what happened, and what to do."""

from workers.protocol.errors import InvalidRequest, TerraslotError, Unavailable


class UnknownWorkspace(InvalidRequest):
    """No workspace has this name."""


class UnknownPool(InvalidRequest):
    """No pool has this name."""


class UnknownAgent(InvalidRequest):
    """No agent has this name."""


class UnknownVersion(InvalidRequest):
    """No agent of the pool has the Terraform that a run requires; the message says which ones they have."""


class UnknownSource(InvalidRequest):
    """The source of a workspace is not there, or has no such ref; the message has its server's words."""


class UnknownRun(InvalidRequest):
    """No run, or more than one, has this id."""


class Unreadable(TerraslotError):
    """A stored configuration can't be read by this version: what it configures is concerned, and nothing else."""


class NameTaken(InvalidRequest):
    """A workspace or pool of this name exists already."""


class StillInUse(TerraslotError):
    """A workspace or pool can't be deleted while runs depend on it."""


class AlreadyLocked(TerraslotError):
    """Somebody else has locked the workspace; the message says who, since when, and why."""


class IllegalTransition(TerraslotError):
    """The run is not in a status in which this can happen."""


class NotWaiting(TerraslotError):
    """A confirmation or refusal of a run that does not wait for one."""


class ApprovalRefused(TerraslotError):
    """A confirmation by somebody who may not give it, as the workspace has it. Nothing has changed."""


class AgentGone(TerraslotError):
    """The agent that kept the plan is gone, and the plan with it."""


class AgentSilent(TerraslotError):
    """The agent that keeps the plan is not heard at this time. Nothing has changed: try again later."""


class NoRescuedState(TerraslotError):
    """The run has left no state that could be shown, pushed or given up."""


class LockNotEnded(TerraslotError):
    """The lock of a state may not be ended: its holder is not known to be dead. Nothing has changed."""


class QuotaExceeded(Unavailable):
    """The cluster's quota has no room for another pod of this pool: try again later."""


class NotPermitted(Unavailable):
    """The cluster does not permit this control plane to do what is needed."""


class PodRefused(TerraslotError):
    """The cluster refuses pods of this configuration; the message has its own words."""


class RunError(TerraslotError):
    """The run ended otherwise than with success. The base of what ``AsyncResult.get()`` raises for a run."""


class RunFailed(RunError):
    """Terraform, or the platform, could not do what was asked; the message has Terraform's own words."""


class RunCancelled(RunError):
    """Somebody cancelled the run."""


class RunDiscarded(RunError):
    """Somebody looked at the plan and refused it."""


class RunExpired(RunError):
    """Nobody confirmed the plan in time."""
