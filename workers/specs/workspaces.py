"""A workspace's configuration."""

from __future__ import annotations

from typing import Self, assert_never

from pydantic import BaseModel, ConfigDict, Field, model_validator

from workers.core.approval import Approval
from workers.core.pools import PoolPolicy
from workers.protocol.kinds import Phase
from workers.protocol.names import Name
from workers.protocol.programs import Required
from workers.protocol.sources import (
    ArchiveSource,
    DirectorySource,
    Environment,
    GitSource,
    Source,
    Value,
    Variables,
    without_credentials,
)


class WorkspaceTimeouts(Value):
    """How long the phases of a workspace's runs may take, in seconds; None means the pool's time."""

    plan: float | None = Field(default=None, gt=0)
    apply: float | None = Field(default=None, gt=0)


class WorkspaceSpec(BaseModel):
    """The configuration of a workspace. ``confirm_timeout`` is in seconds; None means the pool's.

    ``sensitive``: the names of its sensitive variables; their values are stored elsewhere, encrypted. ``terraform``:
    the program and version that its runs require, as in ``terraform ~> 1.9``; None means what the pool requires.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Name
    pool: Name = "default"
    source: Source
    variables: Variables = {}
    environment: Environment = {}
    sensitive: tuple[str, ...] = ()
    auto_apply: bool = False
    confirm_timeout: int | None = Field(default=None, ge=60, le=30 * 86400)
    approval: Approval = Approval()
    timeouts: WorkspaceTimeouts = WorkspaceTimeouts()
    terraform: Required | None = None

    @model_validator(mode="after")
    def _somebody_approves(self) -> Self:
        if self.auto_apply and self.approval.is_required:
            raise ValueError("auto_apply leaves nobody to approve a plan: choose it, or approval")
        return self

    def timeout(self, phase: Phase, pool: PoolPolicy) -> float:
        """Return how many seconds a phase may take in a pool."""
        match phase:
            case Phase.PLAN:
                own, others = self.timeouts.plan, pool.timeouts.plan
            case Phase.APPLY:
                own, others = self.timeouts.apply, pool.timeouts.apply
            case _:
                assert_never(phase)
        return others if own is None else own

    @property
    def shown(self) -> WorkspaceSpec:
        """The configuration without a password in its URL, which earlier versions accepted there."""
        match self.source:
            case DirectorySource():
                return self
            case GitSource(url=url) | ArchiveSource(url=url):
                source = self.source.model_copy(update={"url": without_credentials(url)})
                return self.model_copy(update={"source": source})
            case _:
                assert_never(self.source)
