"""A pool's configuration: its policy, and what kind of pods it has."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import model_validator

from workers.core.pools import PoolPolicy
from workers.specs.kubernetes import KubernetesSpec


class PoolSpec(PoolPolicy):
    """What a person says of a pool.

    ``sensitive`` are the names of variables that all its workspaces get, and whose values are kept elsewhere, encrypted.
    ``draining``: its agents finish what they hold and are given nothing more, until somebody says otherwise.
    ``kubernetes`` describes the pods of a pool of type ``kubernetes``, and there is none in any other.
    """

    type: Literal["local", "kubernetes"] = "local"
    sensitive: tuple[str, ...] = ()
    draining: bool = False
    kubernetes: KubernetesSpec | None = None

    @model_validator(mode="after")
    def _pods_fit_type(self) -> Self:
        if self.type == "kubernetes" and self.kubernetes is None:
            raise ValueError("a pool of type 'kubernetes' needs a section 'kubernetes' with at least the agents' image")
        if self.type != "kubernetes" and self.kubernetes is not None:
            raise ValueError(f"the section 'kubernetes' is for pools of that type; this one is of type {self.type!r}")
        return self

    @property
    def deployment(self) -> str | None:
        """The Deployment that creates and deletes the pods of this pool instead of the platform, if one does."""
        return self.kubernetes.deployment if self.kubernetes else None

    @property
    def adopting(self) -> bool:
        """Whether that Deployment is being taken over. Who owns which of the pods then says nothing of who stays."""
        return self.kubernetes is not None and self.kubernetes.adopting

    @property
    def single_pods_leave(self) -> bool:
        """Whether pods that no Deployment controls are to go, since one runs this pool."""
        return self.deployment is not None and not self.adopting

    @property
    def grace_seconds(self) -> int:
        """From SIGTERM to SIGKILL for a Kubernetes pod, in seconds: what the longest apply may take, unless set."""
        if self.kubernetes is not None and self.kubernetes.grace_seconds is not None:
            return self.kubernetes.grace_seconds
        return math.ceil(self.timeouts.apply + self.timeouts.interrupt)
