"""What the product relies on of an API server, shown on the double and, unchanged, on any real cluster.

``TERRASLOT_TEST_KUBECONFIG`` names the cluster; its user must be allowed to create namespaces. Nothing here needs a
node: pods ask for one that does not exist, or are bound to one that does not.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiException, CoreV1Api
from kubernetes.config import new_client_from_config

from tests.chart.rendering import NAME, of_kind, render
from tests.kubernetes.conftest import NOWHERE, Target, pool
from tests.waiting import eventually
from workers.cluster.kubernetes import labels
from workers.cluster.kubernetes.backend import KubernetesPods
from workers.cluster.kubernetes.manifest import pod_manifest, secret_name
from workers.core.errors import NotPermitted, PodRefused, QuotaExceeded
from workers.core.pods import Pod, PodPhase, SafeToEvict
from workers.protocol.errors import Unavailable
from workers.specs.pools import PoolSpec

POOL = pool(node_selector=NOWHERE)
BOUND = pool(pod_template={"spec": {"nodeName": "terraslot-no-such-node"}})


def refused(call: Any, *arguments: Any, **options: Any) -> tuple[int, str]:
    """Return status and reason of a call that is refused."""
    with pytest.raises(ApiException) as caught:
        call(*arguments, **options)
    return caught.value.status, json.loads(caught.value.body)["reason"]


def why_not(create: Any, spec: PoolSpec) -> str:
    """Return why a pod of some name can't be created; nothing where it can."""
    try:
        create(spec, f"default-{uuid.uuid4().hex[:6]}")
    except Unavailable as error:
        return str(error)
    return ""


def manifest(target: Target, name: str, spec: PoolSpec = POOL) -> dict[str, Any]:
    return pod_manifest(spec, name)


def only(listed: list[Pod]) -> Pod:
    (pod,) = listed
    return pod


class TestCreating:
    def test_again_under_the_same_name_is_told_from_other_conflicts_by_its_reason(self, target: Target) -> None:
        target.core.create_namespaced_pod(target.namespace, manifest(target, "a"))
        assert refused(target.core.create_namespaced_pod, target.namespace, manifest(target, "a")) == (
            409,
            "AlreadyExists",
        )

    def test_is_idempotent_by_name(self, target: Target) -> None:
        backend = target.backend()
        backend.create(POOL, "default-1")
        first = only(backend.list("default"))
        backend.create(POOL, "default-1")
        assert only(backend.list("default")).uid == first.uid

    def test_gives_what_a_pod_waits_for(self, target: Target) -> None:
        backend = target.backend()
        backend.create(POOL, "default-1")
        pod = only(backend.list("default"))
        assert (pod.name, pod.pool, pod.phase, pod.deleting, pod.safe_to_evict, pod.controlled) == (
            "default-1", "default", PodPhase.PENDING, False, True, False,
        )  # fmt: skip

    def test_refuses_an_invalid_pod_in_the_servers_words(self, target: Target) -> None:
        too_much = pool(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})
        with pytest.raises(PodRefused, match="must be less than or equal to cpu limit"):
            target.backend().create(too_much, "default-1")

    def test_refuses_an_unknown_field(self, target: Target) -> None:
        with pytest.raises(PodRefused, match=r"spec\.nodeSelecter"):
            target.backend().create(pool(pod_template={"spec": {"nodeSelecter": {}}}), "default-1")

    def test_in_a_namespace_that_is_not_there_says_so(self, target: Target) -> None:
        elsewhere = Target(target.kubeconfig, "terraslot-no-such-namespace", target.api)
        with pytest.raises(Unavailable, match="namespace terraslot-no-such-namespace does not exist"):
            elsewhere.backend().create(POOL, "default-1")

    def test_in_a_namespace_that_is_being_deleted_is_forbidden(self, target: Target) -> None:
        target.backend().create(BOUND, "default-1")  # which keeps the namespace from being gone
        target.core.delete_namespace(target.namespace)
        assert eventually(lambda: "is being deleted" in why_not(target.backend().create, POOL))

    def test_is_tried_out_without_leaving_anything(self, target: Target) -> None:
        backend = target.backend()
        backend.check(POOL)
        assert backend.list("default") == []
        with pytest.raises(PodRefused):
            backend.check(pool(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}))

    def test_several_creates_all_of_them(self, target: Target) -> None:
        backend, names = target.backend(), [f"default-{number}" for number in range(20)]
        assert backend.create_all(POOL, names) == {}
        assert sorted(pod.name for pod in backend.list("default")) == sorted(names)


