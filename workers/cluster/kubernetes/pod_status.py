"""From a pod of the API server to the system's own. Pure."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from workers.cluster.kubernetes import labels
from workers.core.pods import Pod, PodPhase
from workers.specs.pod_security import DO_NOT_DISRUPT, SAFE_TO_EVICT

MAX_REASON = 500  # characters; an image's pull error repeats itself for kilobytes
_PHASES = {"Pending": PodPhase.PENDING, "Succeeded": PodPhase.SUCCEEDED, "Failed": PodPhase.FAILED}
# The reasons of every pod's start.
_ORDINARY = frozenset({"ContainerCreating", "PodInitializing"})

_UNSAFE = {"annotations": {SAFE_TO_EVICT: "false", DO_NOT_DISRUPT: "true"}, "labels": {labels.BUSY: "true"}}


def as_pod(pod: dict[str, Any], now: float) -> Pod:
    """Return the pod of an object of the API, at ``now`` by the server's clock."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        pool=(metadata.get("labels") or {}).get(labels.POOL, ""),
        age=now - _time(metadata["creationTimestamp"]),
        # "Unknown" is a node that does not answer: its processes may still run.
        phase=_PHASES.get(status.get("phase", "Pending"), PodPhase.RUNNING),
        deleting=bool(metadata.get("deletionTimestamp")),
        ends_at=_time(metadata["deletionTimestamp"]) if metadata.get("deletionTimestamp") else None,
        node=(pod.get("spec") or {}).get("nodeName"),
        reason=_reason(status),
        safe_to_evict=_safe_to_evict(metadata),
        template=(metadata.get("labels") or {}).get(labels.TEMPLATE),
        controlled=any(owner.get("controller") for owner in metadata.get("ownerReferences") or ()),
    )


def start_problem(events: Iterable[dict[str, Any]]) -> str | None:
    """Return the latest of a pod's events in the cluster's words, if it is a warning.

    A pod whose volume can't be mounted, or whose sandbox can't be made, says nothing of it in its status.
    """
    order = sorted(events, key=lambda event: (_seen_at(event), event.get("type") == "Warning"))
    return _bounded(_sentence(order[-1])) if order and order[-1].get("type") == "Warning" else None


def eviction_patch(uid: str, *, safe: bool) -> dict[str, Any]:
    """Return the change of a pod's metadata that allows or forbids the cluster to evict it; ``uid`` may be empty."""
    change = {part: dict.fromkeys(unsafe) if safe else dict(unsafe) for part, unsafe in _UNSAFE.items()}
    return {**({"uid": uid} if uid else {}), **change}


def _safe_to_evict(metadata: dict[str, Any]) -> bool | None:
    there = [(unsafe, metadata.get(part) or {}) for part, unsafe in _UNSAFE.items()]
    if all(unsafe.items() <= its.items() for unsafe, its in there):
        return False
    return None if any(unsafe.keys() & its.keys() for unsafe, its in there) else True


def _reason(status: dict[str, Any]) -> str | None:
    """Return why a pod ended, waits or was restarted, in the cluster's words."""
    for words in (_ended(status), _waiting(status), _unscheduled(status), _restarted(status)):
        if words:
            return _bounded(words)
    return None


def _bounded(words: str) -> str:
    return words if len(words) <= MAX_REASON else f"{words[: MAX_REASON - 1]}…"


def _seen_at(event: dict[str, Any]) -> float:
    """Return when an event was seen last: in a series, else as one that is counted, else once."""
    series = event.get("series") or {}
    seen = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return _time(seen or event["metadata"]["creationTimestamp"])


def _time(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _ended(status: dict[str, Any]) -> str | None:
    """Return the reason of a pod that ended (Evicted, Preempted …), or of the container that ended it (OOMKilled)."""
    if status.get("phase") not in ("Failed", "Succeeded"):
        return None
    if status.get("reason"):
        return _sentence(status)
    ended = (_state(container, "terminated") for container in _containers(status))
    return next((_exit(each) for each in ended if each and each.get("exitCode")), None)


def _waiting(status: dict[str, Any]) -> str | None:
    for container in _containers(status):
        waiting = _state(container, "waiting")
        if waiting and waiting.get("reason") not in (None, *_ORDINARY):
            last = _state(container, "terminated", of="lastState")
            return f"{_sentence(waiting)}; {_exit(last)}" if last else _sentence(waiting)
    return None


def _unscheduled(status: dict[str, Any]) -> str | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _sentence(condition)
    return None


def _restarted(status: dict[str, Any]) -> str | None:
    for container in _containers(status):
        last, count = _state(container, "terminated", of="lastState"), container.get("restartCount", 0)
        if last and count:
            return f"restarted {count} times; {_exit(last)}" if count > 1 else f"restarted once; {_exit(last)}"
    return None


def _containers(status: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _state(container: dict[str, Any], kind: str, *, of: str = "state") -> dict[str, Any] | None:
    return (container.get(of) or {}).get(kind)


def _sentence(said: dict[str, Any]) -> str:
    return f"{said['reason']}: {said['message']}" if said.get("message") else str(said.get("reason"))


def _exit(ended: dict[str, Any]) -> str:
    """Return how a container ended: why, its exit code, and the last line that it wrote."""
    words = f"{ended.get('reason') or 'ended'} (exit code {ended.get('exitCode')})"
    lines = (ended.get("message") or "").strip().splitlines()
    return f"{words}: {lines[-1].strip()}" if lines else words
