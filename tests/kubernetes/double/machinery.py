"""Scheduler, kubelet and controllers of the double: a thread that looks at what changed and does the next step."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.kubernetes.double.api import Api
from tests.kubernetes.double.containers import Container, Nothing
from tests.kubernetes.double.errors import ApiError
from tests.kubernetes.double.objects import Object, Objects, controller_of, now, owned_by
from tests.kubernetes.double.selectors import of_object

HASH = "pod-template-hash"
LOOK_SECONDS = 0.02
Start = Callable[[Objects, Object], Container]


@dataclass
class Running:
    container: Container
    restarts: int = 0
    asked_to_end: bool = False
    kill_at: float | None = None


@dataclass
class Machinery:
    """``start`` makes the container of a pod; ``missing_images`` can't be pulled. One node is there at first."""

    api: Api
    start: Start = lambda _objects, _pod: Nothing()
    missing_images: set[str] = field(default_factory=set)
    silent: bool = False  # the node does not answer: its processes go on unseen
    running: dict[str, Running] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="machinery")
        self._thread.start()

    @property
    def objects(self) -> Objects:
        return self.api.objects

    def close(self) -> None:
        self._ended.set()
        with self.objects.changed:
            self.objects.changed.notify_all()
        self._thread.join()
        for each in self.running.values():
            each.container.kill()

    def container(self, pod: str) -> Any:
        """Return the container of the pod of that name."""
        found = next(each for each in self.objects.all("pods") if each["metadata"]["name"] == pod)
        return self.running[found["metadata"]["uid"]].container

    def _work(self) -> None:
        seen = -1
        while not self._ended.is_set():
            with self.objects.changed:
                if seen == self.objects.version:
                    self.objects.changed.wait(LOOK_SECONDS if self.running else 1)
                seen = self.objects.version
                if not self._ended.is_set():
                    self._look()

    def _look(self) -> None:
        for deployment in self.objects.all("deployments"):
            self._deployment(deployment)
        for replica_set in self.objects.all("replicasets"):
            self._replica_set(replica_set)
        for resource in ("pods", "replicasets", "deployments"):
            for found in self.objects.all(resource):
                self._collect(resource, found)
        for pod in self.objects.all("pods"):
            self._pod(pod)
        for uid in self.running.keys() - {pod["metadata"]["uid"] for pod in self.objects.all("pods")}:
            self.running.pop(uid).container.kill()  # forced away: the kubelet hears of it last

    # Pods

    def _pod(self, pod: Object) -> None:
        node = pod["spec"].get("nodeName")
        if not node:
            self._schedule(pod)
        elif self.objects.find("nodes", "", node) and not self.silent:
            if pod["metadata"].get("deletionTimestamp"):
                self._end(pod)
            elif pod["status"]["phase"] in ("Pending", "Running"):
                self._run(pod)

    def _schedule(self, pod: Object) -> None:
        nodes = self.objects.all("nodes")
        free = [each["metadata"]["name"] for each in nodes if _is_ready(each) and not each["spec"].get("unschedulable")]
        why = "didn't match Pod's node affinity/selector" if pod["spec"].get("nodeSelector") else "were unschedulable"
        condition = {"type": "PodScheduled", "status": "True"}
        if pod["spec"].get("nodeSelector") or not free:
            said = f"0/{len(nodes)} nodes are available: {len(nodes)} node(s) {why}."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}

        def bind(new: Object) -> None:
            new["status"]["conditions"] = [condition]
            if condition["status"] == "True":
                new["spec"]["nodeName"] = min(free, key=self._pods_on)

        self._change(pod, bind)

    def _pods_on(self, node: str) -> int:
        return sum(pod["spec"].get("nodeName") == node for pod in self.objects.all("pods"))

    def _run(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if uid not in self.running:
            self._first_start(pod)
            return
        running = self.running[uid]
        code = running.container.exit_code()
        if code is None:
            return
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "finishedAt": now()}
        ended |= {"message": running.container.last_lines()} if code else {}
        policy = pod["spec"]["restartPolicy"]
        if policy == "Always" or (policy == "OnFailure" and code):
            self._restart(pod, running, ended)
        else:
            self._status(pod, "Succeeded" if code == 0 else "Failed", {"terminated": ended}, running.restarts)
            del self.running[uid]

    def _first_start(self, pod: Object) -> None:
        image = pod["spec"]["containers"][0]["image"]
        if image in self.missing_images:
            waiting = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}
            self._status(pod, "Pending", {"waiting": waiting})
        elif missing := self._missing_secret(pod):
            self._status(pod, "Pending", {"waiting": {"reason": "ContainerCreating"}})
            self._warn(pod, "FailedMount", missing)
        else:
            self.running[pod["metadata"]["uid"]] = Running(self.start(self.objects, pod))
            self._status(pod, "Running", {"running": {"startedAt": now()}})

    def _restart(self, pod: Object, running: Running, ended: Object) -> None:
        running.restarts += 1
        running.container = self.start(self.objects, pod)
        self._status(pod, "Running", {"running": {"startedAt": now()}}, running.restarts, {"terminated": ended})

    def _missing_secret(self, pod: Object) -> str | None:
        for volume in pod["spec"].get("volumes") or ():
            name = (volume.get("secret") or {}).get("secretName")
            if name and self.objects.find("secrets", pod["metadata"]["namespace"], name) is None:
                return f'MountVolume.SetUp failed for volume "{volume["name"]}" : secret "{name}" not found'
        return None

    def _warn(self, pod: Object, reason: str, message: str) -> None:
        """Leave an event, the only place where a kubelet says such a thing."""
        metadata = pod["metadata"]
        name = f"{metadata['name']}.{metadata['uid']}.{reason.lower()}"
        if self.objects.find("events", metadata["namespace"], name) is None:
            involved = {"kind": "Pod", **{field: metadata[field] for field in ("name", "namespace", "uid")}}
            event = {"metadata": {"name": name}, "involvedObject": involved, "type": "Warning", "reason": reason}
            self.objects.create("events", metadata["namespace"], {**event, "message": message, "lastTimestamp": now()})

    def _end(self, pod: Object) -> None:
        metadata = pod["metadata"]
        running = self.running.get(metadata["uid"])
        if running is None:
            self.objects.remove("pods", metadata["namespace"], metadata["name"])
            return
        deadline = time.monotonic() + metadata["deletionGracePeriodSeconds"]
        running.kill_at = min(running.kill_at or deadline, deadline)
        if not running.asked_to_end:
            running.asked_to_end = True
            running.container.terminate()
        if time.monotonic() >= running.kill_at:
            running.container.kill()
        if (code := running.container.exit_code()) is not None:
            running.container.kill()  # whatever it left
            ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}
            self._status(pod, "Failed" if code else "Succeeded", {"terminated": ended}, running.restarts)
            del self.running[metadata["uid"]]
            self.objects.remove("pods", metadata["namespace"], metadata["name"])

    def _status(self, pod: Object, phase: str, state: Object, restarts: int = 0, last: Object | None = None) -> None:
        container = {
            "name": pod["spec"]["containers"][0]["name"],
            "ready": phase == "Running",
            "restartCount": restarts,
            "state": state,
            "lastState": last or {},
        }

        def edit(new: Object) -> None:
            new["status"] |= {"phase": phase, "containerStatuses": [container]}

        self._change(pod, edit)

    def _change(self, found: Object, edit: Callable[[Object], None], resource: str = "pods") -> None:
        self.objects.change(resource, found["metadata"]["namespace"], found["metadata"]["name"], edit)

    # Controllers

    def _collect(self, resource: str, found: Object) -> None:
        """Collect objects without owners, and carry out deletions that leave the dependents."""
        metadata = found["metadata"]
        if "orphan" in (metadata.get("finalizers") or ()):
            for kind in ("replicasets", "pods"):
                for dependent in self.objects.all(kind, metadata["namespace"]):
                    if owned_by(dependent, metadata["uid"]):
                        self._change(dependent, lambda new, uid=metadata["uid"]: _disown(new, uid), kind)
            self._change(found, lambda new: _without_finalizer(new, "orphan"), resource)
            return
        owners = metadata.get("ownerReferences") or ()
        alive = {each["metadata"]["uid"] for kind in ("deployments", "replicasets") for each in self.objects.all(kind)}
        if owners and not any(owner["uid"] in alive for owner in owners) and not metadata.get("deletionTimestamp"):
            self.api.delete(resource, metadata["namespace"], metadata["name"], {})

    def _deployment(self, deployment: Object) -> None:
        metadata, spec = deployment["metadata"], deployment["spec"]
        if metadata.get("deletionTimestamp"):
            return
        digest = hashlib.sha256(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()[:8]
        name = f"{metadata['name']}-{digest}"
        found = self.objects.find("replicasets", metadata["namespace"], name)
        if found is None:
            template = copy.deepcopy(spec["template"])
            template["metadata"].setdefault("labels", {})[HASH] = digest
            selector = {"matchLabels": {**spec["selector"]["matchLabels"], HASH: digest}}
            labels = template["metadata"]["labels"]
            new = {
                "metadata": {"name": name, "labels": labels, **_owner("Deployment", deployment)},
                "spec": {"replicas": spec.get("replicas", 1), "selector": selector, "template": template},
                "status": {},
            }
            self.objects.create("replicasets", metadata["namespace"], new)
        elif not controller_of(found) and not found["metadata"].get("deletionTimestamp"):
            self._change(found, lambda new: new["metadata"].update(_owner("Deployment", deployment)), "replicasets")
        elif found["spec"]["replicas"] != spec.get("replicas", 1):
            self._change(found, lambda new: new["spec"].update(replicas=spec.get("replicas", 1)), "replicasets")

    def _replica_set(self, replica_set: Object) -> None:
        metadata, spec = replica_set["metadata"], replica_set["spec"]
        if metadata.get("deletionTimestamp"):
            return
        matches = of_object(spec["selector"])
        mine = []
        for pod in self.objects.all("pods", metadata["namespace"]):
            controller = controller_of(pod)
            if controller and controller["uid"] == metadata["uid"]:
                if not matches(pod["metadata"].get("labels")):
                    self._change(pod, lambda new: _disown(new, metadata["uid"]))
                elif not pod["metadata"].get("deletionTimestamp") and pod["status"]["phase"] in ("Pending", "Running"):
                    mine.append(pod)
            elif not controller and matches(pod["metadata"].get("labels")):
                self._change(pod, lambda new: new["metadata"].update(_owner("ReplicaSet", replica_set)))
                mine.append(pod)
        for pod in mine[spec["replicas"] :]:  # whichever: that is the trouble with Deployments
            self.api.delete("pods", metadata["namespace"], pod["metadata"]["name"], {})
        for number in range(spec["replicas"] - len(mine)):
            pod = copy.deepcopy(spec["template"])
            pod["metadata"] |= {"name": f"{metadata['name']}-{self.objects.version:05x}{number}"}
            pod["metadata"] |= _owner("ReplicaSet", replica_set)
            try:
                self.api.create("pods", metadata["namespace"], pod, {})
            except ApiError:
                return  # a quota: it tries again for ever


def _is_ready(node: Object) -> bool:
    conditions = node.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _owner(kind: str, owner: Object) -> Object:
    reference = {
        "apiVersion": "apps/v1",
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {"ownerReferences": [reference]}


def _disown(new: Object, uid: str) -> None:
    new["metadata"]["ownerReferences"] = [
        owner for owner in new["metadata"].get("ownerReferences") or () if owner["uid"] != uid
    ]


def _without_finalizer(new: Object, name: str) -> None:
    new["metadata"]["finalizers"] = [each for each in new["metadata"]["finalizers"] if each != name]
