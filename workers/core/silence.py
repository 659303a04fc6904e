"""What a run waits for whose agent is silent, in words: silence is not death, and only its pod's end is."""

from datetime import UTC, datetime

from workers.core.pods import Pod
from workers.protocol.leases import AgentRecord


def waits_for(agent: AgentRecord, pod: Pod | None, condition: str | None = None) -> str:
    """Return since when an agent is silent, how its pod is, until when, and which command ends the wait.

    ``condition``: that of the pod's node, where it is known.
    """
    said = f"the agent {agent.name} is silent since {_moment(agent.heartbeat_at)}"
    if pod is None:
        return f"{said}, and its run waits until it is heard or its pod is gone"
    where = f" on the node {pod.node}" if pod.node else ""
    where += f" ({condition})" if pod.node and condition else ""
    said += f", and its pod is {'Terminating' if pod.deleting else 'still there'}{where}"
    if not pod.node:
        return said
    if pod.ends_at is not None:
        said += f" until the node confirms its end, in a grace period that ends at {_moment(pod.ends_at)}"
    return f"{said}; if the node is gone for good, `terraslot agent forget {agent.name} --node-is-gone` ends the wait"


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
