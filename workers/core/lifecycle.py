"""The state machine of a run, and everything that is keyed by its status: one place to read, one place to extend.

:func:`next_status` is the only way from one status to another; an event that :data:`TRANSITIONS` does not know in
that status raises :class:`IllegalTransition`. docs/runs.md and the states in ARCHITECTURE.md are generated from here.

A new status needs an entry in each table below, a migration that lets the database store it, and a style and words in
workers/cli. tests/core/test_lifecycle.py fails where one is missing.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypedDict

from workers.core.errors import IllegalTransition, RunCancelled, RunDiscarded, RunError, RunExpired, RunFailed
from workers.protocol.kinds import Phase


class RunStatus(StrEnum):
    """Where a run stands."""

    PENDING = "pending"
    PLANNING = "planning"
    APPLY_PENDING = "apply_pending"
    APPLYING = "applying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DISCARDED = "discarded"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Whether nothing can happen to the run any more."""
        return self in OVER

    @property
    def holds_slot(self) -> bool:
        """Whether a run in this status owns a lease in the slot map."""
        return self in HOLDING

    @property
    def celery_state(self) -> str:
        """The Celery state of the run's task."""
        if self is RunStatus.SUCCEEDED:
            return "SUCCESS"
        return "FAILURE" if self.is_over else self.value.upper()


class RunEvent(StrEnum):
    """Something that moves a run from one status to another."""

    DISPATCHED = "dispatched"
    PLANNED = "planned"
    PLANNED_AUTO_APPLY = "planned_auto_apply"
    PLAN_FINISHED = "plan_finished"
    CONFIRMED = "confirmed"
    DISCARDED = "discarded"
    EXPIRED = "expired"
    APPLIED = "applied"
    FAILED = "failed"
    CANCELLED = "cancelled"
    AGENT_LOST = "agent_lost"


class RunNote(StrEnum):
    """Something that is entered among a run's events and leaves its status as it is."""

    SUBMITTED = "submitted"
    PLAN_STARTED = "plan started"
    APPLY_STARTED = "apply started"
    COMMIT_RESOLVED = "commit resolved"
    PLAN_READ = "plan read"
    CANCEL_REQUESTED = "cancel requested"
    REQUEST_REFUSED = "request refused"
    APPROVED = "approved"
    CONFIRMATION_EXTENDED = "confirmation extended"
    CONFIRMATION_DUE = "confirmation expires soon"
    CONFIRMATION_REVERTED = "confirmation not completed"
    DEADLINE_PAUSED = "order waits for its silent agent"
    DEADLINE_RESUMED = "agent heard again"
    REPORT_REJECTED = "report rejected"
    KILL_REQUESTED = "kill requested"
    END_NOT_REPORTED = "end not reported"
    DELIVERY_GIVEN_UP = "delivery given up"
    STATE_PUSHED = "rescued state pushed"
    STATE_GIVEN_UP = "rescued state given up"
    LOCK_ENDED = "state lock ended"


class EventDetail(TypedDict, total=False):
    """What an event or a note says beside its name.

    ``attempt``: the one whose phase a note is about. ``task``: the id of the message that asked for a decision, and
    ``refused``: the class of the error that it was answered with. ``actor``: who asked, and ``message``: why;
    ``until``: when a confirmation expires, in ISO 8601. ``locks_as``: the user and host that a phase's Terraform names
    in a lock, ``clock``: that host's time then, in seconds. ``by``: the run that has done it.
    """

    agent: str | None
    slot: int | None
    commit: str | None
    attempt: int
    mode: str
    why: str
    task: str
    refused: str
    actor: str
    message: str
    until: str
    locks_as: str | None
    clock: float | None
    by: str


