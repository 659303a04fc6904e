"""A pod of the API as the rest of the system sees it."""

from __future__ import annotations

from typing import Any

import pytest

from workers.cluster.kubernetes.pod_status import MAX_REASON, as_pod, eviction_patch, start_problem
from workers.core.pods import Pod, PodPhase


def pod(status: dict[str, Any] | None = None, **metadata: Any) -> Pod:
    head = {"name": "a", "uid": "u", "creationTimestamp": "1970-01-01T00:01:40Z", "labels": {"terraslot.dev/pool": "p"}}
    return as_pod({"metadata": {**head, **metadata}, "status": status or {"phase": "Running"}}, now=160.0)


def container(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "agent", "state": state, **more}]}


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def test_a_pod_has_name_uid_pool_and_age() -> None:
    assert pod() == Pod("a", "u", "p", 60.0, PodPhase.RUNNING)


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ("Pending", PodPhase.PENDING),
        ("Running", PodPhase.RUNNING),
        ("Succeeded", PodPhase.SUCCEEDED),
        ("Failed", PodPhase.FAILED),
        ("Unknown", PodPhase.RUNNING),  # the node does not answer: its processes may still run
    ],
)
def test_phases(phase: str, expected: PodPhase) -> None:
    assert pod({"phase": phase}).phase is expected


def test_a_pod_that_ends_is_deleting_whatever_its_phase_says() -> None:
    ending = pod({"phase": "Failed"}, deletionTimestamp="1970-01-01T00:02:00Z")
    assert ending.deleting
    assert ending.ends_at == 120.0
    assert pod().ends_at is None


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"phase": "Running"}, None),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "Evicted: low on memory"),
        ({"phase": "Failed", "reason": "Preempted"}, "Preempted"),
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, "DeadlineExceeded"),
        ({"phase": "Failed", "reason": "NodeShutdown"}, "NodeShutdown"),
        ({"phase": "Failed", **container(ended(137, "OOMKilled"))}, "OOMKilled (exit code 137)"),
        ({"phase": "Failed", **container(ended(2, message="a\nno Redis\n"))}, "Error (exit code 2): no Redis"),
        ({"phase": "Succeeded", **container(ended(0, "Completed"))}, None),
        (
            {"phase": "Pending", **container({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}})},
            "ImagePullBackOff: Back-off",
        ),
        ({"phase": "Pending", **container({"waiting": {"reason": "ErrImagePull"}})}, "ErrImagePull"),
        (
            {"phase": "Pending", **container({"waiting": {"reason": "CreateContainerConfigError", "message": "no"}})},
            "CreateContainerConfigError: no",
        ),
        ({"phase": "Pending", **container({"waiting": {"reason": "ContainerCreating"}})}, None),
        (
            {"phase": "Pending", "initContainerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]},
            "ErrImagePull",
        ),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
                ],
            },
            "Unschedulable: 0/3 nodes",
        ),
        (
            {
                "phase": "Running",
                **container({"waiting": {"reason": "CrashLoopBackOff"}}, restartCount=4, lastState=ended(1)),
            },
            "CrashLoopBackOff; Error (exit code 1)",
        ),
        (
            {"phase": "Running", **container({"running": {}}, restartCount=1, lastState=ended(137, "OOMKilled"))},
            "restarted once; OOMKilled (exit code 137)",
        ),
        (
            {"phase": "Running", **container({"running": {}}, restartCount=3, lastState=ended(1))},
            "restarted 3 times; Error (exit code 1)",
        ),
    ],
)
def test_why_a_pod_ended_waits_or_was_restarted(status: dict[str, Any], reason: str | None) -> None:
    assert pod(status).reason == reason


def event(kind: str, reason: str, **when: str | None) -> dict[str, Any]:
    head = {
        "type": kind,
        "reason": reason,
        "message": "words",
        "metadata": {"creationTimestamp": "1970-01-01T00:00:01Z"},
    }
    return head | when


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], None),
        ([event("Normal", "Scheduled")], None),
        ([event("Normal", "Scheduled"), event("Warning", "FailedMount")], "FailedMount: words"),
        (
            [
                event("Warning", "FailedMount", lastTimestamp="1970-01-01T00:00:10Z"),
                event("Normal", "Pulling", lastTimestamp=None, eventTime="1970-01-01T00:00:11.000000Z"),
            ],
            None,  # it is mounted by now
        ),
    ],
)
def test_a_start_fails_for_what_the_latest_event_warns_of(events: list[dict[str, Any]], said: str | None) -> None:
    assert start_problem(events) == said


def test_a_reason_is_bounded() -> None:
    words = pod({"phase": "Failed", "reason": "Evicted", "message": "x" * 10_000}).reason
    assert words is not None
    assert len(words) == MAX_REASON


def test_a_pod_with_a_controller_is_told_from_a_single_one() -> None:
    assert pod(ownerReferences=[{"kind": "ReplicaSet", "uid": "r", "controller": True}]).controlled
    assert not pod(ownerReferences=[{"kind": "Node", "uid": "n"}]).controlled


def test_safe_to_evict_is_unknown_where_the_annotations_contradict_one_another() -> None:
    """F30."""
    patch = eviction_patch("u", safe=False)
    labels = {"terraslot.dev/pool": "p", **patch["labels"]}
    assert pod(annotations=patch["annotations"], labels=labels).safe_to_evict is False
    assert pod(annotations={"other": "1"}).safe_to_evict is True
    assert pod(annotations=patch["annotations"]).safe_to_evict is None
    assert pod(labels=labels).safe_to_evict is None
    odd = {**patch["annotations"], "karpenter.sh/do-not-disrupt": "false"}
    assert pod(annotations=odd, labels=labels).safe_to_evict is None


def test_annotations_are_removed_and_not_set_to_the_opposite() -> None:
    patch = eviction_patch("u", safe=True)
    assert set(patch["annotations"].values()) | set(patch["labels"].values()) == {None}
    assert patch["uid"] == "u"
