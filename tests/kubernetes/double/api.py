"""What the API server does with a request, apart from HTTP."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.kubernetes.double import admission
from tests.kubernetes.double.budgets import expect_evictable
from tests.kubernetes.double.errors import bad_request, conflict, invalid
from tests.kubernetes.double.objects import KINDS, VERSIONS, Object, Objects
from workers.specs.strategic_merge import merge

_FROM_PROPAGATION = {"Orphan": "orphan", "Foreground": "foregroundDeletion"}
_MUTABLE_SPEC = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds")


class Api:
    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    def create(self, resource: str, namespace: str, new: Object, query: dict[str, str]) -> Object:
        with self.objects.changed:
            admitted = admission.admit(self.objects, resource, namespace, copy.deepcopy(new), query)
            created = self.objects.create(resource, namespace, admitted, dry_run=query.get("dryRun") == "All")
            if resource == "namespaces" and query.get("dryRun") != "All":
                account: Object = {"metadata": {"name": "default"}}
                self.objects.create("serviceaccounts", new["metadata"]["name"], account)
            return created

    def update(self, resource: str, namespace: str, name: str, new: Object, part: str) -> Object:
        def edit(old: Object) -> Object:
            if part == "status":
                return {**old, "status": new.get("status", {})}
            kept = {"status": old["status"]} if "status" in old else {}
            metadata = {**new["metadata"], **_server_fields(old)}
            return _checked(resource, old, {**new, **kept, "metadata": metadata})

        return self.objects.change(resource, namespace, name, edit)

    def patch(self, resource: str, namespace: str, name: str, patch: Object, *, part: str, kind: str) -> Object:
        def edit(old: Object) -> Object:
            before = copy.deepcopy(old)
            new = _json_merge(old, patch) if "merge-patch" in kind and "strategic" not in kind else merge(old, patch)
            if part == "status":
                return {**before, "status": new.get("status", {})}
            return _checked(resource, before, new)

        if not isinstance(patch, dict):
            raise bad_request("json patches are not spoken here")
        return self.objects.change(resource, namespace, name, edit)

    def delete(self, resource: str, namespace: str, name: str, options: Object) -> Object:
        """Delete as the real server does: at once, or by a deletionTimestamp for a kubelet to act on."""
        with self.objects.changed:
            found = self.objects.get(resource, namespace, name)
            metadata = found["metadata"]
            for field, asked in (options.get("preconditions") or {}).items():
                if asked and metadata.get(field) != asked:
                    what = "UID" if field == "uid" else "ResourceVersion"
                    found_one = f"does not match the {what} in record ({metadata[field]})"
                    why = f"the {what} in the precondition ({asked}) {found_one}"
                    raise conflict(resource, name, f"{why}. The object might have been deleted and then recreated")
            if options.get("dryRun"):
                return found
            if resource == "pods":
                return self._delete_pod(namespace, found, options.get("gracePeriodSeconds"))
            return self._delete_other(resource, namespace, found, options.get("propagationPolicy"))

    def evict(self, namespace: str, name: str, options: Object) -> Object:
        """Delete a pod unless a disruption budget forbids it."""
        with self.objects.changed:
            expect_evictable(self.objects, self.objects.get("pods", namespace, name))
            self.delete("pods", namespace, name, options.get("deleteOptions") or {})
            return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

    def _delete_pod(self, namespace: str, pod: Object, asked: int | None) -> Object:
        name = pod["metadata"]["name"]
        bound = pod["spec"].get("nodeName") and pod["status"].get("phase") not in ("Succeeded", "Failed")
        grace = pod["spec"]["terminationGracePeriodSeconds"] if asked is None else asked
        grace = grace if bound else 0
        before = pod["metadata"].get("deletionGracePeriodSeconds")
        if before is not None and grace >= before:
            return pod

        def ending(new: Object) -> None:
            until = datetime.now(UTC) + timedelta(seconds=grace)
            new["metadata"]["deletionTimestamp"] = until.strftime("%Y-%m-%dT%H:%M:%SZ")
            new["metadata"]["deletionGracePeriodSeconds"] = grace

        left = self.objects.change("pods", namespace, name, ending)
        if grace == 0 and not left["metadata"].get("finalizers"):
            self.objects.remove("pods", namespace, name)
        return left

    def _delete_other(self, resource: str, namespace: str, found: Object, propagation: str | None) -> Object:
        name = found["metadata"]["name"]
        finalizers = list(found["metadata"].get("finalizers") or ())
        if extra := _FROM_PROPAGATION.get(propagation or ""):
            finalizers.append(extra)
        if not finalizers and resource != "namespaces":
            self.objects.remove(resource, namespace, name)
            details = {"name": name, "kind": resource, "uid": found["metadata"]["uid"]}
            return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

        def ending(new: Object) -> None:
            new["metadata"].setdefault("deletionTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
            new["metadata"]["finalizers"] = sorted({*finalizers, *({"kubernetes"} if resource == "namespaces" else ())})
            if resource == "namespaces":
                new["status"] = {"phase": "Terminating"}

        return self.objects.change(resource, namespace, name, ending)


def wrapped(resource: str, found: Object) -> Object:
    return {"kind": KINDS[resource], "apiVersion": VERSIONS.get(resource, "v1"), **found}


def _server_fields(old: Object) -> Object:
    fields = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")
    return {field: old["metadata"][field] for field in fields if field in old["metadata"]}


def _checked(resource: str, old: Object, new: Object) -> Object:
    """Refuse what can't be changed of a pod: nearly everything."""
    if resource == "pods":
        before = {key: value for key, value in old["spec"].items() if key not in _MUTABLE_SPEC}
        after = {key: value for key, value in new["spec"].items() if key not in _MUTABLE_SPEC}
        images = [{**container, "image": ""} for container in before.pop("containers")]
        if before != {k: v for k, v in after.items() if k != "containers"} or images != [
            {**container, "image": ""} for container in after["containers"]
        ]:
            problem = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"
            raise invalid("Pod", old["metadata"]["name"], problem)
    return new


def _json_merge(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _json_merge(result.get(key), value)
    return result
