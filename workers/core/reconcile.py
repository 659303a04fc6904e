"""What to do where three views disagree: pods listed, agents in the slot map, runs in the database.

:func:`reconcile` compares and names actions; workers.services.scaling.reconcile performs them. The views are read in
the order runs, agents, pods: what holds a slot was in the map before it was in the database, and an agent that
registered had a pod, so that reading in this order never makes something look gone that is only new.

An apply that may have started is never repeated (F9). A workspace is freed only when the processes of its run are
known to be gone (F12): runs are ended once their pod is no longer listed, and a pod is listed while any process of
it lives. Silence is counted from when somebody last began to watch, so that neither an unreachable nor an emptied
Redis makes anybody look dead (F8).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from workers.core.lifecycle import RunStatus
from workers.core.pods import Pod, PodPhase
from workers.core.pools import PoolPolicy
from workers.protocol.leases import AgentRecord, CancelMode, Lease, SlotState
from workers.protocol.version import OLDEST_AGENT

# How long two views may differ since one write follows the other, in seconds.
CONSISTENCY_GRACE = 10.0
# How long an agent may take beyond a phase's deadline before somebody else acts, in seconds.
KILL_GRACE = 60.0
# Who was heard so lately lives, in seconds; a busy agent beats every second.
RECENT_HEARTBEAT = 5.0


@dataclass(frozen=True, slots=True)
class HeldRun:
    """A run that holds a slot, by the database. ``changed_at``, ``deadline``, ``confirm_until``: epoch seconds.

    ``started``: its agent has told that it redeemed ``token``, whatever the slot map remembers of that.
    """

    id: str
    status: RunStatus
    agent: str
    token: str
    changed_at: float
    started: bool = False
    deadline: float | None = None
    confirm_until: float | None = None
    cancel: CancelMode | None = None


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete a pod that failed, never registered or has been silent for too long."""

    pod: Pod
    reason: str
    failed_to_start: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class FinishRemoval:
    """Delete the pod of an idle agent that was claimed for it by somebody who has not finished."""

    pod: Pod
    claim: str


@dataclass(frozen=True, slots=True)
class DrainAgent:
    """Give an agent no further runs: its pod is ending, or its version is not supported."""

    agent: str
    reason: str = "its pod is ending"


@dataclass(frozen=True, slots=True)
class DeregisterAgent:
    """Remove an agent whose pod is gone from the map, which ends or requeues the runs it held."""

    agent: str
    instance_id: str


@dataclass(frozen=True, slots=True)
class RequeueOrFail:
    """A run holds a slot in the database while nobody executes it: plan it anew, or fail it.

    ``lease`` is what the slot map still has of it, to be released once the run has been decided about.
    """

    run: HeldRun
    reason: str
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class RevokeOrder:
    """An order was not redeemed in time: take its lease back and plan the run anew."""

    run: HeldRun
    lease: Lease


@dataclass(frozen=True, slots=True)
class PauseDeadline:
    """The agent that is to apply the plan it keeps is silent: no time counts for its order until it is heard."""

    run: HeldRun


@dataclass(frozen=True, slots=True)
class ResumeDeadline:
    """An agent is heard again whose order was held: its time begins now."""

    run: HeldRun


@dataclass(frozen=True, slots=True)
class ResendOrder:
    """An order was not redeemed yet and may have been lost: send it again. Its token lets it start once at most."""

    run: HeldRun
    lease: Lease


@dataclass(frozen=True, slots=True)
class RevertConfirmation:
    """A confirmation stopped half-way: its slot is running in the map while the run still waits."""

    run: HeldRun
    lease: Lease


