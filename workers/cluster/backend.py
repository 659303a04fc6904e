"""The interface of pods, whatever runs them."""

from collections.abc import Collection, Iterator, Sequence
from typing import ClassVar, Protocol

from workers.cluster.kubernetes.deployments import Deployments
from workers.core.pods import Pod, SafeToEvict
from workers.protocol.errors import TerraslotError
from workers.specs.pools import PoolSpec

Pods = list[Pod]  # inside the protocol, list is a method


class PodBackend(Protocol):
    """Lists, creates and deletes the pods of pools one by one; each call is safe to repeat.

    Every method raises :class:`~workers.protocol.errors.Unavailable` if the cluster could not be asked or did not
    answer: that means "unknown", never "gone". What the cluster refuses for good is a
    :class:`~workers.core.errors.PodRefused` with its message.

    ``on_this_machine``: the pods have its directories, and it keeps the state of workspaces without a remote backend.
    ``moves_pods``: the cluster may evict pods, or move them to other nodes. ``list_is_authoritative``: an empty list
    means that there are no pods; elsewhere it may mean that the wrong place was asked.
    """

    on_this_machine: ClassVar[bool]
    moves_pods: ClassVar[bool]
    list_is_authoritative: ClassVar[bool]

    @property
    def deployments(self) -> Deployments | None:
        """The Deployments whose pods a pool may adopt; None where the backend has none."""
        return None

    def clock(self) -> float | None:
        """Return the cluster's time in seconds since the epoch; None where it is this machine's, or none is set up."""
        return None

    def cordoned_nodes(self) -> frozenset[str] | None:
        """Return the names of the nodes that take no new pods; None where that is not known."""
        return None

    def node_condition(self, node: str) -> str | None:  # noqa: ARG002
        """Return ``Ready``, ``NotReady`` or ``deleted`` for the node of a pod; None where that is not known."""
        return None

    def start_problem(self, pod: Pod) -> str | None:  # noqa: ARG002
        """Return why a pod does not start that says nothing of it itself; None where nothing is known."""
        return None

    def list(self, pool: str) -> Pods:
        """Return every pod of ``pool`` that exists, the failed and the deleting ones too.

        A pod exists as long as a process of it may be running.
        """

    def orphaned_pods(self, pools: Collection[str]) -> Pods:
        """Return the pods of this control plane that belong to none of ``pools``. Very new pods may be missing."""

    def template(self, spec: PoolSpec) -> str:
        """Return the :attr:`Pod.template` of the pods that this control plane creates from this configuration."""

    def create(self, spec: PoolSpec, name: str) -> None:
        """Create the pod ``name`` in the pool of ``spec``, unless there is a pod of that name."""

    def create_all(self, spec: PoolSpec, names: Sequence[str]) -> dict[str, TerraslotError]:
        """Create several pods; return the errors by the name of their pod."""
        failed: dict[str, TerraslotError] = {}
        for name in names:
            try:
                self.create(spec, name)
            except TerraslotError as error:
                failed[name] = error
        return failed

    def delete(self, pod: Pod, *, force: bool = False) -> Pod | None:
        """End this pod, by its uid: SIGTERM, and after its grace period SIGKILL.

        ``force`` kills at once; a pod of a node that does not answer is forgotten.

        Returns without waiting: the pod as it is while it ends, or None where nothing of it is left.
        """

    def set_safe_to_evict(self, changes: Sequence[SafeToEvict]) -> dict[str, TerraslotError]:  # noqa: ARG002
        """Tell a cluster that evicts pods which it may evict; return the errors by the name of their pod.

        A pod that is gone is no error.
        """
        return {}

    def left_reports(self, pool: str) -> Iterator[bytes]:  # noqa: ARG002
        """Yield the reports that dead agents had kept and nobody sends; each goes when the next one is asked for."""
        return iter(())

    def put_secret(self, spec: PoolSpec, content: str) -> None:
        """Write the Secret that the agents of a pool read, as one file; nothing where it has this content."""

    def delete_secret(self, spec: PoolSpec) -> None:
        """Delete the Secret of a pool without agents; nothing where there is none, or where it is not the pool's."""

    def check(self, spec: PoolSpec) -> None:
        """Try whether pods of this configuration can be created, without creating one.

        Raises what :meth:`create` would raise, and :class:`~workers.protocol.errors.InvalidRequest` for what would keep
        a created pod from starting.
        """
