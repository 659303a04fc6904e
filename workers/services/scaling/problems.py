"""What keeps a pool from its desired state, as its status says it: the most pressing of what a cycle has seen."""

from collections.abc import Sequence

from workers.core.pods import PodPhase
from workers.core.scaling import FAILURE_WINDOW
from workers.core.silence import waits_for
from workers.protocol.leases import AgentRecord
from workers.protocol.version import PROTOCOL
from workers.services.formatting import counted
from workers.services.pool_state import PodSnapshot
from workers.store import decisions

_Agents = Sequence[AgentRecord]


def problem(snapshot: PodSnapshot, agents: _Agents) -> str | None:
    """Return the most pressing problem of a pool in one sentence; None where there is none."""
    looks = (_lost, _pending, _drains, _not_started, _cordoned, _older, _shared)
    return next((said for look in looks if (said := look(snapshot, agents))), None)


def _lost(snapshot: PodSnapshot, agents: _Agents) -> str | None:
    """Return what runs wait for whose agent is silent while its pod ends, as on a node that is gone."""
    lost = [agent for agent in agents if agent.silent and agent.leases]
    found = [(agent, pod) for agent in lost if (pod := snapshot.find(agent.name)) and pod.deleting]
    if not found:
        return None
    agent, pod = found[0]
    more = f" ({counted(len(found) - 1, 'more agent')} likewise)" if len(found) > 1 else ""
    return waits_for(agent, pod, snapshot.node_condition(pod)) + more


def _pending(snapshot: PodSnapshot, agents: _Agents) -> str | None:  # noqa: ARG001 - each look is asked alike
    waiting = (pod for pod in snapshot.pods if pod.phase is PodPhase.PENDING and pod.reason and not pod.deleting)
    return next((f"the pod {pod.name} waits: {pod.reason}" for pod in waiting), None)


def _drains(snapshot: PodSnapshot, agents: _Agents) -> str | None:  # noqa: ARG001
    return "it drains, and no run is given to it" if snapshot.spec.draining else None


def _not_started(snapshot: PodSnapshot, agents: _Agents) -> str | None:
    """Return why the last pod did not start, until one has: the next one that is tried says nothing yet.

    Tries follow one another within the window and one start, unless nothing needs another pod any more.
    """
    system, spec, now = snapshot.system, snapshot.spec, snapshot.system.now().timestamp()
    with system.database.read() as session:
        failed = decisions.last_failed_start(session, spec.name, now - FAILURE_WINDOW - spec.limits.start_deadline)
    if failed is None:
        return None
    map_now, _ = system.slots(spec.name).watched()
    if any(map_now - agent.registered_at < now - failed.at.timestamp() for agent in agents):
        return None
    return f"no pod has started since {failed.pod} failed to: {failed.reason}"


def _cordoned(snapshot: PodSnapshot, agents: _Agents) -> str | None:
    pods = [pod for agent in agents if agent.cordoned and (pod := snapshot.find(agent.name))]
    nodes = sorted({pod.node for pod in pods if pod.node})
    if not nodes:
        return None
    which = counted(len(pods), "agent on it is", "agents on it are") if len(nodes) == 1 else "agents on them are"
    return f"{', '.join(nodes)} {'takes' if len(nodes) == 1 else 'take'} no pods: {which} given no run until that ends"


def _older(snapshot: PodSnapshot, agents: _Agents) -> str | None:  # noqa: ARG001
    older = [agent.name for agent in agents if agent.protocol < PROTOCOL]
    if not older:
        return None
    named = f"{older[0]} and {len(older) - 1} more" if len(older) > 1 else older[0]
    return f"agents of an older version, {named}, are replaced when idle; should new ones be older, update the image"


def _shared(snapshot: PodSnapshot, agents: _Agents) -> str | None:  # noqa: ARG001
    user = snapshot.system.settings.shared_agent_username
    return f"its agents share the Redis user {user} with those of all pools" if user else None
