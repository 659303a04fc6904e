"""A pod as its cluster lists it, and which pods the cluster has to leave where they are."""

from __future__ import annotations

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
    """One pod. ``uid`` names this life of it: a deletion states the uid it expects.

    ``created_at`` is in seconds since the epoch. ``deleting``: its deletion was asked for and is under way.
    ``reason``: why it waits or failed, in the cluster's words. ``protected``: it is marked so that the cluster leaves
    it where it is; None where only some of the marks are there. ``controlled``: something else in the cluster, such
    as a ReplicaSet, replaces it when it goes. ``template`` names the configuration that it was made from, where that is
    known.
    """

    name: str
    uid: str
    pool: str
    created_at: float
    phase: PodPhase
    deleting: bool = False
    reason: str | None = None
    protected: bool | None = False
    controlled: bool = False
    template: str | None = None


@dataclass(frozen=True, slots=True)
class Marking:
    """A pod whose marks are to be set or removed."""

    pod: Pod
    protected: bool


def markings(pods: Sequence[Pod], agents: Sequence[AgentRecord]) -> list[Marking]:
    """Return what has to change so that exactly the busy pods are marked. What is ending needs no mark any more."""
    busy = {agent.name for agent in agents if agent.leases}
    living = (pod for pod in pods if not pod.deleting and pod.phase in (PodPhase.PENDING, PodPhase.RUNNING))
    return [Marking(pod, pod.name in busy) for pod in living if pod.protected is not (pod.name in busy)]
