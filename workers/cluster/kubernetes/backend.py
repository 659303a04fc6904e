"""Single pods of a Kubernetes cluster, behind the interface that all pods have.

Every list is read from etcd's own state, page by page: a pod that a stale cache does not know yet would look gone, and
what it carries be given to somebody else. Only where nothing is concluded from absence, in the search for pods of
deleted pools, is the server's cache enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from workers.cluster.kubernetes import labels
from workers.cluster.kubernetes.api import Api, Json
from workers.cluster.kubernetes.deployments import Deployments
from workers.cluster.kubernetes.manifest import pod_manifest, template_digest
from workers.cluster.kubernetes.pod_status import as_pod, eviction_patch
from workers.cluster.kubernetes.pool_secrets import PoolSecrets
from workers.cluster.kubernetes.refusals import Call, Refused, explain
from workers.core.pods import Pod, SafeToEvict
from workers.protocol.errors import InvalidRequest, TerraslotError, Unavailable
from workers.specs.pools import PoolSpec

PAGE = 500
AT_ONCE = 8
LIST_SECONDS = 60.0

Item = TypeVar("Item")
Pods = list[Pod]  # inside the class, list is a method
Page = list[Json]


class KubernetesPods:
    """The pods of one control plane in one namespace.

    ``instance`` tells this control plane from others in the namespace. ``environment``: settings for every agent, none
    of them secret.
    """

    keeps_state = False
    moves_pods = True
    list_is_authoritative = False

    def __init__(
        self, api: Api, *, instance: str = labels.TERRASLOT, environment: Mapping[str, str] | None = None
    ) -> None:
        self._api = api
        self._instance = instance
        self._environment = environment or {}
        self._secrets = PoolSecrets(api, instance)

    @property
    def deployments(self) -> Deployments:
        """The Deployments that run, or ran, pods of pools."""
        return Deployments(self._api, self._instance)

    def list(self, pool: str) -> Pods:
        """See :meth:`PodBackend.list <workers.cluster.backend.PodBackend.list>`."""
        return self._listed(labels.selector(self._instance, pool))

    def orphaned_pods(self, pools: Collection[str]) -> Pods:
        """See :meth:`PodBackend.orphaned_pods <workers.cluster.backend.PodBackend.orphaned_pods>`."""
        if not self._api.configured:
            return []  # what has never spoken to a cluster has left nothing there
        return self._listed(labels.orphan_selector(self._instance, pools), resource_version="0")

    def template(self, spec: PoolSpec) -> str:
        """See :meth:`PodBackend.template <workers.cluster.backend.PodBackend.template>`: one of the pod's labels."""
        return template_digest(spec, instance=self._instance)

    def create(self, spec: PoolSpec, name: str) -> None:
        """See :meth:`PodBackend.create <workers.cluster.backend.PodBackend.create>`."""
        self._create(spec, name)

    def create_all(self, spec: PoolSpec, names: Sequence[str]) -> dict[str, TerraslotError]:
        """See :meth:`PodBackend.create_all <workers.cluster.backend.PodBackend.create_all>`.

        What refuses one pod (a quota, a missing permission, a server that does not answer) is taken to refuse the
        rest, which is not asked for any more.
        """
        failures = _in_parallel(lambda name: self._create(spec, name), names, give_up_after=1)
        return {name: error for name, error in zip(names, failures, strict=True) if error}

    def delete(self, pod: Pod, *, force: bool = False) -> Pod | None:
        """See :meth:`PodBackend.delete <workers.cluster.backend.PodBackend.delete>`.

        ``force`` leaves a second: with none at all the server would forget the pod while its processes still run.
        """
        options: Json = {"preconditions": {"uid": pod.uid}, **({"gracePeriodSeconds": 1} if force else {})}
        call = Call("delete", "pods", self._api.namespace, pod.name)
        try:
            left = self._api.call(call, self._api.core.delete_namespaced_pod, pod.name, call.namespace, body=options)
        except Refused as error:
            if error.refusal.not_found or error.refusal.conflict:
                return None
            raise explain(error.refusal, call) from error
        return _unless_gone(left)

    def set_safe_to_evict(self, changes: Sequence[SafeToEvict]) -> dict[str, TerraslotError]:
        """See :meth:`PodBackend.set_safe_to_evict <workers.cluster.backend.PodBackend.set_safe_to_evict>`."""
        failures = _in_parallel(self._set_safe_to_evict, changes, give_up_after=3)
        return {each.pod.name: error for each, error in zip(changes, failures, strict=True) if error}

    def put_secret(self, spec: PoolSpec, content: str) -> None:
        """See :meth:`PodBackend.put_secret <workers.cluster.backend.PodBackend.put_secret>`."""
        self._secrets.put(spec.name, content)

    def delete_secret(self, spec: PoolSpec) -> None:
        """See :meth:`PodBackend.delete_secret <workers.cluster.backend.PodBackend.delete_secret>`."""
        self._secrets.delete(spec.name)

    def check(self, spec: PoolSpec) -> None:
        """See :meth:`PodBackend.check <workers.cluster.backend.PodBackend.check>`: the server tries a pod out."""
        self._create(spec, f"{spec.name}-check", dry_run="All")
        self._check_pull_secrets(spec)

    def close(self) -> None:
        """Close all connections."""
        self._api.close()

    def _create(self, spec: PoolSpec, name: str, **options: Any) -> None:
        pod = pod_manifest(spec, name, instance=self._instance, environment=self._environment)
        call = Call("create", "pods", self._api.namespace)
        try:
            self._api.call(
                call,
                self._api.core.create_namespaced_pod,
                call.namespace,
                pod,
                field_validation="Strict",
                **options,
            )
        except Refused as error:
            if not error.refusal.already_exists:
                raise explain(error.refusal, call) from error

    def _set_safe_to_evict(self, change: SafeToEvict) -> None:
        pod = change.pod
        call = Call("patch", "pods", self._api.namespace, pod.name)
        patch = eviction_patch(pod.uid, safe=change.safe)
        try:
            self._api.call(call, self._api.core.patch_namespaced_pod, pod.name, call.namespace, patch)
        except Refused as error:
            # Invalid: another life of this name, whose uid can't be changed to the one that was meant.
            if not (error.refusal.not_found or error.refusal.conflict or error.refusal.invalid):
                raise explain(error.refusal, call) from error

    def _check_pull_secrets(self, spec: PoolSpec) -> None:
        for name in spec.kubernetes.image_pull_secrets if spec.kubernetes else ():
            call = Call("get", "secrets", self._api.namespace, name)
            try:
                self._api.call(call, self._api.core.read_namespaced_secret, name, call.namespace)
            except Refused as error:
                if error.refusal.not_found:
                    raise InvalidRequest(
                        f"kubernetes.image_pull_secrets: there is no Secret {name!r} in the namespace {call.namespace}."
                    ) from error
                if not error.refusal.forbidden:  # who may not look at PoolSecrets can't tell
                    raise explain(error.refusal, call) from error

    def _listed(self, selector: str, **options: Any) -> Pods:
        """Return all pods that are selected, of one state of the cluster; a list that grew too old begins anew once."""
        call = Call("list", "pods", self._api.namespace)
        until = time.monotonic() + LIST_SECONDS
        for last in (False, True):
            try:
                return [as_pod(pod) for page in self._pages(call, selector, until, options) for pod in page]
            except Refused as error:
                if last or not error.refusal.expired:
                    raise explain(error.refusal, call) from error
        raise AssertionError("unreachable")

    def _pages(self, call: Call, selector: str, until: float, options: Json) -> Iterator[Page]:
        wanted: Json = options
        while True:
            page = self._api.call(
                call,
                self._api.core.list_namespaced_pod,
                call.namespace,
                label_selector=selector,
                limit=PAGE,
                **wanted,
            )
            yield page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return
            if time.monotonic() > until:
                raise Unavailable(f"The cluster took more than {LIST_SECONDS:g} s to {call}.")
            wanted = {"_continue": token}


def _unless_gone(left: Json) -> Pod | None:
    """Return a pod that was asked to end, or None where the server has removed it at once."""
    if left.get("kind") != "Pod":
        return None
    metadata = left["metadata"]
    at_once = metadata.get("deletionGracePeriodSeconds") == 0 and not metadata.get("finalizers")
    return None if at_once else as_pod(left)


def _in_parallel(
    work: Callable[[Item], None], items: Sequence[Item], *, give_up_after: int
) -> list[TerraslotError | None]:
    """Do ``work`` for all items, some at once; return for each the error it met.

    After so many errors the rest is not tried: a cluster that hangs would be waited for once for each.
    """
    met: list[TerraslotError] = []

    def one(item: Item) -> TerraslotError | None:
        if len(met) >= give_up_after:
            return met[-1]
        try:
            work(item)
        except TerraslotError as error:
            met.append(error)
            return error
        return None

    with ThreadPoolExecutor(max(1, min(AT_ONCE, len(items))), thread_name_prefix="kubernetes") as threads:
        return list(threads.map(one, items))