class TestAQuota:
    @pytest.fixture(autouse=True)
    def _quota(self, target: Target) -> None:
        quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "2", "requests.cpu": "10"}}}
        target.core.create_namespaced_resource_quota(target.namespace, quota)
        status = {"status": {"hard": quota["spec"]["hard"], "used": {"pods": "0", "requests.cpu": "0"}}}
        # Where a controller counts, this only says it earlier.
        target.core.patch_namespaced_resource_quota_status("few", target.namespace, status)

    def test_refuses_one_pod_too_many_as_forbidden_and_the_rest_is_not_asked_for(self, target: Target) -> None:
        failures = target.backend().create_all(POOL, ["default-1", "default-2", "default-3", "default-4"])
        assert len(failures) == 2
        assert all(isinstance(error, QuotaExceeded) for error in failures.values())
        assert "exceeded quota: few" in str(next(iter(failures.values())))

    def test_refuses_a_pod_that_does_not_say_what_it_needs(self, target: Target) -> None:
        silent = pool(resources={"requests": {}}, node_selector=NOWHERE)
        with pytest.raises(QuotaExceeded, match=r"must specify requests\.cpu"):
            target.backend().create(silent, "default-1")


class TestListing:
    def test_sees_the_pods_of_one_pool_of_one_control_plane(self, target: Target) -> None:
        backend = target.backend()
        backend.create(POOL, "default-1")
        backend.create(pool("other", node_selector=NOWHERE), "other-1")
        foreign = pod_manifest(POOL, "default-2", instance="another")
        target.core.create_namespaced_pod(target.namespace, foreign)
        assert [pod.name for pod in backend.list("default")] == ["default-1"]

    def test_finds_orphaned_pods_by_what_their_pool_is_not(self, target: Target) -> None:
        backend = target.backend()
        for name in ("a", "b", "c"):
            backend.create(pool(name, node_selector=NOWHERE), f"{name}-1")
        assert eventually(lambda: [pod.pool for pod in backend.orphaned_pods(["a", "b"])] == ["c"])
        assert eventually(lambda: {pod.pool for pod in backend.orphaned_pods([])} == {"a", "b", "c"})

    def test_in_pages_reads_one_state(self, target: Target) -> None:
        """F24: one page is not all; and what is created between two pages is in none."""
        names = [f"default-{number}" for number in range(7)]
        target.backend().create_all(POOL, names)
        selector = labels.selector(labels.TERRASLOT, "default")
        first = target.core.list_namespaced_pod(target.namespace, label_selector=selector, limit=3)
        assert first.metadata.remaining_item_count is None
        target.backend().create(POOL, "default-0-between")
        seen, token = [pod.metadata.name for pod in first.items], first.metadata._continue
        while token:
            page = target.core.list_namespaced_pod(target.namespace, label_selector=selector, limit=3, _continue=token)
            seen, token = seen + [pod.metadata.name for pod in page.items], page.metadata._continue
        assert seen == names

    def test_with_a_token_that_is_none_is_a_bad_request(self, target: Target) -> None:
        assert refused(target.core.list_namespaced_pod, target.namespace, limit=1, _continue="x") == (400, "BadRequest")

    def test_by_an_unknown_field_is_a_bad_request(self, target: Target) -> None:
        call = target.core.list_namespaced_pod
        assert refused(call, target.namespace, field_selector="spec.colour=red")[0] == 400

    def test_in_a_namespace_that_is_not_there_is_empty(self, target: Target) -> None:
        assert target.core.list_namespaced_pod("terraslot-no-such-namespace").items == []


class TestDeleting:
    def test_what_never_ran_leaves_nothing_at_once(self, target: Target) -> None:
        backend = target.backend()
        backend.create(POOL, "default-1")
        assert backend.delete(only(backend.list("default"))) is None
        assert backend.list("default") == []

    def test_a_bound_pod_only_begins_its_end(self, target: Target) -> None:
        """Its processes may still run."""
        backend = target.backend()
        backend.create(BOUND, "default-1")
        left = backend.delete(only(backend.list("default")))
        assert left is not None
        assert left.deleting
        assert only(backend.list("default")).deleting

    def test_a_bound_pod_with_force_is_forgotten_whatever_its_node_says(self, target: Target) -> None:
        backend = target.backend()
        backend.create(BOUND, "default-1")
        pod = only(backend.list("default"))
        assert backend.delete(pod, force=True) is None
        assert backend.list("default") == []
        assert backend.delete(pod, force=True) is None

    def test_another_pod_of_the_same_name_is_refused_by_its_uid(self, target: Target) -> None:
        """F1."""
        backend = target.backend()
        backend.create(POOL, "default-1")
        body = {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}
        call = target.core.delete_namespaced_pod
        assert refused(call, "default-1", target.namespace, body=body) == (409, "Conflict")
        other = Pod("default-1", body["preconditions"]["uid"], "default", 0, PodPhase.RUNNING)
        assert backend.delete(other) is None
        assert len(backend.list("default")) == 1

    def test_what_is_gone_is_no_error(self, target: Target) -> None:
        backend = target.backend()
        backend.create(POOL, "default-1")
        pod = only(backend.list("default"))
        backend.delete(pod)
        assert backend.delete(pod) is None


