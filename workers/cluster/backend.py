"""What every kind of pool offers to the pod manager, the autoscaler and reconcile."""

from __future__ import annotations

from typing import Protocol

from workers.core.pods import Pod
from workers.core.pools import PoolSpec


class PodBackend(Protocol):
    """Single pods of a pool: listed, created and deleted one by one; each call is safe to repeat.

    Every method raises :class:`~workers.core.errors.Unavailable` if the cluster could not be asked or did not
    answer: that means "unknown", never "gone".
    """

    def list(self, pool: str) -> list[Pod]:
        """Return every pod of ``pool`` that exists, the failed and the deleting ones too.

        A pod exists as long as anything that it started may still be running.
        """

    def create(self, spec: PoolSpec, name: str) -> None:
        """Create the pod ``name`` in the pool of ``spec``. A pod of that name that exists is left as it is."""

    def delete(self, pod: Pod, *, force: bool = False) -> bool:
        """Ask for the end of exactly this life of a pod: SIGTERM, and after its grace period SIGKILL.

        ``force`` kills at once. Returns without waiting; False if no pod of that name has that uid any more.
        """
