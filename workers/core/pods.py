"""A pod as its cluster lists it, and which pods the cluster may not evict."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from workers.protocol.leases import AgentRecord


class PodPhase(StrEnum):
    """Kubernetes' pod phases; a local process uses the same words."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod. ``uid`` tells it from other pods of its name: a deletion states the uid that it expects.

    ``age``: seconds since its creation, by its cluster's clock, when it was listed. ``deleting``: its deletion was
    asked for and is under way. ``reason``: why it waits or failed, in the cluster's words. ``safe_to_evict``: the
    cluster may evict it; None where its annotations contradict one another. ``controlled``: a controller of the
    cluster, such as a ReplicaSet, replaces it when it is deleted. ``template`` names the configuration that it was made
    from, where that is known. ``node`` runs it, where there are nodes. ``ends_at``: when its grace period ends, if it
    is deleting; in seconds since the epoch, by its cluster's clock.
    """

    name: str
    uid: str
    pool: str
    age: float
    phase: PodPhase
    deleting: bool = False
    reason: str | None = None
    safe_to_evict: bool | None = True
    controlled: bool = False
    template: str | None = None
    node: str | None = None
    ends_at: float | None = None

    @property
    def living(self) -> bool:
        """Whether it runs or will, and is to stay."""
        return not self.deleting and self.phase in (PodPhase.PENDING, PodPhase.RUNNING)


@dataclass(frozen=True, slots=True)
class SafeToEvict:
    """Whether the cluster may evict a pod from now on."""

    pod: Pod
    safe: bool


def safe_to_evict_changes(pods: Sequence[Pod], agents: Sequence[AgentRecord]) -> list[SafeToEvict]:
    """Return what to change so that the cluster may evict idle pods only. Pods that are ending stay as they are."""
    busy = {agent.name for agent in agents if agent.leases}
    wanted = (SafeToEvict(pod, pod.name not in busy) for pod in pods if pod.living)
    return [change for change in wanted if change.pod.safe_to_evict is not change.safe]
