"""Whose lock a run has met, and whether its holder lives. Pure.

Terraform writes no run's name into a lock, but the user and the host that it runs as, and the time by that host's
clock. Each phase of a run has reported both. A host that has its agent's name is a pod's: what runs there is the
agent's, and no other pod has that name again. On a shared machine, people may run Terraform, too: there, a lock is a
phase's only if it was taken while the phase executed. Of several phases, it is that of the last one that began before
it was taken.
"""

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from workers.core.lifecycle import EXECUTING, EventDetail, RunNote, RunStatus
from workers.protocol.states import DeadHolder, StateLock

_HOST = 63  # characters that a pod's host name has of its pod's name
_STARTED = (RunNote.PLAN_STARTED, RunNote.APPLY_STARTED)


class Event(Protocol):
    """What happened to a run."""

    @property
    def at(self) -> datetime: ...  # noqa: D102
    @property
    def event(self) -> str: ...  # noqa: D102
    @property
    def status(self) -> RunStatus: ...  # noqa: D102
    @property
    def detail(self) -> EventDetail | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Executed:
    """A phase that an agent has begun: since when, by the agent's clock, and until when, by the control plane's.

    ``until`` is None while it executes. ``silent``: its agent has reported no end, and may execute it until it is gone.
    ``behind``: seconds that the agent's clock seems to be behind; it is ahead of that, by as much as the report of the
    start took.
    """

    run: str
    status: RunStatus
    agent: str
    locks_as: str
    since: float
    until: float | None = None
    silent: bool = False
    behind: float = 0.0

    @property
    def in_a_pod(self) -> bool:
        """Whether its host is its agent's alone."""
        return self.locks_as.rpartition("@")[2] == self.agent[:_HOST]


def executed(run: str, events: Iterable[Event]) -> Iterator[Executed]:
    """Yield the phases of a run that its agents have reported the start of."""
    began: Executed | None = None
    for event in events:
        detail = event.detail or {}
        if began is not None and event.status is not began.status:
            yield _ended(began, event.at.timestamp(), silent=began.silent)
            began = None
        if began is not None and event.event == RunNote.END_NOT_REPORTED:
            began = _ended(began, None, silent=True)
        locks_as, clock = detail.get("locks_as"), detail.get("clock")
        if event.event in _STARTED and event.status in EXECUTING and locks_as and clock is not None:
            behind = event.at.timestamp() - clock
            began = Executed(run, event.status, detail.get("agent") or "", locks_as, clock, behind=behind)
    if began is not None:
        yield began


def holder(lock: StateLock, phases: Sequence[Executed]) -> Executed | None:
    """Return the phase whose Terraform has taken a lock; None where that is not certain."""
    taken = lock.at
    if taken is None:
        return None
    may_be = [each for each in phases if each.locks_as == lock.who and each.since <= taken]
    last = max(may_be, key=lambda each: each.since, default=None)
    if last is None or last.in_a_pod or last.until is None or taken <= last.until:
        return last
    return None


def dead_holders(phases: Sequence[Executed], *, gone: Callable[[Executed], bool]) -> Iterator[DeadHolder]:
    """Yield whose locks of a state need not be waited for, as :func:`holder` would tell them. ``gone``: of silent ones.

    A phase has taken none after its end by its own clock, nor what the next one may have taken that names itself so.
    """
    for phase in phases:
        if phase.until is None or (phase.silent and not gone(phase)):
            continue
        next_ones = (each.since for each in phases if each.locks_as == phase.locks_as and each.since > phase.since)
        until = min([phase.until - phase.behind, *next_ones])
        if until > phase.since:
            yield DeadHolder(who=phase.locks_as, since=phase.since, until=until)


def _ended(phase: Executed, until: float | None, *, silent: bool) -> Executed:
    return replace(phase, until=until, silent=silent)


def sentence(lock: StateLock, holding: Executed | None, *, alive: bool) -> str:
    """Say who holds a lock, since when, and what can be done."""
    by = f"The state is locked by {lock.who or 'somebody'} since {lock.created or 'an unknown time'} ({lock.operation})"
    if holding is None:
        return (
            f"{by}. No run of this system is known to hold that lock. Where you know that its holder is dead, "
            f"`terraform force-unlock {shlex.quote(lock.id)}` in an initialised copy of the configuration ends it."
        )
    phase = EXECUTING[holding.status]
    if alive:
        return f"{by}. That is the {phase} of run {holding.run}, which is not known to have ended: wait for it."
    return f"{by}. That was the {phase} of run {holding.run}, which is over, and its Terraform is dead."
