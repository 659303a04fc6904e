"""What to do where three views disagree: pods listed, agents in the slot map, runs in the database.

:func:`reconcile` compares them and names actions; workers.services.scaling.reconcile performs them. The views are read
in the order runs, agents, pods: a slot is taken in the map before the database says so, and an agent had a pod before
it registered. In this order something new never looks as if it were gone.

An apply that may have started is never repeated (F9). A workspace is freed only when the processes of its run are
known to be gone (F12): a run ends once its pod is no longer listed, and a pod is listed while any of its processes
lives. Silence is counted from the time since which the map is watched, so that no agent looks dead because Redis was
away or came back empty (F8).
"""

from collections.abc import Iterator

from workers.core.actions import (
    Action,
    CancelRun,
    DeletePod,
    DeregisterAgent,
    DrainAgent,
    FinishRemoval,
    ReleaseLease,
    Repair,
    RepairRun,
    RequeueOrFail,
    UndrainAgent,
)
from workers.core.lifecycle import RunStatus
from workers.core.pods import Pod, PodPhase
from workers.core.pools import PoolPolicy
from workers.core.views import HeldRun, Views
from workers.protocol.leases import AgentRecord, CancelMode, Lease, SlotState
from workers.protocol.version import OLDEST_AGENT

# How long two views may differ, in seconds: the two writes of one operation are milliseconds apart, and a heartbeat
# that was under way meanwhile is followed by the next after a second, or after five from an idle agent.
CONSISTENCY_GRACE = 10.0
# How long an agent has after a phase's deadline and its grace period, in seconds: it kills terraform, reads what is
# left of its output and repeats its report every second until a worker of the control plane has taken it.
KILL_GRACE = 60.0
# An agent with a heartbeat this recent is alive, in seconds: a busy agent sends one every second.
RECENT_HEARTBEAT = 5.0


def empty_list_is_suspicious(views: Views) -> bool:
    """Whether no pod is listed while a busy agent was just heard: then it is the list that is wrong.

    A namespace that does not exist lists no pods either, and so does that of another control plane.
    """
    heard = (agent for agent in views.agents if views.map_now - agent.heartbeat_at < RECENT_HEARTBEAT)
    return not views.pods and any(agent.leases for agent in heard)


def reconcile(views: Views, policy: PoolPolicy) -> list[Action]:
    """Return what has to be done so that the three views agree. An empty list means that they do."""
    return [*_pods(views, policy), *_agents(views, policy), *_runs(views, policy), *_leases(views)]


def _pods(views: Views, policy: PoolPolicy) -> Iterator[Action]:
    for pod in views.pods:
        agent = views.agent.get(pod.name)
        if pod.deleting:
            if agent is not None and (agent.available or agent.cordoned):
                yield DrainAgent(agent.name)
        elif pod.phase in (PodPhase.FAILED, PodPhase.SUCCEEDED):
            # An agent that stopped has deregistered itself: its pod succeeded, and it had started.
            failed_to_start = agent is None and pod.phase is PodPhase.FAILED
            yield DeletePod(pod, pod.reason or f"it has {pod.phase}", failed_to_start=failed_to_start)
        elif agent is None:
            if min(views.watched, pod.age) > policy.limits.start_deadline:
                reason = f"it did not register within {policy.limits.start_deadline:g} s"
                detail = f" ({pod.reason})" if pod.reason else ""
                yield DeletePod(pod, reason + detail, failed_to_start=True)
        elif agent.claim is not None and not agent.leases:
            yield FinishRemoval(pod, agent.claim)
        elif agent.protocol < OLDEST_AGENT:
            yield from _unsupported(pod, agent)
        elif (silence := views.silence(agent)) > policy.timeouts.dead:
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


def _agents(views: Views, policy: PoolPolicy) -> Iterator[Action]:
    for agent in views.agents:
        pod = views.pod.get(agent.name)
        if pod is None:
            yield DeregisterAgent(agent.name, agent.instance_id)
        elif policy.draining and (agent.cordoned or not agent.draining):
            yield DrainAgent(agent.name, "its pool drains")
        elif views.cordoned is not None and not pod.deleting:
            yield from _on_node(agent, pod, views.cordoned)


def _on_node(agent: AgentRecord, pod: Pod, cordoned: frozenset[str]) -> Iterator[Action]:
    """Keep runs from a node that is being emptied: the busy agent there is the one that packing would choose (F45)."""
    if pod.node in cordoned and not agent.draining:
        yield DrainAgent(agent.name, f"its node {pod.node} takes no pods", cordon=True)
    elif pod.node not in cordoned and agent.cordoned:
        yield UndrainAgent(agent.name)


