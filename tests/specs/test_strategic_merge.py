"""A patch over a pod says only what differs."""

from __future__ import annotations

from typing import Any

import pytest

from workers.specs.strategic_merge import merge

POD: dict[str, Any] = {
    "containers": [
        {"name": "agent", "image": "a:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}
    ],
    "volumes": [{"name": "work", "emptyDir": {}}],
    "tolerations": [{"key": "x"}],
    "hostname": "h",
}


@pytest.mark.parametrize(
    ("patch", "path", "expected"),
    [
        ({"hostname": "other"}, ["hostname"], "other"),
        ({"hostname": None}, [], {key: value for key, value in POD.items() if key != "hostname"}),
        ({"containers": [{"name": "agent", "image": "a:2"}]}, ["containers", 0, "image"], "a:2"),
        ({"containers": [{"name": "agent", "image": "a:2"}]}, ["containers", 0, "env"], POD["containers"][0]["env"]),
        ({"containers": [{"name": "side"}]}, ["containers"], [*POD["containers"], {"name": "side"}]),
        ({"containers": [{"name": "agent", "$patch": "delete"}]}, ["containers"], []),
        ({"containers": [{"name": "agent", "$patch": "replace"}]}, ["containers"], [{"name": "agent"}]),
        (
            {"containers": [{"name": "agent", "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]}]},
            ["containers", 0, "env"],
            [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C", "value": "4"}],
        ),
        ({"tolerations": [{"key": "y"}]}, ["tolerations"], [{"key": "y"}]),
        ({"volumes": [{"name": "work", "persistentVolumeClaim": {"claimName": "c"}}]}, ["volumes", 0], None),
        ({"$patch": "replace", "hostname": "only"}, [], {"hostname": "only"}),
        ({"securityContext": {"runAsUser": 5}}, ["securityContext"], {"runAsUser": 5}),
    ],
)
def test_a_patch_changes_what_it_says_and_nothing_else(patch: dict[str, Any], path: list[Any], expected: Any) -> None:
    found: Any = merge(POD, patch)
    for part in path:
        found = found[part]
    if expected is None:  # a volume has one source
        expected = {"name": "work", "persistentVolumeClaim": {"claimName": "c"}}
    assert found == expected


def test_ports_are_identified_by_number_and_protocol() -> None:
    base = {"ports": [{"containerPort": 53, "name": "tcp"}]}
    patch = {"ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP", "name": "t"}]}
    assert merge(base, patch)["ports"] == [
        {"containerPort": 53, "name": "t", "protocol": "TCP"},
        {"containerPort": 53, "protocol": "UDP"},
    ]


def test_neither_side_is_changed() -> None:
    patch = {"containers": [{"name": "agent", "env": [{"name": "A", "$patch": "delete"}]}]}
    before = repr((POD, patch))
    assert merge(POD, patch)["containers"][0]["env"] == [{"name": "B", "value": "2"}]
    assert repr((POD, patch)) == before


@pytest.mark.parametrize(
    ("patch", "sentence"),
    [
        ({"containers": [{"image": "x"}]}, "containers.0: name is missing"),
        ({"containers": ["agent"]}, "containers.0: a mapping is expected"),
        (
            {"spec": {"$setElementOrder/containers": []}},
            r"spec\.\$setElementOrder/containers: .patch is the only directive",
        ),
        ({"spec": {"$patch": "delete"}}, r"spec: \$patch is"),
    ],
)
def test_what_can_not_be_merged_is_named_by_its_path(patch: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        merge(POD, patch)
