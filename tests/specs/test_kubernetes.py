"""The configuration of a Kubernetes pool: what is refused when it is saved, and by which path."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from workers.core.pools import PoolLimits
from workers.specs.pools import PoolSpec


def spec(**pods: Any) -> PoolSpec:
    return PoolSpec(name="default", type="kubernetes", kubernetes={"image": "agent:1", **pods})  # type: ignore[arg-type]


def problems(**pods: Any) -> dict[str, str]:
    """Return the path and the sentence of everything that is wrong."""
    with pytest.raises(ValidationError) as caught:
        spec(**pods)
    found = {".".join(map(str, error["loc"])): error["msg"] for error in caught.value.errors()}
    return {path.removeprefix("kubernetes."): sentence for path, sentence in found.items()}


def container(**context: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "agent", "securityContext": context}]}}


CONTEXT = "pod_template.spec.containers.0.securityContext"


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ({"spec": {"hostNetwork": True}}, "pod_template.spec.hostNetwork"),
        ({"spec": {"hostPID": True}}, "pod_template.spec.hostPID"),
        ({"spec": {"hostIPC": True}}, "pod_template.spec.hostIPC"),
        ({"spec": {"hostUsers": True}}, "pod_template.spec.hostUsers"),
        ({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}, "pod_template.spec.volumes.0.hostPath"),
        (container(privileged=True), f"{CONTEXT}.privileged"),
        (container(allowPrivilegeEscalation=True), f"{CONTEXT}.allowPrivilegeEscalation"),
        (container(runAsUser=0), f"{CONTEXT}.runAsUser"),
        (container(runAsNonRoot=False), f"{CONTEXT}.runAsNonRoot"),
        (container(capabilities={"add": ["SYS_ADMIN"]}), f"{CONTEXT}.capabilities.add"),
        (container(capabilities={"$patch": "replace"}), f"{CONTEXT}.capabilities.drop"),
        (container(**{"$patch": "replace"}), f"{CONTEXT}.allowPrivilegeEscalation"),
        (container(seccompProfile={"type": "Unconfined"}), f"{CONTEXT}.seccompProfile"),
        (container(procMount="Unmasked"), f"{CONTEXT}.procMount"),
        (container(windowsOptions={"hostProcess": True}), f"{CONTEXT}.windowsOptions.hostProcess"),
        ({"spec": {"securityContext": {"runAsUser": 0}}}, f"{CONTEXT}.runAsUser"),
        ({"spec": {"securityContext": {"runAsNonRoot": None}}}, f"{CONTEXT}.runAsNonRoot"),
        ({"spec": {"securityContext": None}}, f"{CONTEXT}.runAsNonRoot"),
        ({"spec": {"securityContext": {"sysctls": [{"name": "a"}]}}}, "pod_template.spec.securityContext.sysctls"),
        (
            {"spec": {"initContainers": [{"name": "i", "securityContext": {"privileged": True}}]}},
            "pod_template.spec.initContainers.0.securityContext.privileged",
        ),
        (
            {"spec": {"containers": [{"name": "agent", "ports": [{"containerPort": 1, "hostPort": 1}]}]}},
            "pod_template.spec.containers.0.ports.0.hostPort",
        ),
    ],
)
def test_a_pod_that_would_reach_its_node_or_be_root_is_refused_with_its_path(
    template: dict[str, Any], path: str
) -> None:
    found = problems(pod_template=template)
    assert path in found
    assert "a pod that runs Terraform" in found[path]


@pytest.mark.parametrize(
    ("pods", "path"),
    [
        ({"image": ""}, "image"),
        ({"image": "a b"}, "image"),
        ({"resources": {"requests": {"cpu": "much"}}}, "resources.requests.cpu"),
        ({"env": [{"value": "1"}]}, "env.0.name"),
        ({"env": [{"name": "TERRASLOT_POOL", "value": "x"}]}, "env.0.name"),
        ({"volumes": [{"name": "work", "emptyDir": {}}]}, "volumes.0.name"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "volumes.0.hostPath"),
        ({"volume_mounts": [{"name": "v", "mountPath": "/v"}]}, "volume_mounts.0.name"),
        ({"volume_mounts": [{"name": "v", "mountPath": "v"}]}, "volume_mounts.0.mountPath"),
        ({"volume_mounts": [{"name": "v", "mountPath": "/etc/terraslot/secret/"}]}, "volume_mounts.0.mountPath"),
        ({"labels": {"terraslot.dev/pool": "other"}}, "labels"),
        ({"annotations": {"karpenter.sh/do-not-disrupt": "true"}}, "annotations"),
        ({"labels": {"a": "no spaces"}}, "labels"),
        ({"node_selector": {"a b": "c"}}, "node_selector"),
        ({"work_volume": {"storage_class": "fast"}}, "work_volume"),
        ({"user": 0}, "user"),
        ({"service_account": "No"}, "service_account"),
        ({"grace_seconds": 1}, "grace_seconds"),
        (
            {"pod_template": {"spec": {"terminationGracePeriodSeconds": 1}}},
            "pod_template.spec.terminationGracePeriodSeconds",
        ),
        (
            {"pod_template": {"spec": {"terminationGracePeriodSeconds": None}}},
            "pod_template.spec.terminationGracePeriodSeconds",
        ),
        ({"pod_template": {"kind": "Pod"}}, "pod_template.kind"),
        ({"env": [{"name": 1}]}, "env.0.name"),
        ({"volumes": [{"name": "v", "hostPath": None}]}, "volumes.0.hostPath"),
        ({"pod_template": {"metadata": {"name": "x"}}}, "pod_template.metadata.name"),
        (
            {"pod_template": {"metadata": {"labels": {"terraslot.dev/busy": "true"}}}},
            "pod_template.metadata.labels.terraslot.dev/busy",
        ),
        (
            {"pod_template": {"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "true"}}}},
            "pod_template.metadata.annotations.karpenter.sh/do-not-disrupt",
        ),
        ({"pod_template": {"spec": {"volumes": [{"name": "secret"}]}}}, "pod_template.spec.volumes.0.name"),
        (
            {"pod_template": {"spec": {"containers": [{"name": "agent", "env": [{"name": "TERRASLOT_AGENT"}]}]}}},
            "pod_template.spec.containers.0.env.0.name",
        ),
        (
            {"pod_template": {"spec": {"containers": [{"name": "agent", "$patch": "delete"}]}}},
            "pod_template.spec.containers",
        ),
        ({"pod_template": {"spec": {"containers": [{}]}}}, "pod_template.spec.containers.0"),
        ({"pod_template": {"spec": "x"}}, "pod_template"),
        ({"pod_template": {"metadata": None}}, "pod_template"),
        ({"pod_template": {"metadata": []}}, "pod_template"),
        ({"pod_template": {"metadata": {"labels": None}}}, "pod_template.metadata"),
        ({"pod_template": {"spec": {"securityContext": "x"}}}, "pod_template"),
        ({"pod_template": {"spec": {"containers": "x"}}}, "pod_template"),
    ],
)
def test_an_invalid_field_is_refused_with_its_path(pods: dict[str, Any], path: str) -> None:
    assert path in problems(**pods)


def test_a_container_that_a_template_adds_is_as_confined_as_the_agent() -> None:
    spec(pod_template={"spec": {"containers": [{"name": "proxy", "image": "proxy:1"}]}})


def test_all_problems_are_reported_at_once() -> None:
    found = problems(pod_template={"spec": {"hostNetwork": True, "hostPID": True}})
    assert found.keys() == {"pod_template.spec.hostNetwork", "pod_template.spec.hostPID"}


def test_type_and_section_belong_together() -> None:
    with pytest.raises(ValidationError, match="needs a section 'kubernetes'"):
        PoolSpec(name="default", type="kubernetes")
    with pytest.raises(ValidationError, match="is for pools of that type"):
        PoolSpec(name="default", kubernetes={"image": "agent:1"})  # type: ignore[arg-type]


def test_minimum_above_maximum_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"min_agents \(4\) is above max_agents \(3\)"):
        PoolLimits(min_agents=4, max_agents=3)


def test_the_grace_period_fits_the_longest_apply_unless_it_is_set() -> None:
    """F19."""
    whole = spec()
    assert whole.grace_seconds == whole.timeouts.apply + whole.timeouts.interrupt
    assert spec(grace_seconds=600).grace_seconds == 600


def test_a_field_of_a_newer_version_is_kept() -> None:
    """Only what a person edits is refused for an unknown field: see tests/cli/test_pools.py."""
    assert spec(colour="red").model_dump(mode="json")["kubernetes"]["colour"] == "red"


def test_a_configuration_survives_being_stored() -> None:
    full = spec(
        env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        tolerations=[{"operator": "Exists"}],
        pod_template={"spec": {"hostAliases": [{"ip": "10.0.0.1"}]}},
        labels={"team": "net"},
    )
    assert PoolSpec.model_validate(full.model_dump(mode="json")) == full
