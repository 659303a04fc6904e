"""The state of the cluster: objects, their versions, and lists of them."""

from __future__ import annotations

import base64
import copy
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.kubernetes.double import selectors
from tests.kubernetes.double.errors import already_exists, bad_request, conflict, expired, invalid, not_found

Object = dict[str, Any]

KINDS = {
    "namespaces": "Namespace",
    "nodes": "Node",
    "pods": "Pod",
    "events": "Event",
    "secrets": "Secret",
    "configmaps": "ConfigMap",
    "serviceaccounts": "ServiceAccount",
    "resourcequotas": "ResourceQuota",
    "deployments": "Deployment",
    "replicasets": "ReplicaSet",
    "roles": "Role",
    "rolebindings": "RoleBinding",
    "clusterroles": "ClusterRole",
    "clusterrolebindings": "ClusterRoleBinding",
    "poddisruptionbudgets": "PodDisruptionBudget",
}
VERSIONS = {
    "deployments": "apps/v1",
    "replicasets": "apps/v1",
    "roles": "rbac.authorization.k8s.io/v1",
    "rolebindings": "rbac.authorization.k8s.io/v1",
    "clusterroles": "rbac.authorization.k8s.io/v1",
    "clusterrolebindings": "rbac.authorization.k8s.io/v1",
    "poddisruptionbudgets": "policy/v1",
}
_IMMUTABLE = ("uid", "name", "namespace", "creationTimestamp")


