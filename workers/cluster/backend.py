"""What every kind of pool offers to the pod manager, the autoscaler and reconcile."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from workers.cluster.kubernetes.deployments import Deployments
from workers.core.pods import Pod, SafeToEvict
from workers.protocol.errors import TerraslotError
from workers.specs.pools import PoolSpec

Pods = list[Pod]  # inside the protocol, list is a method


class PodBackend(Protocol):
    """Single pods of a pool: listed, created and deleted one by one; each call is safe to repeat.

    Every method raises :class:`~workers.core.errors.Unavailable` if the cluster could not be asked or did not
    answer: that means "unknown", never "gone". What the cluster refuses for good, in its own words, is a
    :class:`~workers.core.errors.PodRefused`.

    ``keeps_state``: the pods work on a disk that keeps the state of workspaces without a remote backend.
    ``moves_pods``: the cluster may evict pods, or move them to other nodes. ``list_is_authoritative``: an empty list
    means that there are no pods; elsewhere it may mean that the wrong place was asked.
    """

    keeps_state: bool
    moves_pods: bool
    list_is_authoritative: bool

    @property
    def deployments(self) -> Deployments | None:
        """The Deployments whose pods a pool may adopt; None where the backend has none."""

    def list(self, pool: str) -> Pods:
        """Return every pod of ``pool`` that exists, the failed and the deleting ones too.

        A pod exists as long as anything that it started may still be running.
        """

    def orphaned_pods(self, pools: Collection[str]) -> Pods:
        """Return the pods of this control plane that belong to none of ``pools``. Very new pods may be missing."""

    def template(self, spec: PoolSpec) -> str:
        """Return by what pods are known that this control plane makes of this configuration."""

    def create(self, spec: PoolSpec, name: str) -> None:
        """Create the pod ``name`` in the pool of ``spec``. A pod of that name that exists is left as it is."""

    def create_all(self, spec: PoolSpec, names: Sequence[str]) -> dict[str, TerraslotError]:
        """Create several pods; return by name those that could not be created, each with its error."""

    def delete(self, pod: Pod, *, force: bool = False) -> Pod | None:
        """Ask for the end of exactly this life of a pod: SIGTERM, and after its grace period SIGKILL.

        ``force`` kills at once. Returns without waiting: the pod as it is while it ends, or None where nothing of this
        life of it is left.
        """

    def set_safe_to_evict(self, changes: Sequence[SafeToEvict]) -> dict[str, TerraslotError]:
        """Tell the cluster which pods it may evict; return the errors by the name of their pod.

        A pod that is gone is no error.
        """

    def put_secret(self, spec: PoolSpec, content: str) -> None:
        """Make ``content`` the Secret that the agents of a pool read, as one file; nothing where it is that already."""

    def delete_secret(self, spec: PoolSpec) -> None:
        """Delete the Secret of a pool that has no agents any more; nothing where there is none, or not the pool's."""

    def check(self, spec: PoolSpec) -> None:
        """Try out whether pods of this configuration can be created, without creating one.

        Raises what :meth:`create` would raise, and :class:`~workers.core.errors.InvalidRequest` for what would only
        keep a pod from starting.
        """
