"""A pool's configuration: its policy, and the backend of its pods."""

import math
from typing import Literal, Self

from pydantic import model_validator

from workers.core.pools import PoolPolicy
from workers.protocol.programs import Required
from workers.specs.kubernetes import KubernetesSpec


class PoolSpec(PoolPolicy):
    """The configuration of a pool.

    ``sensitive``: the names of variables for all its workspaces; their values are stored elsewhere, encrypted.
    ``kubernetes``: the pods of a pool of type ``kubernetes``; other pools have no such section. ``terraform``: the
    program and version that runs require whose workspaces name none, as in ``terraform ~> 1.9``.
    """

    type: Literal["local", "kubernetes"] = "local"
    sensitive: tuple[str, ...] = ()
    kubernetes: KubernetesSpec | None = None
    terraform: Required | None = None

    @model_validator(mode="after")
    def _pods_fit_type(self) -> Self:
        if self.type == "kubernetes" and self.kubernetes is None:
            raise ValueError("a pool of type 'kubernetes' needs a section 'kubernetes' with at least the agents' image")
        if self.type != "kubernetes" and self.kubernetes is not None:
            raise ValueError(f"the section 'kubernetes' is for pools of that type; this one is of type {self.type!r}")
        return self

    @property
    def deployment(self) -> str | None:
        """The Deployment that creates and deletes the pods of this pool instead of the platform, if there is one."""
        return self.kubernetes.deployment if self.kubernetes else None

    @property
    def adopting(self) -> bool:
        """Whether the pods of that Deployment are being adopted: single pods are then no sign of a release."""
        return self.kubernetes is not None and self.kubernetes.adopting

    @property
    def releases_single_pods(self) -> bool:
        """Whether single pods are released, since a Deployment runs this pool."""
        return self.deployment is not None and not self.adopting

    @property
    def grace_seconds(self) -> int:
        """Seconds from SIGTERM to SIGKILL for a Kubernetes pod: by default what the longest apply may take."""
        if self.kubernetes is not None and self.kubernetes.grace_seconds is not None:
            return self.kubernetes.grace_seconds
        return math.ceil(self.timeouts.apply + self.timeouts.interrupt)
