"""The life of a run: its kinds, statuses and events, and the one table of legal transitions.

Whoever changes a run's status asks :func:`next_status`; an event that the table does not know in that status
raises :class:`IllegalTransition`. docs/runs.md is generated from the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from workers.core.errors import IllegalTransition


class RunStatus(StrEnum):
    """Where a run stands. In upper case, the Celery state of its task while the run is not over."""

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


class RunEvent(StrEnum):
    """Something that happened to a run and may change its status."""

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


OVER = frozenset(
    {
        RunStatus.SUCCEEDED,
        RunStatus.FAILED,
        RunStatus.DISCARDED,
        RunStatus.EXPIRED,
        RunStatus.CANCELLED,
    }
)
HOLDING = frozenset({RunStatus.PLANNING, RunStatus.APPLY_PENDING, RunStatus.APPLYING})
EXECUTING = frozenset({RunStatus.PLANNING, RunStatus.APPLYING})

_S, _E = RunStatus, RunEvent
TRANSITIONS: Mapping[tuple[RunStatus, RunEvent], RunStatus] = MappingProxyType(
    {
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
)


def next_status(status: RunStatus, event: RunEvent) -> RunStatus:
    """Return the status that follows ``event`` in ``status``.

    Raises :class:`IllegalTransition` where the table has no such entry: a finished run, above all, stays finished.
    """
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        raise IllegalTransition(f"A run that is {status} can't become anything by '{event}'.") from None


def after_agent_lost(status: RunStatus, *, may_have_applied: bool, attempt: int, attempts: int) -> RunEvent:
    """Return what the loss of its agent means for a run that held a slot there.

    An apply that may have started is never repeated by itself (F9); a plan is made anew, at most
    ``attempts`` times in all. ``attempt`` counts from 1.
    """
    if status is RunStatus.APPLYING and may_have_applied:
        return RunEvent.FAILED
    if attempt >= attempts:
        return RunEvent.FAILED
    return RunEvent.AGENT_LOST
