"""The part of a pool's configuration that decisions are made from: how many agents, and how long things may take."""

from typing import Self

from pydantic import Field, model_validator

from workers.protocol.names import Name
from workers.protocol.sources import Value


class PoolLimits(Value):
    """How far and how fast a pool scales. Times are seconds."""

    min_agents: int = Field(default=0, ge=0, le=10_000, description="Agents it always has.")
    max_agents: int = Field(default=3, ge=1, le=10_000, description="Agents it has at most.")
    step: int = Field(
        default=1_000, ge=1, le=1_000,
        description="Agents that one decision adds at most for runs that wait; the minimum is filled at once.",
    )  # fmt: skip
    idle_timeout: float = Field(default=360, ge=0, description="How long an agent is idle before it may be removed.")
    start_deadline: float = Field(default=300, gt=0, description="A pod that has not registered by then is replaced.")

    @model_validator(mode="after")
    def _min_fits_max(self) -> Self:
        if self.min_agents > self.max_agents:
            raise ValueError(
                f"min_agents ({self.min_agents}) is above max_agents ({self.max_agents}): lower one or raise the other"
            )
        return self


class PoolTimeouts(Value):
    """How long each part of a run may take, in seconds."""

    plan: float = Field(default=3600, gt=0, description="How long a plan may take.")
    apply: float = Field(default=4 * 3600, gt=0, description="How long an apply may take.")
    interrupt: float = Field(default=300, gt=0, description="From SIGINT to SIGKILL after a timeout.")
    redeem: float = Field(default=60, gt=0, description="How long an agent may take to redeem an order.")
    confirm: int = Field(default=24 * 3600, ge=60, le=30 * 86400, description="How long a plan waits for a person.")
    silent: float = Field(default=30, gt=0, description="An agent silent for so long is given no run.")
    dead: float = Field(default=300, gt=0, description="The pod of an agent silent for so long is deleted.")

    @model_validator(mode="after")
    def _silent_before_dead(self) -> Self:
        if self.silent >= self.dead:
            raise ValueError(f"silent ({self.silent} s) must be shorter than dead ({self.dead} s)")
        return self


class PoolPolicy(Value):
    """What decisions know of a pool.

    ``attempts``: how often a run is planned at most, should it lose its agents. ``draining``: the pool's agents finish
    their runs and get no others until it is undrained.
    """

    name: Name
    limits: PoolLimits = PoolLimits()
    timeouts: PoolTimeouts = PoolTimeouts()
    attempts: int = Field(default=3, ge=1, le=20)
    draining: bool = False
