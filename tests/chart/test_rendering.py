"""The chart renders, in every documented variant, to what Kubernetes takes; and refuses invalid values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from helm_python import HelmError, lint

from tests.chart import kubernetes_schema
from tests.chart.rendering import (
    CHART,
    EXISTING,
    NAME,
    NAMESPACE,
    URLS,
    VARIANTS,
    Object,
    chart,
    containers,
    notes,
    of_kind,
    one,
    pods,
    render,
    with_value,
)
from workers.core.pools import PoolLimits, PoolTimeouts
from workers.protocol.sources import without_credentials

_VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
_TWO_DATABASES = {**URLS["database"], "existingSecret": {"name": "other"}}
_GIT = {"type": "git", "url": "https://git.example.com/net.git"}
_ARCHIVE = {"type": "archive", "url": "https://files.example.com/net.zip", "sha256": "0" * 64}
_NODES = {"name": "nodes", "hostPath": {"path": "/"}}


def _pool(**values: Any) -> Object:
    return {"pools": {"a": values}}


def _pods(**values: Any) -> Object:
    return _pool(kubernetes=values)


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_lint_finds_nothing(variant: str) -> None:
    report = lint(CHART, VARIANTS[variant], strict=True, namespace=NAMESPACE)

    assert [message for message in report["messages"] if message["severity"] > 1] == []
    assert report["errors"] == []


@pytest.mark.parametrize(
    ("variant", "version"),
    [*((variant, kubernetes_schema.NEWEST) for variant in VARIANTS), ("everything", kubernetes_schema.OLDEST)],
)
def test_kubernetes_takes_every_object_and_knows_every_field(variant: str, version: str) -> None:
    objects = render(VARIANTS[variant])
    own = [each for each in objects if (each["apiVersion"], each["kind"]) not in kubernetes_schema.FOREIGN]

    assert [problem for each in own for problem in kubernetes_schema.problems(each, version)] == []


def test_kubernetes_schema_would_notice_a_misspelt_field_and_a_wrong_type() -> None:
    deployment = one(render(), "Deployment", f"{NAME}-beat")
    misspelt = with_value(deployment, ["spec", "template", "spec", "hostUser"], False)
    wrong = with_value(deployment, ["spec", "replicas"], "1")

    for spoilt in (misspelt, wrong):
        assert len(kubernetes_schema.problems(spoilt, kubernetes_schema.NEWEST)) == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_two_objects_have_the_same_name(variant: str) -> None:
    names = Counter(
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in render(VARIANTS[variant])
    )

    assert [name for name, count in names.items() if count > 1] == []


def test_every_operators_object_is_rendered_by_the_variant_that_enables_everything() -> None:
    rendered = {(each["apiVersion"], each["kind"]) for each in render(VARIANTS["everything"])}

    assert rendered >= kubernetes_schema.FOREIGN


def _mappings(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(values, dict) and (values or not path):
        yield path
        for key, value in values.items():
            yield from _mappings(value, (*path, key))


# Mappings that are Kubernetes' or the user's own: any label, quantity or selector may be in them.
_FREE = {"dns", "agentEgress", "labels", "requests", "limits"}
_CLOSED = [path for path in _mappings(_VALUES) if not _FREE & set(path)]


@pytest.mark.parametrize(
    "path", [*_CLOSED, ("pools", "a"), ("pools", "a", "kubernetes"), ("workspaces", "a")], ids=".".join
)
def test_an_unknown_value_is_refused_at_every_depth(path: tuple[str, ...]) -> None:
    with pytest.raises(HelmError, match="surprise"):
        render(with_value({}, [*path, "surprise"], 1))


def test_the_schema_closes_every_object_whose_properties_it_names() -> None:
    def open_ones(schema: Any, path: str = "$") -> Iterator[str]:
        if isinstance(schema, list):
            for number, each in enumerate(schema):
                yield from open_ones(each, f"{path}[{number}]")
        elif isinstance(schema, dict):
            if isinstance(schema.get("properties"), dict) and schema.get("additionalProperties") is not False:
                yield path
            for key, each in schema.items():
                yield from open_ones(each, f"{path}.{key}")

    assert list(open_ones(chart().schema)) == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"redis": URLS["redis"]}, "Exactly one of redis.url, redis.existingSecret.name and valkey.enabled"),
        ({"valkey": {"enabled": False}}, "given: none"),
        ({**URLS, "database": _TWO_DATABASES}, "given: database.url, database.existingSecret.name"),
        ({"flower": {"ingress": {"enabled": True}}}, "flower.auth.existingSecret"),
        ({"flower": {"enabled": False}, "monitoring": {"serviceMonitor": {"enabled": True}}}, "needs flower.enabled"),
        ({**EXISTING, "control": {"autoscaling": {"enabled": True}}}, "control.autoscaling.redis.address"),
        ({"redis": {"url": "http://redis"}}, "/redis/url"),
        ({"pools": {"Big One": {}}}, "Big One"),
        ({"pools": {"big": {"limits": {"min_agents": -1}}}}, "/pools/big/limits/min_agents"),
        ({"workspaces": {"network": {}}}, "source"),
        ({"control": {"replicas": 0}}, "/control/replicas"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        (_pool(limits={"min_agents": 5, "max_agents": 2}), "pools.a.limits: min_agents (5) is above max_agents (2)"),
        (_pool(limits={"min_agents": 4}), "pools.a.limits: min_agents (4) is above max_agents (3)"),
        (_pool(timeouts={"silent": 300}), "pools.a.timeouts: silent (300 s) must be shorter than dead (300 s)"),
        (_pool(type="local", kubernetes={"image": "a"}), "pools.a: the section 'kubernetes'"),
        (_pods(resources={"requests": {"cpu": "lots"}}), "/pools/a/kubernetes/resources/requests/cpu"),
        (_pods(hostNetwork=True), "'hostNetwork' not allowed"),
        (_pods(pod_template={"spec": {"hostNetwork": True}}), "pools.a.kubernetes.pod_template.spec.hostNetwork:"),
        (_pods(volumes=[_NODES]), "pools.a.kubernetes: the volume 'nodes' is a directory of its node"),
        (_pods(pod_template={"spec": {"volumes": [_NODES]}}), "the volume 'nodes' is a directory of its node"),
        ({"workspaces": {"net": {"source": _GIT, "environment": {"GIT_PASSWORD": "a"}}}}, "workspaces.net.environment"),
        ({"workspaces": {"net": {"source": _GIT, "environment": {"GIT_SSH_KEY": "a"}}}}, "--sensitive-env GIT_SSH_KEY"),
        ({"workspaces": {"net": {"source": {**_ARCHIVE, "url": "https://me:a@h/net.zip"}}}}, "env ARCHIVE_PASSWORD"),
        ({"workspaces": {"net": {"source": {**_ARCHIVE, "sha256": "a"}}}}, "/workspaces/net/source/sha256"),
        ({"workspaces": {"net": {"source": {**_GIT, "ref": "-a"}}}}, "/workspaces/net/source/ref"),
    ],
)  # fmt: skip
def test_invalid_values_are_refused_with_a_sentence(values: Object, sentence: str) -> None:
    with pytest.raises(HelmError) as refused:
        render(values)

    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.com/net.git", "https://me:rAbB1t@git.example.com/net.git", "https://rAbB1t@git.example.com/",
        "https://git.example.com/net@1.git", "ssh://git@git.example.com/net.git", "ssh://git:rAbB1t@git.example.com/net",
        "git@git.example.com:net.git", "git://:rAbB1t@git.example.com", "file:///srv/net.git", "/srv/net.git",
    ],
)  # fmt: skip
def test_a_git_url_is_refused_where_it_holds_what_may_be_a_password(url: str) -> None:
    """F46: a ConfigMap is no place for it."""
    values: Object = {"workspaces": {"net": {"source": {"type": "git", "url": url}}}}
    if without_credentials(url) == url:
        assert url in str(of_kind(render(values), "ConfigMap"))
    else:
        with pytest.raises(HelmError, match=r"workspaces\.net\.source\.url holds a password or a token"):
            render(values)


def test_a_pool_without_limits_and_timeouts_is_held_to_those_of_the_model() -> None:
    limits, timeouts = PoolLimits(), PoolTimeouts()

    assert render(_pool(limits={"min_agents": limits.max_agents}))
    assert render(_pool(timeouts={"silent": timeouts.dead - 1}))
    assert render(_pool(timeouts={"dead": timeouts.silent + 1}))
    for refused in ({"dead": timeouts.silent}, {"silent": timeouts.dead}):
        with pytest.raises(HelmError, match="must be shorter than"):
            render(_pool(timeouts=refused))


def test_the_release_has_the_name_that_it_is_given() -> None:
    named = [each["metadata"]["name"] for each in render({"fullnameOverride": "tf"})]
    of_its_own = [each["metadata"]["name"] for each in render(name="terraslot")]

    assert all(name == "tf" or name.startswith("tf-") for name in named)
    assert all(name == "terraslot" or name.startswith("terraslot-") for name in of_its_own)
    assert not any("terraslot-terraslot" in name for name in of_its_own)


def test_an_external_server_is_not_installed() -> None:
    assert of_kind(render(URLS), "StatefulSet") == []
    assert of_kind(render(EXISTING), "StatefulSet", "Secret") == []


def test_another_connection_starts_the_processes_anew_and_the_same_one_does_not() -> None:
    def checksums(values: Object) -> set[str]:
        templates = (each["spec"]["template"] for each in of_kind(render(values), "Deployment"))
        return {template["metadata"]["annotations"]["checksum/connections"] for template in templates}

    moved = with_value(URLS, ["redis", "url"], "redis://elsewhere.example.com/0")

    assert checksums(URLS) == checksums(URLS)
    assert checksums(URLS).isdisjoint(checksums(moved))


def test_with_autoscaling_the_number_of_workers_is_kedas_and_the_least_is_the_values() -> None:
    objects = render(VARIANTS["everything"])

    assert "replicas" not in one(objects, "Deployment", f"{NAME}-control")["spec"]
    assert one(objects, "ScaledObject", f"{NAME}-control")["spec"]["minReplicaCount"] == 2


def test_the_notes_say_how_to_get_in_and_what_is_for_trials_only() -> None:
    trial, serious = notes(), notes(VARIANTS["everything outside"])

    assert "port-forward service/demo-terraslot-flower" in trial
    assert "(Valkey, PostgreSQL)" in trial
    assert "There is no pool yet" in trial
    assert "https://terraslot.example.com/slots" in serious
    assert "trials" not in serious


def test_certificates_are_mounted_where_the_urls_are_used() -> None:
    for component, pod in pods(render({"certificates": {"existingSecret": "the-certificates"}})):
        mounts = {mount["name"]: mount["mountPath"] for mount in containers(pod)[0].get("volumeMounts", ())}
        if component in ("control", "cluster", "reports", "beat", "flower", "migrate"):
            assert mounts["certificates"] == "/etc/terraslot/certificates", component
            assert {"name": "certificates", "secret": {"secretName": "the-certificates", "defaultMode": 0o440}} in (
                pod["spec"]["volumes"]
            )


def test_the_user_that_all_agents_share_comes_from_a_secret() -> None:
    shown = render({"sharedAgentUser": {"existingSecret": "the-user"}})
    [control] = [containers(pod)[0] for name, pod in pods(shown) if name == "control"]
    given = {each["name"]: each.get("valueFrom") for each in control["env"]}
    for name in ("TERRASLOT_SHARED_AGENT_USERNAME", "TERRASLOT_SHARED_AGENT_PASSWORD"):
        assert given[name] == {"secretKeyRef": {"name": "the-user", "key": name}}
