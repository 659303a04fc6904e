"""Adopts the pods of a Deployment as single pods, and restores the Deployment, without ending a pod.

A Deployment that is deleted with the policy ``Orphan`` leaves its ReplicaSets, and those, deleted likewise, leave their
pods: the garbage collector removes the owner of each and changes nothing else. Lowering a replica count would let
Kubernetes choose the pods to kill; removing labels would make the ReplicaSet replace what it lost.

Every step looks at the cluster and does what is left to do: all of it can be repeated after a failure at any point. The
Deployment is kept in a ConfigMap before it is deleted.

Permissions beyond those of every day: get, create and delete of Deployments, list and delete of ReplicaSets, get,
create, update and delete of ConfigMaps.
"""

import json

from workers.cluster.kubernetes import labels
from workers.cluster.kubernetes.api import Api, Json
from workers.cluster.kubernetes.refusals import Kind
from workers.protocol.errors import InvalidRequest, Unavailable

TEMPLATE_HASH = "pod-template-hash"
_MANIFEST = "deployment.json"
_OF_THE_CONTROLLER = ("deployment.kubernetes.io/revision", "kubectl.kubernetes.io/last-applied-configuration")


class Deployments:
    """The Deployments of pools in one namespace."""

    def __init__(self, api: Api, instance: str) -> None:
        self._api = api
        self._instance = instance

    def label_pods(self, pool: str, name: str) -> None:
        """Give the pods of a Deployment their pool's labels, by which they are listed."""
        deployment = self._read(name) or self._kept(pool, name)
        if not deployment:
            return
        sets = {each["metadata"]["uid"] for each in self._replica_sets(deployment)}
        ours = labels.of_pool(self._instance, pool)
        for pod in self._list("pods", deployment):
            labelled = ours.items() <= (pod["metadata"].get("labels") or {}).items()
            if _controller(pod) in sets and not labelled:
                self._label(pod, ours)

    def expect(self, pool: str, name: str) -> None:
        """Raise :class:`InvalidRequest` where there is no such Deployment, and none whose adoption has begun."""
        if not self._read(name) and not self._kept(pool, name):
            raise self._absent(name)

    def adopt(self, pool: str, name: str) -> str | None:
        """Do the next steps of making the pods of a Deployment single pods; None once that is done.

        Returns what the cluster has yet to carry out, for a message; then call again. Raises :class:`InvalidRequest`
        where there is no such Deployment.
        """
        if deployment := self._read(name):
            if not _is_deleting(deployment):
                self._keep(pool, deployment)
                self.label_pods(pool, name)
                self._orphan("deployments", deployment)
            return f"the Deployment {name} to leave its ReplicaSets"
        kept = self._kept(pool, name)
        if not kept:
            raise self._absent(name)
        if sets := self._replica_sets(kept):
            self.label_pods(pool, name)
            for each in sets:
                if not _is_deleting(each):
                    self._orphan("replicasets", each)
            return f"the ReplicaSets of {name} to leave their pods"
        self._make_single(pool, kept)
        return None

    def restore(self, pool: str, name: str) -> None:
        """Create the Deployment of a pool again as it was, beside the single pods, of which it adopts none.

        Raises :class:`InvalidRequest` where none is kept, and :class:`Unavailable` while it is still being adopted.
        """
        kept = self._kept(pool, name)
        if not kept:
            raise InvalidRequest(
                f"No Deployment {name!r} of the pool {pool!r} was adopted: there is nothing to go back to."
            )
        there = self._read(name)
        if there and _is_deleting(there):
            raise Unavailable(f"The Deployment {name!r} is still leaving its ReplicaSets: do it again.")
        # A ReplicaSet of the same template has the same hash; it would adopt, and then end, pods that still have it.
        if not there:
            self._make_single(pool, kept)
        metadata = {key: value for key, value in kept["metadata"].items() if key != "uid"}
        body = {**kept, "metadata": metadata}
        self._api.request("create", "deployments", body=body, accept=(Kind.ALREADY_EXISTS,))

    def forget(self, pool: str) -> None:
        """Delete what is kept of the Deployment that a pool has adopted; nothing where none was."""
        if found := self._api.find("configmaps", self._config_map(pool)):
            self._api.delete("configmaps", found["metadata"]["name"], found["metadata"]["uid"])

    def _make_single(self, pool: str, deployment: Json) -> None:
        """Label the pods that have no controller any more, without the hash by which a ReplicaSet would adopt them."""
        for pod in self._list("pods", deployment):
            if _controller(pod) is None and TEMPLATE_HASH in pod["metadata"]["labels"]:
                self._label(pod, {**labels.of_pool(self._instance, pool), TEMPLATE_HASH: None})

    def _replica_sets(self, deployment: Json) -> list[Json]:
        """Return the ReplicaSets that are the Deployment's, or were until it went."""
        uid = deployment["metadata"].get("uid")
        return [each for each in self._list("replicasets", deployment) if _controller(each) in (uid, None)]

    def _list(self, resource: str, deployment: Json) -> list[Json]:
        return list(self._api.request("list", resource, label_selector=_selector(deployment))["items"])

    def _label(self, pod: Json, new: dict[str, str | None] | dict[str, str]) -> None:
        self._api.patch_pod(pod["metadata"]["name"], uid=pod["metadata"]["uid"], labels=new)

    def _orphan(self, resource: str, found: Json) -> None:
        metadata = found["metadata"]
        self._api.delete(resource, metadata["name"], metadata["uid"], propagationPolicy="Orphan")

    def _absent(self, name: str) -> InvalidRequest:
        return InvalidRequest(f"There is no Deployment {name!r} in the namespace {self._api.namespace}.")

    def _read(self, name: str) -> Json:
        return self._api.find("deployments", name)

    def _kept(self, pool: str, name: str) -> Json:
        """Return the Deployment that was adopted, as it was."""
        found = self._api.find("configmaps", self._config_map(pool))
        kept: Json = json.loads(found["data"][_MANIFEST]) if found else {}
        return kept if kept and kept["metadata"]["name"] == name else {}

    def _keep(self, pool: str, deployment: Json) -> None:
        name = self._config_map(pool)
        data = {_MANIFEST: json.dumps(_as_created(deployment))}
        kept = {"metadata": {"name": name, "labels": labels.of_pool(self._instance, pool)}, "data": data}
        if not self._api.request("create", "configmaps", body=kept, accept=(Kind.ALREADY_EXISTS,)):
            self._api.request("update", "configmaps", name, body=kept)

    def _config_map(self, pool: str) -> str:
        return labels.object_name("deployment", self._instance, pool)


def _as_created(deployment: Json) -> Json:
    """Return what is needed to create a Deployment again; its old uid tells which ReplicaSets were its own."""
    metadata = deployment["metadata"]
    annotations = metadata.get("annotations") or {}
    kept = {key: value for key, value in annotations.items() if key not in _OF_THE_CONTROLLER}
    head = {"name": metadata["name"], "uid": metadata["uid"], "labels": metadata.get("labels") or {}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**head, "annotations": kept},
        "spec": deployment["spec"],
    }


def _selector(deployment: Json) -> str:
    selector = deployment["spec"]["selector"]
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    return ",".join([*terms, *(_term(each) for each in selector.get("matchExpressions") or ())])


def _term(expression: Json) -> str:
    key, operator, values = expression["key"], expression["operator"], ",".join(expression.get("values") or ())
    if operator in ("In", "NotIn"):
        return f"{key} {operator.lower()} ({values})"
    return str(key) if operator == "Exists" else f"!{key}"


def _is_deleting(found: Json) -> bool:
    return bool(found["metadata"].get("deletionTimestamp"))


def _controller(found: Json) -> str | None:
    """Return the uid of what controls an object."""
    owners = found["metadata"].get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)
