"""The kinds of runs, the phases that agents execute, and why a run failed: words that cross the wire."""

from enum import StrEnum


class RunKind(StrEnum):
    """What a run may do: look only, or look and then change."""

    PLAN = "plan"
    PLAN_AND_APPLY = "plan_and_apply"


class Phase(StrEnum):
    """The part of a run that an agent executes at one time."""

    PLAN = "plan"
    APPLY = "apply"


class FailureReason(StrEnum):
    """Why a run failed, for people and programs that read its record."""

    TERRAFORM_FAILED = "terraform_failed"
    TIMED_OUT = "timed_out"
    AGENT_LOST = "agent_lost"
    SOURCE_UNAVAILABLE = "source_unavailable"
    AGENT_ERROR = "agent_error"