class TestEviction:
    def test_is_forbidden_and_allowed_again_by_annotations_and_a_label(self, target: Target) -> None:
        """F30."""
        backend = target.backend()
        backend.create(POOL, "default-1")
        assert backend.set_safe_to_evict([SafeToEvict(only(backend.list("default")), safe=False)]) == {}
        found = target.core.read_namespaced_pod("default-1", target.namespace).metadata
        assert found.annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
        assert found.annotations["karpenter.sh/do-not-disrupt"] == "true"
        assert found.labels["terraslot.dev/busy"] == "true"
        assert only(backend.list("default")).safe_to_evict is False
        backend.set_safe_to_evict([SafeToEvict(only(backend.list("default")), safe=True)])
        assert only(backend.list("default")).safe_to_evict is True

    def test_of_another_pod_of_the_same_name_stays_as_it_is(self, target: Target) -> None:
        backend = target.backend()
        backend.create(POOL, "default-1")
        other = Pod("default-1", "00000000-0000-0000-0000-000000000000", "default", 0, PodPhase.RUNNING)
        assert backend.set_safe_to_evict([SafeToEvict(other, safe=False)]) == {}
        assert only(backend.list("default")).safe_to_evict is True

    def test_of_a_pod_that_is_gone_is_no_error(self, target: Target) -> None:
        gone = Pod("default-1", "00000000-0000-0000-0000-000000000000", "default", 0, PodPhase.RUNNING)
        assert target.backend().set_safe_to_evict([SafeToEvict(gone, safe=False)]) == {}


class TestASecret:
    def there(self, target: Target) -> dict[str, Any]:
        """Return the Secrets of the namespace, by name."""
        return {each.metadata.name: each for each in target.core.list_namespaced_secret(target.namespace).items}

    def test_is_written_where_it_differs_and_deleted_once(self, target: Target) -> None:
        backend, name = target.backend(), secret_name("default")
        backend.put_secret(POOL, "{}")
        first = self.there(target)[name]
        backend.put_secret(POOL, "{}")
        assert self.there(target)[name].metadata.resource_version == first.metadata.resource_version
        backend.put_secret(POOL, '{"rotated": true}')
        assert self.there(target)[name].data != first.data
        for _ in range(2):
            backend.delete_secret(POOL)
            assert name not in self.there(target)
        backend.put_secret(POOL, "{}")
        assert self.there(target)[name].metadata.uid != first.metadata.uid

    @pytest.mark.parametrize("labels_there", [None, labels.of_pool("another", "default"), labels.of_pool("x", "other")])
    def test_that_is_not_the_pools_is_neither_written_over_nor_deleted(
        self, target: Target, labels_there: dict[str, str] | None
    ) -> None:
        name = secret_name("default")
        foreign = {"metadata": {"name": name, "labels": labels_there}, "stringData": {"a": "b"}}
        before = target.core.create_namespaced_secret(target.namespace, foreign).metadata
        with pytest.raises(PodRefused, match=f"The Secret {name} in the namespace .* is not this control plane's"):
            target.backend().put_secret(POOL, "{}")
        target.backend().delete_secret(POOL)
        after = self.there(target)[name].metadata
        assert (after.uid, after.resource_version) == (before.uid, before.resource_version)

    def test_of_the_pool_of_that_name_of_another_control_plane_is_another(self, target: Target) -> None:
        ours, theirs = target.backend(), target.backend(instance="another")
        ours.put_secret(POOL, "{}")
        theirs.put_secret(POOL, '{"theirs": true}')
        assert len({name for name in self.there(target) if name.startswith("terraslot-pool.")}) == 2
        ours.delete_secret(POOL)
        assert {name for name in self.there(target) if name.startswith("terraslot-pool.")} == {
            secret_name("default", instance="another")
        }

    def test_another_secret_of_the_same_name_is_refused_by_its_uid(self, target: Target) -> None:
        target.backend().put_secret(POOL, "{}")
        body = {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}
        call = target.core.delete_namespaced_secret
        assert refused(call, secret_name("default"), target.namespace, body=body) == (409, "Conflict")


