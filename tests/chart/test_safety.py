"""No pod of the chart is root, writes where it should not, or holds a permission or a secret that it has no use for."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.chart.rendering import (
    EVERYTHING,
    NAME,
    NAMESPACE,
    URLS,
    VARIANTS,
    Object,
    containers,
    of_kind,
    one,
    pods,
    render,
    variables,
)
from workers.cluster.kubernetes.api import CLUSTER_WIDE, RESOURCES
from workers.protocol.settings import PREFIX
from workers.settings import Settings

_API_SPEAKERS = {"cluster", "pools", "drain"}
_CLUSTER = Path(__file__).parents[2] / "workers" / "cluster" / "kubernetes"
_MODULES = set(_CLUSTER.glob("*.py"))
_EVERY_DAY = _MODULES - {_CLUSTER / "deployments.py"}
# Methods that are given a resource, and what they ask.
_VERBS = {"find": "get", "delete": "delete", "_list": "list", "_orphan": "delete"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_is_of_kubernetes_restricted_level_and_its_root_file_system_is_read_only(variant: str) -> None:
    for component, pod in pods(render(VARIANTS[variant])):
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True, component
        assert context["runAsUser"] > 0, component
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, component
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod["spec"].keys(), component
        assert not any("hostPath" in volume for volume in pod["spec"]["volumes"]), component
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, component


@pytest.mark.parametrize("variant", ["default", "everything"])
def test_only_processes_that_call_the_cluster_have_a_token_for_it(variant: str) -> None:
    objects = render(VARIANTS[variant])

    token = {name: pod["spec"]["automountServiceAccountToken"] for name, pod in pods(objects)}
    account = {name: pod["spec"].get("serviceAccountName") for name, pod in pods(objects)}

    assert {name for name, mounted in token.items() if mounted} == _API_SPEAKERS & token.keys()
    assert {name for name, named in account.items() if named} == _API_SPEAKERS & token.keys()
    assert not any(each["automountServiceAccountToken"] for each in of_kind(objects, "ServiceAccount"))


def test_the_agents_account_is_bound_to_no_role() -> None:
    objects = render(EVERYTHING)
    [binding] = of_kind(objects, "RoleBinding")

    assert one(objects, "ServiceAccount", f"{NAME}-agent")["metadata"]["namespace"] == "agents"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}]
    [of_cluster] = of_kind(objects, "ClusterRoleBinding")
    assert of_cluster["subjects"] == binding["subjects"]
    assert of_kind(render(), "ClusterRole", "ClusterRoleBinding") == []


@pytest.mark.parametrize(
    ("values", "modules"), [({}, _EVERY_DAY), (EVERYTHING, _MODULES)], ids=["every day", "adoption"]
)
def test_the_role_allows_what_the_code_calls_and_nothing_else(values: Object, modules: set[Path]) -> None:
    [role] = of_kind(render(values), "Role")
    of_nodes = of_kind(render(values), "ClusterRole")
    called = _called(modules)
    of_cluster = {call for call in called if call[1] in CLUSTER_WIDE}

    assert role["metadata"]["namespace"] == values.get("agents", {}).get("namespace", NAMESPACE)
    assert _allowed(role) == called - of_cluster, "the Role is in charts/terraslot/templates/permissions.yaml"
    assert [_allowed(each) for each in of_nodes] == ([of_cluster] if values else [])


def _allowed(role: Object) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _called(modules: set[Path]) -> set[tuple[str, str, str]]:
    """What the code asks of the API: calls such as ``api.request("create", "pods")`` or ``api.find("secrets")``."""
    calls = (
        node
        for module in modules
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    )
    return {
        ("apps" if RESOURCES[resource][0] == "AppsV1Api" else "", resource, verb)
        for call in calls
        for resource, verb in _asked(call)
    }


def _asked(call: ast.Call) -> list[tuple[str, str]]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    words = [each.value for each in call.args if isinstance(each, ast.Constant)]
    if name == "patch_pod":
        return [("pods", "patch")]
    if name == "request" and len(words) > 1 and words[1] in RESOURCES:
        return [(str(words[1]), str(words[0]))]
    if name in _VERBS and words and words[0] in RESOURCES:
        return [(str(words[0]), _VERBS[name])]
    return []


def test_a_url_with_a_password_stands_in_secrets_only() -> None:
    for each in render(URLS):
        shown = "rAbB1t" in str(each)
        assert not shown or each["kind"] == "Secret", each["metadata"]["name"]


def test_generated_passwords_and_keys_stand_in_secrets_only() -> None:
    objects = render()
    made = [
        value
        for secret in of_kind(objects, "Secret")
        for value in {**secret.get("stringData", {}), **secret.get("data", {})}.values()
    ]

    assert len(made) == 6
    for each in objects:
        if each["kind"] != "Secret":
            assert not any(value in str(each) for value in made), each["metadata"]["name"]


@pytest.mark.parametrize("variant", ["default", "existing secrets"])
def test_a_process_knows_the_connections_that_it_needs_and_no_others(variant: str) -> None:
    redis, database, keys = "TERRASLOT_REDIS_URL", "TERRASLOT_DATABASE_URL", "TERRASLOT_ENCRYPTION_KEYS"
    needed = {
        "control": {redis, database, keys},
        "cluster": {redis, database, keys},
        "reports": {redis, database},
        "pools": {redis, database, keys},
        "flower": {redis, database},
        "drain": {redis, database},
        "test": {redis, database},
        "beat": {redis},
        "migrate": {database},
    }

    for component, pod in pods(render({**VARIANTS[variant], "pools": {"default": {}}})):
        for container in containers(pod):
            known = {name for name, each in variables(container).items() if "valueFrom" in each}
            assert known - {"TERRASLOT_BROKER_URL"} == needed.get(component, set()), component
            assert ("TERRASLOT_BROKER_URL" in known) == (variant == "existing secrets" and redis in known), component


def test_every_variable_of_the_chart_is_a_setting() -> None:
    given = {name for _, pod in pods(render(EVERYTHING)) for each in containers(pod) for name in variables(each)}
    ours = {name.removeprefix(PREFIX).lower() for name in given if name.startswith(PREFIX)}

    assert ours <= Settings.model_fields.keys()


def test_processes_that_create_agents_do_so_in_their_namespace_under_the_name_that_selects_them() -> None:
    for values, namespace in (({}, NAMESPACE), (EVERYTHING, "agents")):
        objects = render(values, name="two.words")
        for component, pod in pods(objects):
            if component in _API_SPEAKERS:
                given = variables(containers(pod)[0])
                assert given["TERRASLOT_NAMESPACE"]["value"] == namespace
                assert given["TERRASLOT_INSTANCE"]["value"] == "two-words"
                assert pod["metadata"]["labels"]["app.kubernetes.io/instance"] == "two-words"
                Settings(namespace=namespace, instance=given["TERRASLOT_INSTANCE"]["value"])


def test_each_rule_of_the_role_says_which_call_needs_it() -> None:
    template = (Path(__file__).parents[2] / "charts/terraslot/templates/permissions.yaml").read_text()
    comment = ""
    for line in template.splitlines():
        if line.strip().startswith("#"):
            comment += line
        elif match := re.match(r" +verbs: \[(.*)\]", line):
            assert all(f"{verb}" in comment for verb in match[1].split(", ")), line
            comment = ""


def test_the_existing_secrets_are_used_by_their_names_and_keys() -> None:
    control = one(render(VARIANTS["existing secrets"]), "Deployment", f"{NAME}-control")
    [worker] = containers(control["spec"]["template"])
    sources = {
        name: each["valueFrom"]["secretKeyRef"] for name, each in variables(worker).items() if "valueFrom" in each
    }

    assert sources == {
        "TERRASLOT_REDIS_URL": {"name": "the-redis", "key": "TERRASLOT_REDIS_URL"},
        "TERRASLOT_BROKER_URL": {"name": "the-broker", "key": "url"},
        "TERRASLOT_DATABASE_URL": {"name": "the-database", "key": "uri"},
        "TERRASLOT_ENCRYPTION_KEYS": {"name": "the-keys", "key": "TERRASLOT_ENCRYPTION_KEYS"},
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_secret_that_a_pod_names_is_the_users_or_there_before_the_pod(variant: str) -> None:
    objects = render(VARIANTS[variant])
    own = {secret["metadata"]["name"]: secret for secret in of_kind(objects, "Secret")}
    hooks = {each["metadata"]["labels"]["app.kubernetes.io/component"]: each for each in objects if _early(each)}

    for component, pod in pods(objects):
        for name in _secrets_of(pod):
            if name.startswith(NAME):
                assert name in own, f"{component} names {name}"
                assert component not in hooks or _early(own[name]), f"{component} runs before {name} is there"


def _early(each: Object) -> bool:
    return "pre-install" in each["metadata"].get("annotations", {}).get("helm.sh/hook", "")


def _secrets_of(pod: Object) -> set[str]:
    of_variables = {
        each["valueFrom"]["secretKeyRef"]["name"]
        for container in containers(pod)
        for each in variables(container).values()
        if "secretKeyRef" in each.get("valueFrom", {})
    }
    return of_variables | {volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume}