def _runs(views: Views, policy: PoolPolicy) -> Iterator[Action]:
    for run in views.runs:
        lease = views.lease.get(run.id)
        if lease is not None:
            yield from _leased(run, lease, views, policy)
        elif run.agent not in views.pod and run.agent not in views.agent:
            yield RequeueOrFail(run, f"its agent {run.agent} is gone")
        elif run.agent in views.agent and views.unchanged(run) > CONSISTENCY_GRACE:
            yield RequeueOrFail(run, f"its agent {run.agent} no longer knows of it")


def _leased(run: HeldRun, lease: Lease, views: Views, policy: PoolPolicy) -> Iterator[Action]:
    if run.status is RunStatus.APPLY_PENDING:
        yield from _waiting(run, lease, views)
    elif lease.revoked:  # by a process that died before it stored what becomes of the run
        yield RepairRun(Repair.REVOKE_ORDER, run, lease)
    elif lease.lost_since is not None:
        yield from _lost(run, lease, lease.lost_since, views)
    elif run.cancel is not None and lease.cancel not in (run.cancel, CancelMode.KILL):
        yield CancelRun(run, run.cancel, "its cancel was asked for")
    elif not (lease.redeemed or (run.started and run.token == lease.token)):  # Redis may have lost it in a crash
        yield from _ordered(run, lease, views, policy)
    elif _is_paused(run):
        yield RepairRun(Repair.RESUME_DEADLINE, run, lease)
    elif _is_overdue(run, policy, views.runs_now) and lease.cancel is not CancelMode.KILL:
        yield CancelRun(run, CancelMode.KILL, "its time is over and its agent has not ended it")


def _waiting(run: HeldRun, lease: Lease, views: Views) -> Iterator[Action]:
    if run.cancel is not None:
        yield CancelRun(run, run.cancel, "its cancel was asked for")
    elif run.confirm_until is not None and views.runs_now >= run.confirm_until:
        yield RepairRun(Repair.EXPIRE, run, lease)
    elif lease.state is SlotState.RUNNING and not lease.redeemed and views.held(lease) > CONSISTENCY_GRACE:
        yield RepairRun(Repair.REVERT_CONFIRMATION, run, lease)
    elif run.remind_at is not None and views.runs_now >= run.remind_at:
        yield RepairRun(Repair.REMIND, run, lease)


def _lost(run: HeldRun, lease: Lease, since: float, views: Views) -> Iterator[Action]:
    # Only a later heartbeat can tell: the one that missed the token may have been under way when it was redeemed, and
    # an agent that is not heard since may still execute it.
    if views.agent[lease.agent].heartbeat_at - since > CONSISTENCY_GRACE:
        pod = views.pod.get(lease.agent)
        why = f" ({pod.reason})" if pod and pod.reason else ""
        yield RequeueOrFail(run, f"its agent {run.agent} was restarted and no longer executes it{why}", lease)


def _ordered(run: HeldRun, lease: Lease, views: Views, policy: PoolPolicy) -> Iterator[Action]:
    paused = _is_paused(run)
    if run.status is RunStatus.APPLYING and views.agent[lease.agent].silent:
        if not paused:
            yield RepairRun(Repair.PAUSE_DEADLINE, run, lease)
        return
    if paused:
        yield RepairRun(Repair.RESUME_DEADLINE, run, lease)
    waited, redeem = min(views.watched, views.held(lease), views.unchanged(run)), policy.timeouts.redeem
    if waited > redeem and not paused:
        yield RepairRun(Repair.REVOKE_ORDER, run, lease)
    elif lease.token == run.token and (paused or waited > min(CONSISTENCY_GRACE, redeem / 2)):
        yield RepairRun(Repair.RESEND_ORDER, run, lease)


def _is_paused(run: HeldRun) -> bool:
    return run.status is RunStatus.APPLYING and run.deadline is None


def _is_overdue(run: HeldRun, policy: PoolPolicy, now: float) -> bool:
    return run.deadline is not None and now > run.deadline + policy.timeouts.interrupt + KILL_GRACE


def _leases(views: Views) -> Iterator[Action]:
    holding = {run.id for run in views.runs}
    for run, lease in views.lease.items():
        if run not in holding and views.held(lease) > CONSISTENCY_GRACE:
            yield ReleaseLease(lease)


def orphaned(pod: Pod, agent: AgentRecord | None) -> DeletePod | DrainAgent | None:
    """Return what is done about a pod whose pool was deleted: it drains, and is deleted once it holds nothing."""
    reason = f"its pool {pod.pool} was deleted"
    if pod.deleting:
        return None
    if agent is None or not agent.leases:
        return DeletePod(pod, reason)
    return DrainAgent(agent.name, reason) if agent.available else None