class TestAServiceAccount:
    def test_of_the_chart_may_do_everything_that_is_done(self, target: Target, tmp_path: Path) -> None:
        roles = of_kind(render({"agents": {"adoptDeployments": True}}), "Role")
        (role,) = (role for role in roles if role["metadata"]["name"] == NAME)
        backend = target.backend(account(target, tmp_path, *role["rules"]))
        eventually(lambda: permitted(backend))
        assert backend.create_all(POOL, ["default-1", "default-2"]) == {}
        first, second = backend.list("default")
        assert backend.set_safe_to_evict([SafeToEvict(first, safe=False)]) == {}
        target.core.create_namespaced_event(target.namespace, warning(target, first))
        assert eventually(lambda: backend.start_problem(first)) == "FailedMount: no such volume"
        assert backend.cordoned_nodes() is None
        assert backend.delete(second) is None
        for content in ("{}", '{"rotated": true}', '{"rotated": true}'):
            backend.put_secret(POOL, content)
        backend.check(pool(node_selector=NOWHERE, image_pull_secrets=[secret_name("default")]))
        assert eventually(lambda: backend.orphaned_pods(["x"]))
        backend.delete_secret(POOL)
        names = [secret.metadata.name for secret in target.core.list_namespaced_secret(target.namespace).items]
        assert secret_name("default") not in names
        create_deployment(target)
        backend.deployments.label_pods("default", "old")
        assert backend.deployments.adopt("default", "old") is not None
        backend.deployments.expect("default", "old")

    def test_of_the_chart_may_do_nothing_else(self, target: Target, tmp_path: Path) -> None:
        roles = of_kind(render(), "Role")
        (role,) = (role for role in roles if role["metadata"]["name"] == NAME)
        worker = account(target, tmp_path, *role["rules"])
        eventually(lambda: permitted(target.backend(worker)))
        core = CoreV1Api(new_client_from_config(worker))
        calls = (
            lambda: core.delete_collection_namespaced_pod(target.namespace),
            lambda: core.list_namespaced_secret(target.namespace),
            lambda: core.read_namespaced_pod_log("default-1", target.namespace),
            lambda: core.connect_get_namespaced_pod_exec("default-1", target.namespace),
            lambda: core.list_namespaced_pod("kube-system"),
            core.list_node,
            lambda: core.create_namespaced_service_account(target.namespace, {"metadata": {"name": "x"}}),
        )
        for call in calls:
            with pytest.raises(ApiException) as caught:
                call()
            assert caught.value.status == 403
        core.api_client.close()

    def test_without_a_verb_is_told_which(self, target: Target, tmp_path: Path) -> None:
        rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
        backend = target.backend(account(target, tmp_path, rule))
        eventually(lambda: permitted(backend))
        with pytest.raises(NotPermitted, match=f"create pods in the namespace {target.namespace}.*verb 'create'"):
            backend.create(POOL, "default-1")

    def test_that_is_unknown_is_told_so(self, target: Target, tmp_path: Path) -> None:
        path = as_bearer(target, "stranger", tmp_path / "stranger")
        with pytest.raises(NotPermitted, match="its credentials are not valid"):
            target.backend(str(path)).list("default")


class TestANode:
    @pytest.fixture
    def node(self, target: Target) -> Iterator[str]:
        """Create a node that nobody runs."""
        name = f"terraslot-test-{uuid.uuid4().hex[:8]}"
        target.core.create_node({"metadata": {"name": name}})
        yield name
        target.core.delete_node(name)

    @pytest.fixture
    def reader(self, target: Target, tmp_path: Path) -> Iterator[KubernetesPods]:
        """Return the backend of an account that may read nodes, by the chart's ClusterRole, and nothing else."""
        (rules,) = (role["rules"] for role in of_kind(render({"agents": {"watchNodes": True}}), "ClusterRole"))
        name = f"terraslot-test-{uuid.uuid4().hex[:8]}"
        target.rbac.create_cluster_role({"metadata": {"name": name}, "rules": rules})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        subjects = [{"kind": "ServiceAccount", "name": "worker", "namespace": target.namespace}]
        binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects}
        target.rbac.create_cluster_role_binding(binding)
        kubeconfig = account(target, tmp_path)
        eventually(lambda: target.backend(kubeconfig).cordoned_nodes() is not None)
        yield target.backend(kubeconfig)
        target.rbac.delete_cluster_role_binding(name)
        target.rbac.delete_cluster_role(name)

    def test_that_takes_no_pods_is_told_from_others(self, target: Target, node: str, reader: KubernetesPods) -> None:
        """F45."""
        assert node not in (reader.cordoned_nodes() or ())
        target.core.patch_node(node, {"spec": {"unschedulable": True}})
        eventually(lambda: node in (reader.cordoned_nodes() or ()))
        target.core.patch_node(node, {"spec": {"unschedulable": None}})
        eventually(lambda: node not in (reader.cordoned_nodes() or ()))

    def test_that_nobody_runs_is_not_ready_and_one_that_is_gone_is_told_as_such(
        self, node: str, reader: KubernetesPods
    ) -> None:
        assert reader.node_condition(node) == "NotReady"
        assert reader.node_condition("terraslot-no-such-node") == "deleted"


