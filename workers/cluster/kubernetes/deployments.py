"""Pods that a Deployment runs, made single pods and back, without ending one of them.

A Deployment that is deleted with the policy ``Orphan`` leaves its ReplicaSets, and those, deleted likewise, leave their
pods: the garbage collector takes the owner off each and nothing else happens to it. Lowering a replica count would let
Kubernetes choose whom to kill; taking labels away would make the ReplicaSet replace what it lost.

Every step looks at what is there and does what is left to do, so that all of it can be done again after a failure at
any point. What the Deployment was is kept in a ConfigMap before it goes.

Permissions beyond those of every day: get, create and delete of Deployments, list and delete of ReplicaSets, get,
create and update of ConfigMaps.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from workers.cluster.kubernetes import labels
from workers.cluster.kubernetes.api import Api, Json
from workers.cluster.kubernetes.refusals import Call, Refused, explain
from workers.protocol.errors import InvalidRequest, Unavailable

TEMPLATE_HASH = "pod-template-hash"
_MANIFEST = "deployment.json"
_OF_THE_CONTROLLER = ("deployment.kubernetes.io/revision", "kubectl.kubernetes.io/last-applied-configuration")


class Deployments:
    """The Deployments of pools in one namespace."""

    def __init__(self, api: Api, instance: str) -> None:
        self._api = api
        self._instance = instance

    def label_pods(self, pool: str, name: str) -> int:
        """Give the pods of a Deployment their pool's labels, by which they are listed; return how many got them."""
        deployment = self._read(name) or self._kept(pool, name)
        if deployment is None:
            return 0
        sets = {each["metadata"]["uid"] for each in self._replica_sets(deployment)}
        pods = self._pods(deployment, lambda pod: (_controller(pod) or {}).get("uid") in sets)
        ours = labels.of_pool(self._instance, pool)
        new = [pod for pod in pods if not ours.items() <= (pod["metadata"].get("labels") or {}).items()]
        for pod in new:
            self._label(pod, ours)
        return len(new)

    def expect(self, pool: str, name: str) -> None:
        """Raise :class:`InvalidRequest` where there is no such Deployment, and none that was taken over half-way."""
        if self._read(name) is None and self._kept(pool, name) is None:
            raise InvalidRequest(f"There is no Deployment {name!r} in the namespace {self._api.namespace}.")

    def take_over(self, pool: str, name: str) -> str | None:
        """Do the next steps of making the pods of a Deployment single pods; None once that is done.

        Returns what the cluster has yet to carry out, in words; then call again.
        """
        deployment = self._read(name)
        if deployment is not None:
            if not deployment["metadata"].get("deletionTimestamp"):
                self._keep(pool, deployment)
                self.label_pods(pool, name)
                self._delete("deployments", deployment, self._api.apps.delete_namespaced_deployment)
            return f"the Deployment {name} to leave its ReplicaSets"
        kept: Json = self._kept(pool, name) or {}
        if sets := self._replica_sets(kept):
            self.label_pods(pool, name)
            for each in sets:
                if not each["metadata"].get("deletionTimestamp"):
                    self._delete("replicasets", each, self._api.apps.delete_namespaced_replica_set)
            return f"the ReplicaSets of {name} to leave their pods"
        self._settle(pool, kept)
        return None

    def put_back(self, pool: str, name: str) -> None:
        """Create the Deployment of a pool again as it was, beside the single pods, none of which it gets hold of.

        Raises :class:`InvalidRequest` where none is kept, and :class:`Unavailable` while it is still being taken over.
        """
        kept = self._kept(pool, name)
        if kept is None:
            raise InvalidRequest(
                f"No Deployment {name!r} of the pool {pool!r} was taken over: there is nothing to go back to."
            )
        there = self._read(name)
        if there is not None and there["metadata"].get("deletionTimestamp"):
            raise Unavailable(f"The Deployment {name!r} is still leaving its ReplicaSets: do it again.")
        # A ReplicaSet of the same template has the same hash, and would adopt, and then end, pods that still have it.
        if there is None:
            self._settle(pool, kept)
        call = Call("create", "deployments", self._api.namespace, name)
        try:
            self._api.call(call, self._api.apps.create_namespaced_deployment, call.namespace, _anew(kept))
        except Refused as error:
            if not error.refusal.already_exists:
                raise explain(error.refusal, call) from error

    def _settle(self, pool: str, deployment: Json) -> None:
        """Give pods that nobody controls any more their pool's labels, take off what a ReplicaSet would adopt by."""
        for pod in self._pods(deployment, lambda pod: _controller(pod) is None):
            if TEMPLATE_HASH in pod["metadata"]["labels"]:
                self._label(pod, {**labels.of_pool(self._instance, pool), TEMPLATE_HASH: None})

    def _replica_sets(self, deployment: Json) -> list[Json]:
        """Return the ReplicaSets that are the Deployment's, or were until it went."""
        uid = deployment["metadata"].get("uid")
        found = self._list("replicasets", self._api.apps.list_namespaced_replica_set, _selector(deployment))
        return [each for each in found if (_controller(each) or {"uid": uid})["uid"] == uid]

    def _pods(self, deployment: Json, wanted: Callable[[Json], bool]) -> list[Json]:
        found = self._list("pods", self._api.core.list_namespaced_pod, _selector(deployment))
        return [pod for pod in found if wanted(pod)]

    def _list(self, resource: str, function: Callable[..., Any], selector: str) -> list[Json]:
        call = Call("list", resource, self._api.namespace)
        items: list[Json] = self._do(call, function, call.namespace, label_selector=selector)["items"]
        return items

    def _label(self, pod: Json, new: dict[str, str | None] | dict[str, str]) -> None:
        name = pod["metadata"]["name"]
        call = Call("patch", "pods", self._api.namespace, name)
        patch = {"metadata": {"uid": pod["metadata"]["uid"], "labels": new}}
        try:
            self._api.call(call, self._api.core.patch_namespaced_pod, name, call.namespace, patch)
        except Refused as error:
            gone = error.refusal.not_found or error.refusal.conflict or error.refusal.invalid
            if not gone:
                raise explain(error.refusal, call) from error

    def _delete(self, resource: str, found: Json, function: Callable[..., Any]) -> None:
        name, uid = found["metadata"]["name"], found["metadata"]["uid"]
        call = Call("delete", resource, self._api.namespace, name)
        options = {"propagationPolicy": "Orphan", "preconditions": {"uid": uid}}
        try:
            self._api.call(call, function, name, call.namespace, body=options)
        except Refused as error:
            if not (error.refusal.not_found or error.refusal.conflict):
                raise explain(error.refusal, call) from error

    def _read(self, name: str) -> Json | None:
        return self._get("deployments", name, self._api.apps.read_namespaced_deployment)

    def _kept(self, pool: str, name: str) -> Json | None:
        """Return the Deployment that was taken over, as it was."""
        found = self._get("configmaps", self._memory(pool), self._api.core.read_namespaced_config_map)
        kept: Json | None = json.loads(found["data"][_MANIFEST]) if found else None
        return kept if kept and kept["metadata"]["name"] == name else None

    def _keep(self, pool: str, deployment: Json) -> None:
        ours = labels.of_pool(self._instance, pool)
        data = {_MANIFEST: json.dumps(_as_created(deployment))}
        memory = {"metadata": {"name": self._memory(pool), "labels": ours}, "data": data}
        call = Call("create", "configmaps", self._api.namespace, self._memory(pool))
        try:
            self._api.call(call, self._api.core.create_namespaced_config_map, call.namespace, memory)
        except Refused as error:
            if not error.refusal.already_exists:
                raise explain(error.refusal, call) from error
            call = Call("update", "configmaps", self._api.namespace, self._memory(pool))
            self._do(call, self._api.core.replace_namespaced_config_map, self._memory(pool), call.namespace, memory)

    def _memory(self, pool: str) -> str:
        return labels.object_name("deployment", self._instance, pool)

    def _get(self, resource: str, name: str, function: Callable[..., Any]) -> Json | None:
        call = Call("get", resource, self._api.namespace, name)
        try:
            return self._api.call(call, function, name, call.namespace)
        except Refused as error:
            if error.refusal.not_found:
                return None
            raise explain(error.refusal, call) from error

    def _do(self, call: Call, function: Callable[..., Any], *arguments: Any, **options: Any) -> Json:
        try:
            return self._api.call(call, function, *arguments, **options)
        except Refused as error:
            raise explain(error.refusal, call) from error


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


def _anew(kept: Json) -> Json:
    metadata = {key: value for key, value in kept["metadata"].items() if key != "uid"}
    return {**kept, "metadata": metadata}


def _selector(deployment: Json) -> str:
    selector = deployment["spec"]["selector"]
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    return ",".join([*terms, *(_term(each) for each in selector.get("matchExpressions") or ())])


def _term(expression: Json) -> str:
    key, operator, values = expression["key"], expression["operator"], ",".join(expression.get("values") or ())
    if operator in ("In", "NotIn"):
        return f"{key} {operator.lower()} ({values})"
    return str(key) if operator == "Exists" else f"!{key}"


def _controller(found: Json) -> Json | None:
    owners = found["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)
