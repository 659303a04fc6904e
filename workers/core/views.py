"""The three views of a pool that reconcile compares: runs in the database, agents in the slot map, pods listed.

Each view has a clock of its own, and a time is compared with its own clock alone: the control plane's for what it
wrote into the database, Redis's for agents and leases. A pod comes with its age, by its cluster's clock. So clocks that
disagree make nothing look old.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from workers.core.lifecycle import RunStatus
from workers.core.pods import Pod
from workers.protocol.leases import AgentRecord, CancelMode, Lease


@dataclass(frozen=True, slots=True)
class HeldRun:
    """A run that holds a slot, by the database. Its times are by the runs' clock.

    ``started``: its agent has reported that it redeemed ``token``, whatever the slot map remembers of that.
    """

    id: str
    status: RunStatus
    agent: str
    token: str
    changed_at: float
    started: bool = False
    deadline: float | None = None
    confirm_until: float | None = None
    remind_at: float | None = None
    cancel: CancelMode | None = None


@dataclass(frozen=True)
class Views:
    """The three views of one pool at one moment.

    ``map_now`` is Redis's time, and that of ``watched_since``, since when the map has been watched without a gap;
    ``runs_now`` is the control plane's. Both are seconds since the epoch. ``cordoned``: the nodes that take no new
    pods; None where that is not known.
    """

    runs: Sequence[HeldRun]
    agents: Sequence[AgentRecord]
    pods: Sequence[Pod]
    watched_since: float
    map_now: float
    runs_now: float
    cordoned: frozenset[str] | None = None

    @cached_property
    def agent(self) -> dict[str, AgentRecord]:
        """The agents by name."""
        return {agent.name: agent for agent in self.agents}

    @cached_property
    def pod(self) -> dict[str, Pod]:
        """The pods by name."""
        return {pod.name: pod for pod in self.pods}

    @cached_property
    def lease(self) -> dict[str, Lease]:
        """The leases by run."""
        return {lease.run: lease for agent in self.agents for lease in agent.leases}

    @property
    def watched(self) -> float:
        """For how many seconds the map has been watched."""
        return self.map_now - self.watched_since

    def silence(self, agent: AgentRecord) -> float:
        """Return for how many seconds an agent was not heard while the map was watched."""
        return min(self.watched, self.map_now - agent.heartbeat_at)

    def unchanged(self, run: HeldRun) -> float:
        """Return for how many seconds a run stands as it does."""
        return self.runs_now - run.changed_at

    def held(self, lease: Lease) -> float:
        """Return for how many seconds a lease stands as it does."""
        return self.map_now - lease.since