HOLDING = frozenset({RunStatus.PLANNING, RunStatus.APPLY_PENDING, RunStatus.APPLYING})
# The phase that an agent executes while the run is in this status.
EXECUTING: Mapping[RunStatus, Phase] = {RunStatus.PLANNING: Phase.PLAN, RunStatus.APPLYING: Phase.APPLY}
# How an ending other than success is told to a caller: the error that its task raises, and what became of the run.
ENDINGS: Mapping[RunStatus, tuple[type[RunError], str]] = {
    RunStatus.FAILED: (RunFailed, "failed"),
    RunStatus.CANCELLED: (RunCancelled, "was cancelled"),
    RunStatus.DISCARDED: (RunDiscarded, "was discarded: its plan was refused"),
    RunStatus.EXPIRED: (RunExpired, "expired: nobody confirmed its plan in time"),
}
OVER = frozenset({RunStatus.SUCCEEDED, *ENDINGS})
# The order in which a caller sees the statuses of one attempt. PENDING is last: it comes before the first attempt,
# and after an attempt that lost its agent.
STEPS = (RunStatus.PLANNING, RunStatus.APPLY_PENDING, RunStatus.APPLYING, RunStatus.PENDING)
# What a status means to a person; docs/runs.md shows it.
MEANINGS: Mapping[RunStatus, str] = {
    RunStatus.PENDING: "it waits for a slot, or for the run before it in its workspace",
    RunStatus.PLANNING: "an agent plans; the run holds a slot",
    RunStatus.APPLY_PENDING: "its plan waits for a person; slot 0 of the agent that made it is reserved",
    RunStatus.APPLYING: "the agent that made the plan applies it",
    RunStatus.SUCCEEDED: "done",
    RunStatus.FAILED: "Terraform, or the platform, could not do what was asked; `error` has the words",
    RunStatus.DISCARDED: "somebody refused the plan",
    RunStatus.EXPIRED: "nobody confirmed in time",
    RunStatus.CANCELLED: "somebody cancelled it",
}

_S, _E = RunStatus, RunEvent
TRANSITIONS: Mapping[tuple[RunStatus, RunEvent], RunStatus] = {
    (_S.PENDING, _E.DISPATCHED): _S.PLANNING,
    (_S.PENDING, _E.CANCELLED): _S.CANCELLED,
    (_S.PENDING, _E.FAILED): _S.FAILED,
    (_S.PLANNING, _E.PLAN_FINISHED): _S.SUCCEEDED,
    (_S.PLANNING, _E.PLANNED): _S.APPLY_PENDING,
    (_S.PLANNING, _E.PLANNED_AUTO_APPLY): _S.APPLYING,
    (_S.PLANNING, _E.FAILED): _S.FAILED,
    (_S.PLANNING, _E.CANCELLED): _S.CANCELLED,
    (_S.PLANNING, _E.AGENT_LOST): _S.PENDING,
    (_S.APPLY_PENDING, _E.CONFIRMED): _S.APPLYING,
    (_S.APPLY_PENDING, _E.DISCARDED): _S.DISCARDED,
    (_S.APPLY_PENDING, _E.EXPIRED): _S.EXPIRED,
    (_S.APPLY_PENDING, _E.CANCELLED): _S.CANCELLED,
    (_S.APPLY_PENDING, _E.FAILED): _S.FAILED,
    (_S.APPLY_PENDING, _E.AGENT_LOST): _S.PENDING,
    (_S.APPLYING, _E.APPLIED): _S.SUCCEEDED,
    (_S.APPLYING, _E.FAILED): _S.FAILED,
    (_S.APPLYING, _E.CANCELLED): _S.CANCELLED,
    (_S.APPLYING, _E.AGENT_LOST): _S.PENDING,
}


def next_status(status: RunStatus, event: RunEvent) -> RunStatus:
    """Return the status that ``event`` leads to. Raises :class:`IllegalTransition` where the table has none."""
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        raise IllegalTransition(f"A run that is {status} can't become anything by '{event}'.") from None


def after_agent_lost(status: RunStatus, *, may_have_applied: bool, attempt: int, attempts: int) -> RunEvent:
    """Return the event that the loss of its agent is for a run that held a slot there.

    An apply that may have started is never repeated by itself (F9); a plan is made anew, up to ``attempts`` times in
    all. ``attempt`` counts from 1.
    """
    repeatable = attempt < attempts and not (status is RunStatus.APPLYING and may_have_applied)
    return RunEvent.AGENT_LOST if repeatable else RunEvent.FAILED