@dataclass(frozen=True, slots=True)
class ReleaseLease:
    """A slot is held for a run that does not hold it by the database."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class ExpireRun:
    """Nobody confirmed in time."""

    run: HeldRun


@dataclass(frozen=True, slots=True)
class CancelRun:
    """A cancel was asked for, or the time is over, and the lease does not say so yet."""

    run: HeldRun
    mode: CancelMode
    reason: str


Action = (
    DeletePod
    | FinishRemoval
    | DrainAgent
    | DeregisterAgent
    | RequeueOrFail
    | RevokeOrder
    | PauseDeadline
    | ResumeDeadline
    | ResendOrder
    | RevertConfirmation
    | ReleaseLease
    | ExpireRun
    | CancelRun
)


@dataclass(frozen=True)
class Views:
    """The three views of one pool. ``watched_since``: since when the map was looked at without a gap."""

    runs: Sequence[HeldRun]
    agents: Sequence[AgentRecord]
    pods: Sequence[Pod]
    watched_since: float
    leases: dict[str, Lease] = field(init=False)

    def __post_init__(self) -> None:
        leases = {lease.run: lease for agent in self.agents for lease in agent.leases}
        object.__setattr__(self, "leases", leases)


def empty_list_is_suspicious(views: Views, now: float) -> bool:
    """Whether not one pod is listed while a busy agent was just heard: then it is the list that is wrong.

    A namespace that does not exist lists no pods either, and so does one that belongs to somebody else.
    """
    return not views.pods and any(
        agent.leases and now - agent.heartbeat_at < RECENT_HEARTBEAT for agent in views.agents
    )


def reconcile(views: Views, policy: PoolPolicy, now: float) -> list[Action]:
    """Return what has to be done so that the three views agree. An empty list means that they do."""
    return [
        *_pods(views, policy, now),
        *_agents(views),
        *_runs(views, policy, now),
        *_leases(views, now),
    ]


def _pods(views: Views, policy: PoolPolicy, now: float) -> Iterator[Action]:
    agents = {agent.name: agent for agent in views.agents}
    for pod in views.pods:
        agent = agents.get(pod.name)
        if pod.deleting:
            if agent is not None and agent.available:
                yield DrainAgent(agent.name)
        elif pod.phase in (PodPhase.FAILED, PodPhase.SUCCEEDED):
            # One that ended well had registered, and has been forgotten since at its own word.
            failed_to_start = agent is None and pod.phase is PodPhase.FAILED
            yield DeletePod(pod, pod.reason or f"it has {pod.phase}", failed_to_start=failed_to_start)
        elif agent is None:
            waited = now - max(pod.created_at, views.watched_since)
            if waited > policy.limits.start_deadline:
                reason = f"it did not register within {policy.limits.start_deadline:g} s"
                detail = f" ({pod.reason})" if pod.reason else ""
                yield DeletePod(pod, reason + detail, failed_to_start=True)
        elif agent.claim is not None and not agent.leases:
            yield FinishRemoval(pod, agent.claim)
        elif agent.protocol < OLDEST_AGENT:
            yield from _unsupported(pod, agent)
        else:
            silence = now - max(agent.heartbeat_at, views.watched_since)
            if silence > policy.timeouts.dead:
                yield DeletePod(pod, f"it has been silent for {silence:.0f} s")


def _unsupported(pod: Pod, agent: AgentRecord) -> Iterator[Action]:
    """Drain an agent of a version that this control plane does not support; then delete its pod once it holds nothing.

    Like a failed start, so that creation backs off: the pool's image makes the next pod like this one.
    """
    reason = f"its agent has version {agent.protocol} of the protocol, and {OLDEST_AGENT} is the oldest supported"
    if agent.available:
        yield DrainAgent(agent.name, reason)
    elif not agent.leases:
        yield DeletePod(pod, f"{reason}: update the pool's image", failed_to_start=True)


def _agents(views: Views) -> Iterator[Action]:
    listed = {pod.name for pod in views.pods}
    for agent in views.agents:
        if agent.name not in listed:
            yield DeregisterAgent(agent.name, agent.instance_id)


def _runs(views: Views, policy: PoolPolicy, now: float) -> Iterator[Action]:
    listed = {pod.name for pod in views.pods}
    registered = {agent.name for agent in views.agents}
    for run in views.runs:
        lease = views.leases.get(run.id)
        if lease is not None:
            yield from _held(run, lease, views, policy, now)
        elif run.agent not in listed and run.agent not in registered:
            yield RequeueOrFail(run, f"its agent {run.agent} is gone")
        elif run.agent in registered and now - run.changed_at > CONSISTENCY_GRACE:
            yield RequeueOrFail(run, f"its agent {run.agent} no longer knows of it")


def _held(run: HeldRun, lease: Lease, views: Views, policy: PoolPolicy, now: float) -> Iterator[Action]:
    if run.status is RunStatus.APPLY_PENDING:
        yield from _waiting(run, lease, now)
    elif lease.lost_since is not None:
        yield from _lost(run, lease, lease.lost_since, views)
    elif run.cancel is not None and lease.cancel not in (run.cancel, CancelMode.KILL):
        yield CancelRun(run, run.cancel, "its cancel was asked for")
    elif not _is_taken(run, lease):
        yield from _ordered(run, lease, views, policy, now)
    elif _is_held(run):
        yield ResumeDeadline(run)
    elif _is_overdue(run, policy, now) and lease.cancel is not CancelMode.KILL:
        yield CancelRun(run, CancelMode.KILL, "its time is over and its agent has not ended it")


def _is_taken(run: HeldRun, lease: Lease) -> bool:
    # The database may know of what Redis lost in a crash.
    return lease.redeemed or (run.started and run.token == lease.token)


def _is_held(run: HeldRun) -> bool:
    return run.status is RunStatus.APPLYING and run.deadline is None


def _ordered(run: HeldRun, lease: Lease, views: Views, policy: PoolPolicy, now: float) -> Iterator[Action]:
    if run.status is RunStatus.APPLYING and _holder(lease, views).silent:
        if not _is_held(run):
            yield PauseDeadline(run)
        return
    held, waited = _is_held(run), now - max(lease.since, run.changed_at, views.watched_since)
    if held:
        yield ResumeDeadline(run)
    if waited > policy.timeouts.redeem and not held:
        yield RevokeOrder(run, lease)
    elif lease.token == run.token and (held or waited > min(CONSISTENCY_GRACE, policy.timeouts.redeem / 2)):
        yield ResendOrder(run, lease)


def _holder(lease: Lease, views: Views) -> AgentRecord:
    return next(agent for agent in views.agents if agent.name == lease.agent)


def _lost(run: HeldRun, lease: Lease, since: float, views: Views) -> Iterator[Action]:
    # Only a later heartbeat can tell: the one that missed the token may have been on its way when it was redeemed,
    # and who is not heard since may execute it all the time.
    if _holder(lease, views).heartbeat_at - since > CONSISTENCY_GRACE:
        pod = next((pod for pod in views.pods if pod.name == lease.agent), None)
        why = f" ({pod.reason})" if pod and pod.reason else ""
        yield RequeueOrFail(run, f"its agent {run.agent} was restarted and no longer executes it{why}", lease)


def _is_overdue(run: HeldRun, policy: PoolPolicy, now: float) -> bool:
    return run.deadline is not None and now > run.deadline + policy.timeouts.interrupt + KILL_GRACE


def _waiting(run: HeldRun, lease: Lease, now: float) -> Iterator[Action]:
    if run.cancel is not None:
        yield CancelRun(run, run.cancel, "its cancel was asked for")
    elif run.confirm_until is not None and now >= run.confirm_until:
        yield ExpireRun(run)
    elif lease.state is SlotState.RUNNING and not lease.redeemed and now - lease.since > CONSISTENCY_GRACE:
        yield RevertConfirmation(run, lease)


def _leases(views: Views, now: float) -> Iterator[Action]:
    holding = {run.id for run in views.runs}
    for run, lease in views.leases.items():
        if run not in holding and now - lease.since > CONSISTENCY_GRACE:
            yield ReleaseLease(lease)


def orphaned_pods(pods: Sequence[Pod], agents: Sequence[AgentRecord]) -> list[DeletePod | DrainAgent]:
    """Return what becomes of pods whose pool was deleted: they drain, and go once they hold nothing."""
    holding = {agent.name: agent for agent in agents if agent.leases}
    actions: list[DeletePod | DrainAgent] = []
    for pod in pods:
        if pod.deleting:
            continue
        if pod.name not in holding:
            actions.append(DeletePod(pod, f"its pool {pod.pool} was deleted"))
        elif holding[pod.name].available:
            actions.append(DrainAgent(pod.name))
    return actions
