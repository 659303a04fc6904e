"""Single pods of a Kubernetes cluster, behind the interface that all pods have.

Every list is read from etcd's own state, page by page: a pod that a stale cache does not know yet would look gone, and
its runs would be given to another. The server's cache is enough for the search for orphaned pods, which concludes
nothing from absence.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from workers.cluster.backend import PodBackend, Pods
from workers.cluster.kubernetes import labels
from workers.cluster.kubernetes.api import Api, Json
from workers.cluster.kubernetes.deployments import Deployments
from workers.cluster.kubernetes.manifest import pod_manifest, pool_secret, secret_name, template_digest
from workers.cluster.kubernetes.nodes import Nodes
from workers.cluster.kubernetes.pod_status import as_pod, eviction_patch, start_problem
from workers.cluster.kubernetes.refusals import Kind
from workers.core.errors import NotPermitted, PodRefused
from workers.core.pods import Pod, SafeToEvict
from workers.protocol.errors import InvalidRequest, TerraslotError, Unavailable
from workers.specs.pools import PoolSpec

PAGE = 500  # as the API's own informers do
AT_ONCE = 8  # calls of a batch; API servers queue or refuse more of one client
# Work on a pool counts as stuck after 120 s without a change: this and one more call of 20 s leave room.
LIST_SECONDS = 60.0
_GIVE_UP_AFTER = 3  # failed patches: one or two may be the pods' own problem
# Another process wrote a Secret at the same moment: the next cycle compares again.
_LOST_RACE = (Kind.ALREADY_EXISTS, Kind.CONFLICT)


@dataclass(frozen=True)
class KubernetesPods(PodBackend):
    """The pods of one control plane in one namespace.

    ``instance`` tells this control plane from others in the namespace. ``environment``: settings for every agent, none
    of them secret.
    """

    on_this_machine = False
    moves_pods = True
    list_is_authoritative = False

    api: Api
    instance: str = labels.TERRASLOT
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def deployments(self) -> Deployments:
        """The Deployments that run, or ran, pods of pools."""
        return Deployments(self.api, self.instance)

    @cached_property
    def nodes(self) -> Nodes:
        """The nodes that run the pods."""
        return Nodes(self.api)

    def cordoned_nodes(self) -> frozenset[str] | None:
        """See :meth:`PodBackend.cordoned_nodes`."""
        return self.nodes.cordoned()

    def node_condition(self, node: str) -> str | None:
        """See :meth:`PodBackend.node_condition`."""
        return self.nodes.condition(node)

    def start_problem(self, pod: Pod) -> str | None:
        """See :meth:`PodBackend.start_problem`; None without the permission to read events."""
        try:
            selector = f"involvedObject.uid={pod.uid}"
            return start_problem(self.api.request("list", "events", field_selector=selector)["items"])
        except NotPermitted:
            return None

    def clock(self) -> float | None:
        """See :meth:`PodBackend.clock`."""
        return self.api.clock() if self.api.configured else None

    def list(self, pool: str) -> Pods:
        """See :meth:`PodBackend.list`."""
        return self._listed(labels.selector(self.instance, pool))

    def orphaned_pods(self, pools: Collection[str]) -> Pods:
        """See :meth:`PodBackend.orphaned_pods`."""
        if not self.api.configured:
            return []  # without a cluster there are no pods
        # Of this control plane: two may share a namespace, and neither may delete what is the other's.
        others = f",{labels.POOL} notin ({','.join(sorted(pools))})" if pools else ""
        return self._listed(f"{labels.INSTANCE}={self.instance},{labels.POOL}{others}", resource_version="0")

    def template(self, spec: PoolSpec) -> str:
        """See :meth:`PodBackend.template`: one of the pod's labels."""
        return template_digest(spec, instance=self.instance)

    def create(self, spec: PoolSpec, name: str, **options: Any) -> None:
        """See :meth:`PodBackend.create`; ``options`` are those of the API's request."""
        pod = pod_manifest(spec, name, instance=self.instance, environment=self.environment)
        accept = (Kind.ALREADY_EXISTS,)
        self.api.request("create", "pods", body=pod, field_validation="Strict", accept=accept, **options)

    def create_all(self, spec: PoolSpec, names: Sequence[str]) -> dict[str, TerraslotError]:
        """See :meth:`PodBackend.create_all`.

        What refuses one pod (a quota, a missing permission, a server that does not answer) would refuse the rest, which
        is not tried.
        """
        return _in_parallel({name: partial(self.create, spec, name) for name in names}, give_up_after=1)

    def delete(self, pod: Pod, *, force: bool = False) -> Pod | None:
        """See :meth:`PodBackend.delete`.

        With ``force`` the server forgets the pod at once, whatever its node says or does not say: its processes may
        still run. Only for a node that is known to be gone.
        """
        grace = {"gracePeriodSeconds": 0} if force else {}
        return _unless_gone(self.api.delete("pods", pod.name, pod.uid, **grace), self.api.now())

    def set_safe_to_evict(self, changes: Sequence[SafeToEvict]) -> dict[str, TerraslotError]:
        """See :meth:`PodBackend.set_safe_to_evict`."""
        patches = {each.pod.name: eviction_patch(each.pod.uid, safe=each.safe) for each in changes}
        calls = {name: partial(self.api.patch_pod, name, **patch) for name, patch in patches.items()}
        return _in_parallel(calls, give_up_after=_GIVE_UP_AFTER)

    def put_secret(self, spec: PoolSpec, content: str) -> None:
        """See :meth:`PodBackend.put_secret`; of two writers at once the second changes nothing.

        Raises :class:`PodRefused` where an object that is not the pool's, by its labels, has the Secret's name.
        """
        secret = pool_secret(spec.name, content, instance=self.instance)
        name = secret["metadata"]["name"]
        there = self.api.find("secrets", name)
        if not there:
            self.api.request("create", "secrets", body=secret, accept=_LOST_RACE)
        elif not self._is_of(spec.name, there):
            raise PodRefused(
                f"The Secret {name} in the namespace {self.api.namespace} is not this control plane's, and the pool "
                f"{spec.name!r} needs its name: delete or rename it."
            )
        elif there.get("data") != secret["data"]:
            secret["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"]
            self.api.request("update", "secrets", name, body=secret, accept=(*_LOST_RACE, Kind.NOT_FOUND))

    def delete_secret(self, spec: PoolSpec) -> None:
        """See :meth:`PodBackend.delete_secret`."""
        name = secret_name(spec.name, instance=self.instance)
        there = self.api.find("secrets", name)
        if self._is_of(spec.name, there):
            self.api.delete("secrets", name, there["metadata"]["uid"])

    def check(self, spec: PoolSpec) -> None:
        """See :meth:`PodBackend.check`: the server tries a pod out."""
        self.create(spec, f"{spec.name}-check", dry_run="All")
        for name in spec.kubernetes.image_pull_secrets if spec.kubernetes else ():
            try:
                found = self.api.find("secrets", name)
            except (NotPermitted, PodRefused):
                continue  # without permission to read Secrets nothing can be said
            if not found:
                raise InvalidRequest(
                    f"kubernetes.image_pull_secrets: no Secret {name!r} in the namespace {self.api.namespace}. "
                    "Create it, or correct its name."
                )

    def close(self) -> None:
        """Close all connections."""
        self.api.close()

    def _is_of(self, pool: str, secret: Json) -> bool:
        return labels.of_pool(self.instance, pool).items() <= (secret.get("metadata", {}).get("labels") or {}).items()

    def _listed(self, selector: str, **options: Any) -> Pods:
        """Return all pods that are selected, of one state of the cluster; a list that expired is begun anew once."""
        until = time.monotonic() + LIST_SECONDS
        pods = self._read_pages(selector, until, options, accept=(Kind.EXPIRED,))
        return pods if pods is not None else self._read_pages(selector, until, options) or []

    def _read_pages(self, selector: str, until: float, options: Json, accept: Sequence[Kind] = ()) -> Pods | None:
        found: Pods = []
        while True:
            page = self.api.request("list", "pods", label_selector=selector, limit=PAGE, accept=accept, **options)
            if not page:
                return None
            found += [as_pod(pod, self.api.now()) for pod in page["items"]]
            token = page["metadata"].get("continue")
            if not token:
                return found
            if time.monotonic() > until:
                raise Unavailable(f"The cluster took more than {LIST_SECONDS:g} s to list pods.")
            options = {"_continue": token}


def _unless_gone(left: Json, now: float) -> Pod | None:
    """Return a pod whose end was asked for, or None where the server has removed it at once."""
    if left.get("kind") != "Pod":
        return None
    metadata = left["metadata"]
    at_once = metadata.get("deletionGracePeriodSeconds") == 0 and not metadata.get("finalizers")
    return None if at_once else as_pod(left, now)


def _in_parallel(calls: Mapping[str, Callable[[], None]], *, give_up_after: int) -> dict[str, TerraslotError]:
    """Make these calls, some at once; return the errors by the names of their calls.

    After ``give_up_after`` errors the rest is not tried: each call to a cluster that hangs takes its whole time limit.
    """
    met: list[TerraslotError] = []

    def one(call: Callable[[], None]) -> TerraslotError | None:
        if len(met) >= give_up_after:
            return met[-1]
        try:
            call()
        except TerraslotError as error:
            met.append(error)
            return error
        return None

    with ThreadPoolExecutor(max(1, min(AT_ONCE, len(calls))), thread_name_prefix="kubernetes") as threads:
        return {name: error for name, error in zip(calls, threads.map(one, calls.values()), strict=True) if error}
