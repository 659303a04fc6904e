"""What the slot map holds, as values: slots, leases, agents, statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from workers.protocol.kinds import RunKind
from workers.protocol.programs import Program
from workers.protocol.version import programs_of, protocol_of

SLOTS_PER_AGENT = 3
APPLY_SLOT = 0
PLAN_ONLY_SLOTS = (1, 2)


class SlotState(StrEnum):
    """What a slot is doing."""

    IDLE = "idle"
    RUNNING = "running"
    RESERVED = "reserved"


class CancelMode(StrEnum):
    """How a running phase is to be ended: by one SIGINT, or by SIGKILL."""

    INTERRUPT = "interrupt"
    KILL = "kill"


class CancelOutcome(StrEnum):
    """What a cancel request met in the slot map."""

    REVOKED = "revoked"  # terraform had not started, and will not: the lease is to be released
    REQUESTED = "requested"  # terraform may be running: the agent was asked, and will report
    ABSENT = "absent"  # the run holds no slot


@dataclass(frozen=True, slots=True)
class Lease:
    """A slot held by a run.

    ``token`` fences: every change names it, and a stale one changes nothing. ``redeemed`` says that the agent has
    claimed the right to start terraform for this token, which happens once. Times are seconds since the epoch;
    ``until`` is set while the slot is reserved, ``lost_since`` while a redeemed token is neither executed nor reported
    by its agent: the next heartbeat may still name it, but after a few it never will. ``revoked``: nothing was started
    under ``token``, and nothing will be.
    """

    run: str
    kind: RunKind
    agent: str
    slot: int
    token: str
    state: SlotState
    since: float
    redeemed: bool = False
    until: float | None = None
    cancel: CancelMode | None = None
    lost_since: float | None = None
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """An agent as the slot map knows it. ``idle_since`` is None while any slot is taken.

    ``draining``: its node, an operator or itself wants its end. ``claim``: who is about to remove its pod.
    ``cordoned``: it drains because its node takes no pods, and until it does again.
    """

    name: str
    instance_id: str
    draining: bool
    silent: bool
    registered_at: float
    heartbeat_at: float
    idle_since: float | None
    leases: tuple[Lease, ...]
    claim: str | None = None
    cordoned: bool = False

    @property
    def protocol(self) -> int:
        """The version of the protocol that it registered with."""
        return protocol_of(self.instance_id)

    @property
    def programs(self) -> tuple[Program, ...]:
        """The programs that it registered with."""
        return programs_of(self.instance_id)

    @property
    def state(self) -> str:
        """What people are told of it: ``available``, ``draining`` or ``silent``."""
        return "silent" if self.silent else "draining" if self.draining else "available"

    @property
    def available(self) -> bool:
        """Whether new runs may be assigned to it."""
        return not self.draining and not self.silent and self.claim is None


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Counts of one pool, derived from its records. ``free_*`` count only agents that accept runs."""

    agents: int
    available: int
    running: int
    reserved: int
    free_apply: int
    free_plan_only: int

    @classmethod
    def of(cls, agents: Sequence[AgentRecord]) -> Self:
        """Count what all agents of a pool are at one moment."""
        leases = [lease for agent in agents for lease in agent.leases]
        taken = [{lease.slot for lease in agent.leases} for agent in agents if agent.available]
        return cls(
            agents=len(agents),
            available=len(taken),
            running=sum(lease.state is SlotState.RUNNING for lease in leases),
            reserved=sum(lease.state is SlotState.RESERVED for lease in leases),
            free_apply=sum(APPLY_SLOT not in slots for slots in taken),
            free_plan_only=sum(slot not in slots for slots in taken for slot in PLAN_ONLY_SLOTS),
        )

    @property
    def total(self) -> int:
        """All slots of all registered agents."""
        return self.agents * SLOTS_PER_AGENT

    @property
    def used(self) -> int:
        """Slots that are running or reserved."""
        return self.running + self.reserved

    @property
    def idle(self) -> int:
        """Slots that hold no run, whether or not they may be given one."""
        return self.total - self.used

    @property
    def free_plan(self) -> int:
        """Slots that a plan could take now: any free one."""
        return self.free_apply + self.free_plan_only


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """What an agent must know. Where ``registered`` is false it must register again, with what it executes.

    ``cancels`` maps tokens to how their phase is to be ended; ``drop`` names tokens it executes that hold no slot
    any more; ``repeat`` names finished tokens whose report has not been taken yet.
    """

    registered: bool
    draining: bool = False
    cancels: tuple[tuple[str, CancelMode], ...] = ()
    drop: tuple[str, ...] = ()
    repeat: tuple[str, ...] = ()
