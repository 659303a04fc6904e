"""What keeps a pool from its desired state, and runs from slots: the most pressing of what a cycle has seen.

A cycle says it anew each time, from what it has seen itself, so that nothing outlasts its cause by more than a cycle.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workers.core.pods import PodPhase
from workers.core.scaling import FAILURE_WINDOW
from workers.core.silence import waits_for
from workers.protocol.leases import AgentRecord
from workers.protocol.version import PROTOCOL
from workers.services.formatting import counted
from workers.services.pool_state import PodSnapshot
from workers.services.scaling.scale import Autoscaled
from workers.store import decisions


@dataclass(frozen=True, slots=True)
class Seen:
    """What a cycle has seen of a pool, and done."""

    snapshot: PodSnapshot
    agents: Sequence[AgentRecord]
    scaled: Autoscaled


def problem(seen: Seen) -> str | None:
    """Return the most pressing problem of a pool in one sentence; None where there is none."""
    return _first((_lost, _pending, _drains, _not_created, _not_started, _cordoned, _older, _shared), seen)


def blocked(seen: Seen) -> str | None:
    """Return what keeps a pool from more agents; None where nothing does."""
    return _first((_pending, _elsewhere, _not_created, _not_started, _lost, _cordoned), seen)


def _first(looks: Sequence[Callable[[Seen], str | None]], seen: Seen) -> str | None:
    return next((said for look in looks if (said := look(seen))), None)


def _lost(seen: Seen) -> str | None:
    """Return what runs wait for whose agent is silent while its pod ends, as on a node that is gone."""
    snapshot = seen.snapshot
    lost = [agent for agent in seen.agents if agent.silent and agent.leases]
    found = [(agent, pod) for agent in lost if (pod := snapshot.find(agent.name)) and pod.deleting]
    if not found:
        return None
    agent, pod = found[0]
    more = f" ({counted(len(found) - 1, 'more agent')} likewise)" if len(found) > 1 else ""
    return waits_for(agent, pod, snapshot.node_condition(pod)) + more


def _pending(seen: Seen) -> str | None:
    waiting = (pod for pod in seen.snapshot.pods if pod.phase is PodPhase.PENDING and pod.reason and not pod.deleting)
    return next((f"the pod {pod.name} waits: {pod.reason}" for pod in waiting), None)


def _drains(seen: Seen) -> str | None:
    return "it drains, and no run is given to it" if seen.snapshot.spec.draining else None


def _elsewhere(seen: Seen) -> str | None:
    deployment = seen.snapshot.spec.deployment
    return f"the Deployment {deployment} runs its pods, and says how many there are" if deployment else None


def _not_created(seen: Seen) -> str | None:
    """Return why pods that are missing could not be created the last time."""
    if not seen.scaled.held_back:
        return None
    snapshot = seen.snapshot
    with snapshot.system.database.read() as session:
        failed = decisions.last_failure(session, snapshot.spec.name)
    return failed.reason if failed and not failed.pod else None


def _not_started(seen: Seen) -> str | None:
    """Return why the last pod did not start, until one has: the next one that is tried says nothing yet.

    Tries follow one another within the window and one start, unless nothing needs another pod any more.
    """
    snapshot, agents = seen.snapshot, seen.agents
    system, spec, now = snapshot.system, snapshot.spec, snapshot.system.now().timestamp()
    with system.database.read() as session:
        failed = decisions.last_failed_start(session, spec.name, now - FAILURE_WINDOW - spec.limits.start_deadline)
    if failed is None:
        return None
    map_now, _ = system.slots(spec.name).watched()
    if any(map_now - agent.registered_at < now - failed.at.timestamp() for agent in agents):
        return None
    return f"no pod has started since {failed.pod} failed to: {failed.reason}"


def _cordoned(seen: Seen) -> str | None:
    pods = [pod for agent in seen.agents if agent.cordoned and (pod := seen.snapshot.find(agent.name))]
    nodes = sorted({pod.node for pod in pods if pod.node})
    if not nodes:
        return None
    which = counted(len(pods), "agent on it is", "agents on it are") if len(nodes) == 1 else "agents on them are"
    return f"{', '.join(nodes)} {'takes' if len(nodes) == 1 else 'take'} no pods: {which} given no run until that ends"


def _older(seen: Seen) -> str | None:
    older = [agent.name for agent in seen.agents if agent.protocol < PROTOCOL]
    if not older:
        return None
    named = f"{older[0]} and {len(older) - 1} more" if len(older) > 1 else older[0]
    return f"agents of an older version, {named}, are replaced when idle; should new ones be older, update the image"


def _shared(seen: Seen) -> str | None:
    user = seen.snapshot.system.settings.shared_agent_username
    return f"its agents share the Redis user {user} with those of all pools" if user else None