def now(ahead: float = 0.0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=ahead)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Objects:
    """Every write replaces an object, so that what was read before stays as it was.

    ``ahead``: by how many seconds the server's clock is ahead of this machine's.
    """

    def __init__(self) -> None:
        self.ahead = 0.0
        self.changed = threading.Condition(threading.RLock())
        self.version = 1
        self._kept: dict[str, dict[tuple[str, str], Object]] = {resource: {} for resource in KINDS}
        self._encoded: dict[str, bytes] = {}
        self._pages: dict[str, list[Object]] = {}
        self._cache: dict[str, list[Object]] | None = None

    # Reading

    def get(self, resource: str, namespace: str, name: str) -> Object:
        with self.changed:
            if (namespace, name) not in self._kept[resource]:
                raise not_found(resource, name)
            return self._kept[resource][namespace, name]

    def find(self, resource: str, namespace: str, name: str) -> Object | None:
        return self._kept[resource].get((namespace, name))

    def all(self, resource: str, namespace: str | None = None) -> list[Object]:
        with self.changed:
            kept = self._kept[resource]
            return [kept[key] for key in sorted(kept) if namespace in (None, key[0])]

    def list(self, resource: str, namespace: str | None, query: dict[str, str]) -> bytes:
        """Return a list, whole or a page of it, as JSON."""
        limit = int(query.get("limit") or 0)
        if token := query.get("continue"):
            version, start, items = self._continued(token)
        else:
            version, start, items = self.version, 0, self._selected(resource, namespace, query)
            if query.get("resourceVersion") == "0":
                limit = 0  # a watch cache answers whole
        with self.changed:
            page = items[start : start + limit] if limit else items[start:]
            metadata: Object = {"resourceVersion": str(version)}
            left = len(items) - start - len(page)
            if left:
                page_id = f"{version}-{uuid.uuid4().hex[:8]}" if not query.get("continue") else self._page_id(query)
                self._pages[page_id] = items
                metadata["continue"] = _token(page_id, start + len(page))
                if not query.get("labelSelector") and not query.get("fieldSelector"):
                    metadata["remainingItemCount"] = left
            encoded = b",".join(self._encode(each) for each in page)
        kind = json.dumps(f"{KINDS[resource]}List").encode()
        head = b'{"kind":%b,"apiVersion":%b,"metadata":%b,"items":['
        api = json.dumps(VERSIONS.get(resource, "v1")).encode()
        return head % (kind, api, json.dumps(metadata).encode()) + encoded + b"]}"

    def expire_pages(self) -> None:
        """Compact: a list that is half read has to begin again."""
        with self.changed:
            self._pages.clear()

    def freeze_cache(self) -> None:
        """Let the watch cache fall behind: what is read at resourceVersion 0 stays as it is now."""
        with self.changed:
            self._cache = {resource: list(kept.values()) for resource, kept in self._kept.items()}

    def _selected(self, resource: str, namespace: str | None, query: dict[str, str]) -> list[Object]:
        by_label = selectors.labels(query.get("labelSelector", ""))
        by_field = selectors.fields(resource, query.get("fieldSelector", ""))
        everything = self.all(resource, namespace)
        if query.get("resourceVersion") == "0" and self._cache is not None:
            everything = [
                each for each in self._cache[resource] if namespace in (None, each["metadata"].get("namespace"))
            ]
        return [each for each in everything if by_label(each["metadata"].get("labels") or {}) and by_field(each)]

    def _continued(self, token: str) -> tuple[int, int, list[Object]]:
        try:
            page_id, start = json.loads(base64.urlsafe_b64decode(token))
        except ValueError:
            raise bad_request("continue key is not valid: illegal base64 data") from None
        if page_id not in self._pages:
            raise expired()
        return int(page_id.partition("-")[0]), start, self._pages[page_id]

    def _page_id(self, query: dict[str, str]) -> str:
        page_id: str = json.loads(base64.urlsafe_b64decode(query["continue"]))[0]
        return page_id

    def _encode(self, found: Object) -> bytes:
        # Every write makes a new version, and no two objects share one.
        version = found["metadata"]["resourceVersion"]
        if version not in self._encoded:
            self._encoded[version] = json.dumps(found).encode()
        return self._encoded[version]

    # Writing

    def create(self, resource: str, namespace: str, new: Object, *, dry_run: bool = False) -> Object:
        metadata = new["metadata"]
        with self.changed:
            if (namespace, metadata["name"]) in self._kept[resource]:
                raise already_exists(resource, metadata["name"])
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(self.ahead), "generation": 1}
            if namespace:
                metadata["namespace"] = namespace
            new |= {"apiVersion": VERSIONS.get(resource, "v1"), "kind": KINDS[resource]}
            return new if dry_run else self._keep(resource, namespace, new)

    def change(self, resource: str, namespace: str, name: str, edit: Callable[[Object], Object | None]) -> Object:
        """Replace an object by what ``edit`` makes of a copy of it."""
        with self.changed:
            old = self.get(resource, namespace, name)
            copied = copy.deepcopy(old)
            new = edit(copied) or copied
            for field in _IMMUTABLE:
                if new["metadata"].get(field, old["metadata"].get(field)) != old["metadata"].get(field):
                    problem = f'metadata.{field}: Invalid value: "{new["metadata"][field]}": field is immutable'
                    raise invalid(KINDS[resource], name, problem)
            asked = new["metadata"].get("resourceVersion")
            if asked and asked != old["metadata"]["resourceVersion"]:
                why = "the object has been modified; please apply your changes to the latest version and try again"
                raise conflict(resource, name, why)
            new["metadata"] = {**new["metadata"], "uid": old["metadata"]["uid"]}
            if new == old:
                return old
            kept = self._keep(resource, namespace, new)
            ended = new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers")
            if ended and resource != "pods":
                self.remove(resource, namespace, name)
            return kept

    def remove(self, resource: str, namespace: str, name: str) -> None:
        with self.changed:
            self._kept[resource].pop((namespace, name), None)
            self.version += 1
            self.changed.notify_all()

    def _keep(self, resource: str, namespace: str, new: Object) -> Object:
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        self._kept[resource][namespace, new["metadata"]["name"]] = new
        self.changed.notify_all()
        return new


def owned_by(found: Object, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in found["metadata"].get("ownerReferences") or ())


def controller_of(found: Object) -> Object | None:
    owners: Iterator[Object] = iter(found["metadata"].get("ownerReferences") or ())
    return next((owner for owner in owners if owner.get("controller")), None)


def _token(page_id: str, start: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([page_id, start]).encode()).decode()
