"""The pod of an agent, as a dict."""

from __future__ import annotations

import re
from typing import Any

import pytest
from kubernetes import client

from workers.cluster.kubernetes import labels
from workers.cluster.kubernetes.manifest import pod_manifest, template_digest
from workers.core.pools import PoolTimeouts
from workers.specs.kubernetes import KubernetesSpec
from workers.specs.pod_security import violations
from workers.specs.pools import PoolSpec


def manifest(*, timeouts: PoolTimeouts | None = None, **pods: Any) -> dict[str, Any]:
    spec = PoolSpec(
        name="default", type="kubernetes", kubernetes={"image": "agent:1", **pods}, timeouts=timeouts or PoolTimeouts()
    )
    return pod_manifest(spec, "default-1", instance="release", environment={"TERRASLOT_LOG_LEVEL": "INFO"})


def agent(pod: dict[str, Any]) -> dict[str, Any]:
    return next(container for container in pod["spec"]["containers"] if container["name"] == "agent")


def variables(pod: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in agent(pod)["env"]}


FULL: dict[str, Any] = {
    "image": "registry.example/agent:1",
    "image_pull_policy": "IfNotPresent",
    "image_pull_secrets": ["registry"],
    "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}},
    "env": [{"name": "HTTPS_PROXY", "value": "http://proxy"}],
    "env_from": [{"secretRef": {"name": "cloud"}}],
    "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "volume_mounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
    "service_account": "agents",
    "service_account_token": True,
    "node_selector": {"disk": "ssd"},
    "tolerations": [{"key": "spot", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "priority_class": "low",
    "runtime_class": "gvisor",
    "labels": {"team": "net"},
    "annotations": {"note": "any text: at all"},
    "grace_seconds": 900,
    "pod_template": {
        "metadata": {"annotations": {"more": "1"}},
        "spec": {"hostname": "h", "containers": [{"name": "proxy", "image": "proxy:1"}]},
    },
}


def test_everything_that_can_be_said_of_a_pool_is_in_its_pods() -> None:
    pod = manifest(**FULL)
    spec, container = pod["spec"], agent(pod)
    assert (container["image"], container["imagePullPolicy"]) == ("registry.example/agent:1", "IfNotPresent")
    assert container["resources"] == {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}}
    assert variables(pod)["HTTPS_PROXY"] == "http://proxy"
    assert container["envFrom"] == FULL["env_from"]
    assert FULL["volumes"][0] in spec["volumes"]
    assert FULL["volume_mounts"][0] in container["volumeMounts"]
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("agents", True)
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert (spec["nodeSelector"], spec["tolerations"]) == ({"disk": "ssd"}, FULL["tolerations"])
    assert (spec["affinity"], spec["priorityClassName"], spec["runtimeClassName"]) == (
        {"podAntiAffinity": {}}, "low", "gvisor",
    )  # fmt: skip
    assert pod["metadata"]["annotations"] == {"note": "any text: at all", "more": "1"}
    assert pod["metadata"]["labels"]["team"] == "net"
    assert spec["hostname"] == "h"
    assert [each["name"] for each in spec["containers"]] == ["agent", "proxy"]


@pytest.mark.parametrize("pods", [{}, FULL], ids=["least", "most"])
def test_the_official_client_takes_it_for_a_pod(pods: dict[str, Any]) -> None:
    pod = manifest(**pods)
    model = client.V1Pod.from_dict(pod)
    assert client.ApiClient().sanitize_for_serialization(model) == pod


@pytest.mark.parametrize("pods", [{}, FULL], ids=["least", "most"])
def test_no_container_may_become_root_or_reach_its_node(pods: dict[str, Any]) -> None:
    spec = manifest(**pods)["spec"]
    assert violations(spec) == []
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_the_account_s_token_is_not_mounted_unless_asked_for() -> None:
    spec = manifest()["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec


def test_plans_outlive_a_container() -> None:
    pod = manifest(work_volume={"size": "5Gi"})
    assert {"name": "work", "emptyDir": {"sizeLimit": "5Gi"}} in pod["spec"]["volumes"]
    mount = next(mount for mount in agent(pod)["volumeMounts"] if mount["name"] == "work")
    assert mount["mountPath"] == variables(pod)["TERRASLOT_WORK_DIR"]
    claimed = manifest(work_volume={"size": "5Gi", "storage_class": "fast"})["spec"]["volumes"][0]
    claim = claimed["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert (claim["storageClassName"], claim["resources"]["requests"]) == ("fast", {"storage": "5Gi"})


@pytest.mark.parametrize(
    ("size", "inits", "repositories"),
    [
        (None, None, None),
        ("5Gi", None, None),
        ("3Gi", str(3 * 2**29), str(3 * 2**28)),
        ("1Gi", str(2**29), str(2**28)),
        ("1500M", "750000000", "375000000"),
        ("1e9", "500000000", "250000000"),
    ],
)
def test_what_an_agent_keeps_leaves_a_quarter_of_a_small_volume_to_runs(
    size: str | None, inits: str | None, repositories: str | None
) -> None:
    """A pod whose volume is full is evicted."""
    told = variables(manifest(work_volume={"size": size}))
    assert told.get("TERRASLOT_INIT_CACHE_BYTES") == inits
    assert told.get("TERRASLOT_GIT_CACHE_BYTES") == repositories


def test_the_agent_is_told_how_long_it_has_and_that_fits_the_longest_apply() -> None:
    """F19."""
    pod = manifest(timeouts=PoolTimeouts(apply=1800, interrupt=100))
    assert pod["spec"]["terminationGracePeriodSeconds"] == 1900
    assert variables(pod)["TERRASLOT_GRACE_SECONDS"] == "1900"


def test_credentials_are_files_and_nothing_secret_is_in_the_environment() -> None:
    pod = manifest()
    assert variables(pod)["TERRASLOT_SECRET_DIR"] == "/etc/terraslot/secret"
    volume = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "secret")
    assert volume["secret"]["secretName"] == "terraslot-pool.release.default"
    assert variables(pod)["TERRASLOT_LOG_LEVEL"] == "INFO"


def test_an_agent_has_the_name_of_its_pod() -> None:
    assert variables(manifest())["TERRASLOT_AGENT"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_a_pod_is_found_by_its_labels() -> None:
    labels = manifest(labels={"app.kubernetes.io/name": "mine"})["metadata"]["labels"]
    assert labels["terraslot.dev/pool"] == "default"
    assert labels["app.kubernetes.io/managed-by"] == "terraslot"
    assert labels["app.kubernetes.io/instance"] == "release"


def test_liveness_is_progress_and_readiness_registration() -> None:
    """F31."""
    container = agent(manifest())
    assert container["livenessProbe"]["exec"]["command"] == ["python", "-m", "agent.probe", "alive"]
    assert container["readinessProbe"]["exec"]["command"] == ["python", "-m", "agent.probe", "ready"]


def test_what_is_known_by_its_name_is_of_one_pool_of_one_control_plane() -> None:
    longest = "x" * 63
    pairs = [("a", "b-c"), ("a-b", "c"), ("a-pool", "b"), ("a", "pool-b"), (longest, longest), (longest, "x" * 62)]
    made = [labels.object_name(kind, *pair) for pair in pairs for kind in ("pool", "deployment")]
    assert len({*made}) == len(made)
    # What the API server asks of the name of a Secret or a ConfigMap.
    valid = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
    assert all(valid.fullmatch(name) and len(name) <= 253 for name in made)


def test_a_pod_is_the_same_for_the_same_configuration() -> None:
    assert manifest(**FULL) == manifest(**FULL)


def test_a_pool_of_another_kind_has_no_pods_of_kubernetes() -> None:
    with pytest.raises(ValueError, match="not one of Kubernetes"):
        pod_manifest(PoolSpec(name="default"), "default-1")


def test_a_pod_shows_from_which_configuration_of_its_pool_it_was_made() -> None:
    """And no setting of the process that made it is part of that."""
    spec = PoolSpec(name="default", type="kubernetes", kubernetes=KubernetesSpec(image="agent:1"))
    newer = PoolSpec(name="default", type="kubernetes", kubernetes=KubernetesSpec(image="agent:2"))
    made = [pod_manifest(spec, "a"), pod_manifest(spec, "b", environment={"TERRASLOT_LOG_LEVEL": "DEBUG"})]
    digests = {pod["metadata"]["labels"]["terraslot.dev/template"] for pod in made}
    assert digests == {template_digest(spec)}
    assert template_digest(newer) not in digests