class TestADeployment:
    def test_that_is_adopted_and_restored_leaves_its_pods_as_they_are(self, target: Target) -> None:
        """S18: owners go, pods stay; and the Deployment, when it is there again, does not get hold of them."""
        create_deployment(target)
        listed = target.core.list_namespaced_pod
        try:
            eventually(lambda: len(listed(target.namespace).items) == 2, 30)
        except AssertionError:
            pytest.skip("no controllers run in this cluster")
        before = {pod.metadata.uid for pod in listed(target.namespace).items}
        deployments = target.backend().deployments
        eventually(lambda: deployments.adopt("default", "old") is None, 60)
        after = listed(target.namespace).items
        assert {pod.metadata.uid for pod in after} == before
        assert not any(pod.metadata.owner_references for pod in after)
        assert {pod.name for pod in target.backend().list("default")} == {pod.metadata.name for pod in after}
        deployments.restore("default", "old")
        eventually(lambda: len(listed(target.namespace).items) == 4, 60)
        single = [pod for pod in listed(target.namespace).items if not pod.metadata.owner_references]
        assert {pod.metadata.uid for pod in single} == before


def create_deployment(target: Target) -> None:
    """Create a Deployment of two pods that run nowhere."""
    spec = {"nodeSelector": NOWHERE, "containers": [{"name": "agent", "image": "registry.invalid/agent:1"}]}
    template = {"metadata": {"labels": {"app": "old"}}, "spec": spec}
    deployment = {"replicas": 2, "selector": {"matchLabels": {"app": "old"}}, "template": template}
    target.apps.create_namespaced_deployment(target.namespace, {"metadata": {"name": "old"}, "spec": deployment})


def account(target: Target, tmp_path: Path, *rules: dict[str, Any]) -> str:
    """Return the kubeconfig of an account with these rules."""
    namespace = target.namespace
    target.core.create_namespaced_service_account(namespace, {"metadata": {"name": "worker"}})
    target.rbac.create_namespaced_role(namespace, {"metadata": {"name": "worker"}, "rules": list(rules)})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "worker"}
    subjects = [{"kind": "ServiceAccount", "name": "worker", "namespace": namespace}]
    binding = {"metadata": {"name": "worker"}, "roleRef": reference, "subjects": subjects}
    target.rbac.create_namespaced_role_binding(namespace, binding)
    answer = target.core.create_namespaced_service_account_token("worker", namespace, {"spec": {"audiences": None}})
    return str(as_bearer(target, answer.status.token, tmp_path / "worker"))


def warning(target: Target, pod: Pod) -> dict[str, Any]:
    """Return the event that a kubelet leaves for a pod whose volume it can't mount."""
    involved = {"kind": "Pod", "namespace": target.namespace, "name": pod.name, "uid": pod.uid}
    head = {"metadata": {"name": f"{pod.name}.mount"}, "involvedObject": involved}
    return {**head, "type": "Warning", "reason": "FailedMount", "message": "no such volume"}


def permitted(backend: Any) -> bool:
    """A real server's authorizer learns of a new Role a moment later."""
    try:
        backend.list("default")
    except NotPermitted:
        return False
    return True


def as_bearer(target: Target, token: str, path: Path) -> Path:
    """Write the target's kubeconfig with a token for its user."""
    there = Path(target.kubeconfig)
    config: dict[str, Any] = yaml.safe_load(there.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    for each in config["clusters"]:
        if authority := each["cluster"].get("certificate-authority"):
            each["cluster"]["certificate-authority"] = str(there.parent / authority)
    path.write_text(yaml.safe_dump(config))
    return path
