"""A run's stages from what happened to it: when it was queued, planned, waited for people, applied and ended. Pure.

Each status has its stage, and a stage lasts from the event that led to its status until the next one that leads to
another. So the stages follow one another without a gap, and a run that was planned anew has the same stage twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from workers.core.lifecycle import RunEvent, RunNote, RunStatus
from workers.core.state_locks import Event


class StageName(StrEnum):
    """A part of a run's way. ``confirmation``: its plan waits for a person."""

    QUEUED = "queued"
    PLAN = "plan"
    CONFIRMATION = "confirmation"
    APPLY = "apply"
    ENDED = "ended"


STAGES: Mapping[RunStatus, StageName] = {
    RunStatus.PENDING: StageName.QUEUED,
    RunStatus.PLANNING: StageName.PLAN,
    RunStatus.APPLY_PENDING: StageName.CONFIRMATION,
    RunStatus.APPLYING: StageName.APPLY,
    RunStatus.SUCCEEDED: StageName.ENDED,
    RunStatus.FAILED: StageName.ENDED,
    RunStatus.DISCARDED: StageName.ENDED,
    RunStatus.EXPIRED: StageName.ENDED,
    RunStatus.CANCELLED: StageName.ENDED,
}
_STARTED = (RunNote.PLAN_STARTED, RunNote.APPLY_STARTED)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a run. ``end``: None while it lasts, and of the one that is the end.

    ``attempt`` counts from 1; of a queued stage it is the one that comes. ``started``: when Terraform started, after
    the slot was given at ``begin``. ``event`` led to it, asked for by ``actor``, ``why``. ``waited_for``: what kept a
    queued run.
    """

    stage: StageName
    attempt: int
    begin: datetime
    end: datetime | None
    started: datetime | None
    agent: str | None
    slot: int | None
    event: str
    actor: str | None
    why: str | None
    waited_for: str | None = None

    def seconds(self, now: datetime) -> float:
        """Return how long it has lasted at ``now``; the end lasts no time."""
        if self.stage is StageName.ENDED:
            return 0.0
        return max(0.0, ((self.end or now) - self.begin).total_seconds())


def timeline(events: Iterable[Event]) -> tuple[Stage, ...]:
    """Return the stages of a run, whose events are given in their order."""
    stages: list[Stage] = []
    status, attempt = None, 0
    for event in events:
        detail = event.detail or {}
        if event.status is not status:
            status = event.status
            attempt += event.event == RunEvent.DISPATCHED
            if stages:
                stages[-1] = replace(stages[-1], end=event.at)
            stages.append(_stage(event, attempt, stages))
        elif event.event in _STARTED and stages[-1].started is None:
            agent = detail.get("agent") or stages[-1].agent
            stages[-1] = replace(stages[-1], started=event.at, agent=agent)
    return tuple(stages)


def durations(stages: Iterable[Stage], now: datetime) -> dict[StageName, float]:
    """Return for how many seconds a run was in each stage, in all its attempts; of those that it was in."""
    found: dict[StageName, float] = {}
    for stage in stages:
        if stage.stage is not StageName.ENDED:
            found[stage.stage] = found.get(stage.stage, 0.0) + stage.seconds(now)
    return found


def waited_for(busy: Sequence[str]) -> str:
    """Say what a run waited for that was queued: the runs of its workspace that ended meanwhile, or else a slot."""
    if not busy:
        return "a slot of its pool"
    return f"{'run' if len(busy) == 1 else 'runs'} {', '.join(busy)} of its workspace"


def _stage(event: Event, attempt: int, before: Sequence[Stage]) -> Stage:
    detail, stage = event.detail or {}, STAGES[event.status]
    # The plan waits, and is applied, where it was made.
    holds = stage in (StageName.CONFIRMATION, StageName.APPLY) and before
    agent, slot = (before[-1].agent, before[-1].slot) if holds else (None, None)
    return Stage(
        stage,
        attempt + 1 if stage is StageName.QUEUED else attempt,
        event.at,
        None,
        None,
        detail.get("agent") or agent,
        slot if detail.get("slot") is None else detail.get("slot"),
        str(event.event),
        detail.get("actor"),
        detail.get("why") or detail.get("message"),
    )
