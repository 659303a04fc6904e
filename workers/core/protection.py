"""Which pods the cluster has to leave where they are: exactly those with a slot that is running or reserved.

A mark that stays on an idle pod would keep its node from ever being drained (F30); a busy pod without one would be
moved by whatever tidies up the nodes. So the marks follow the slot map, and are compared with what is observed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.core.pods import Pod, PodPhase
from workers.core.slots import AgentRecord


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
