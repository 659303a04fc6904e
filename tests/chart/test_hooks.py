"""The order of hooks: tables before the processes that use them, pools and workspaces after everything else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests.chart.rendering import (
    EVERYTHING,
    EXISTING,
    NAME,
    POOLS,
    URLS,
    Object,
    containers,
    hooks,
    of_kind,
    one,
    render,
    variables,
)
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec

_HELM_WAITS = 300  # seconds, unless it is told otherwise


def _documents(text: str) -> Iterator[Object]:
    return filter(None, yaml.safe_load_all(text))


def _source(job: Object) -> Object:
    [container] = containers(job["spec"]["template"])
    return variables(container)["TERRASLOT_DATABASE_URL"]["valueFrom"]["secretKeyRef"]


@pytest.mark.parametrize("values", [URLS, EXISTING], ids=["url", "existing secret"])
def test_a_database_outside_is_migrated_before_anything_of_the_new_version_runs(values: Object) -> None:
    migrate = one(render(values), "Job", f"{NAME}-migrate")

    assert hooks(migrate) == {"pre-install", "pre-upgrade"}


def test_the_url_from_the_values_is_lent_to_the_job_before_the_release_has_its_secret() -> None:
    objects = render(URLS)
    lent = one(objects, "Secret", _source(one(objects, "Job", f"{NAME}-migrate"))["name"])
    annotations = lent["metadata"]["annotations"]

    assert hooks(lent) == {"pre-install", "pre-upgrade"}
    assert int(annotations["helm.sh/hook-weight"]) < 0
    assert "hook-succeeded" in annotations["helm.sh/hook-delete-policy"]
    assert lent["stringData"] == {"TERRASLOT_DATABASE_URL": URLS["database"]["url"]}


def test_the_database_of_this_chart_is_migrated_once_it_is_there() -> None:
    objects = render()
    migrate = one(objects, "Job", f"{NAME}-migrate")

    assert hooks(migrate) == {"post-install", "post-upgrade"}
    assert hooks(one(objects, "Secret", _source(migrate)["name"])) == set()


def test_the_migration_waits_for_a_database_that_is_still_starting() -> None:
    assert one(render(), "Job", f"{NAME}-migrate")["spec"]["backoffLimit"] >= 10


@pytest.mark.parametrize("values", [POOLS, {**POOLS, **URLS}], ids=["trial", "servers outside"])
def test_pools_and_workspaces_are_checked_before_anything_else_and_without_a_server(values: Object) -> None:
    """F46"""
    objects = render(values)
    order = {
        (each["kind"], each["metadata"]["name"]): int(each["metadata"]["annotations"]["helm.sh/hook-weight"])
        for each in objects
        if hooks(each) == {"pre-install", "pre-upgrade"}
    }
    first, second, *_ = sorted(order, key=lambda each: order[each])
    check = one(objects, "Job", f"{NAME}-check")["spec"]
    [container] = containers(check["template"])

    assert [first, second] == [("ConfigMap", f"{NAME}-check"), ("Job", f"{NAME}-check")]
    assert check["backoffLimit"] == 0
    assert not any("valueFrom" in each for each in variables(container).values())


def test_before_anything_of_the_release_goes_its_pools_drain() -> None:
    drain = one(render(), "Job", f"{NAME}-drain")

    assert hooks(drain) == {"pre-delete"}
    assert drain["spec"]["activeDeadlineSeconds"] < _HELM_WAITS


def test_a_job_that_fails_leaves_its_reason_where_helm_prints_it() -> None:
    """F46: a pod that is started again in place is deleted in the end, and its log with it."""
    jobs = of_kind(render(POOLS), "Job")

    assert len(jobs) == 4
    for job in jobs:
        assert job["metadata"]["annotations"]["helm.sh/hook-output-log-policy"] == "hook-failed"
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_pools_and_workspaces_are_applied_after_the_release_and_its_tables() -> None:
    objects = render(POOLS)
    apply, migrate = (one(objects, "Job", f"{NAME}-{name}") for name in ("pools", "migrate"))
    weight = {
        each["metadata"]["name"]: int(each["metadata"]["annotations"]["helm.sh/hook-weight"])
        for each in (apply, migrate)
    }

    assert hooks(apply) == {"post-install", "post-upgrade"}
    assert weight[f"{NAME}-pools"] > weight[f"{NAME}-migrate"]


@pytest.mark.parametrize(
    ("values", "commands"),
    [
        (POOLS, ["pool", "workspace"]),
        ({"pools": POOLS["pools"]}, ["pool"]),
        ({"workspaces": POOLS["workspaces"]}, ["workspace"]),
    ],
)
def test_the_job_applies_pools_before_the_workspaces_that_are_in_them(values: Object, commands: list[str]) -> None:
    objects = render(values)
    [container] = containers(one(objects, "Job", f"{NAME}-pools")["spec"]["template"])
    shell, stop_at_an_error, script = container["args"]
    directory = next(each["mountPath"] for each in container["volumeMounts"] if each["name"] == "specifications")
    files = one(objects, "ConfigMap", f"{NAME}-pools")["data"]

    assert (shell, stop_at_an_error) == ("sh", "-ec")
    assert script.splitlines() == [f"terraslot {each} apply -f {directory}/{each}s.yaml" for each in commands]
    assert files.keys() == {f"{each}s.yaml" for each in commands}


def test_the_specifications_are_those_of_the_values_and_valid_for_the_models() -> None:
    data = one(render(POOLS), "ConfigMap", f"{NAME}-pools")["data"]
    pools = {pool.name: pool for pool in map(PoolSpec.model_validate, _documents(data["pools.yaml"]))}
    [network] = map(WorkspaceSpec.model_validate, _documents(data["workspaces.yaml"]))

    assert pools["default"].limits.max_agents == 20
    assert (pools["here"].type, pools["here"].kubernetes) == ("local", None)
    assert network.variables == {"region": "eu", "zones": ["a", "b"], "size": 3}


def test_a_pool_that_names_no_image_and_no_account_gets_the_charts() -> None:
    data = one(render({**EVERYTHING, "agents": {"image": {"tag": "9"}}}), "ConfigMap", f"{NAME}-pools")["data"]
    pools = {pool.name: pool.kubernetes for pool in map(PoolSpec.model_validate, _documents(data["pools.yaml"]))}
    default, gpu = pools["default"], pools["gpu"]

    assert default is not None
    assert gpu is not None
    assert (default.image, default.service_account) == ("terraslot/agent:9", f"{NAME}-agent")
    assert (gpu.image, gpu.service_account) == ("registry.example.com/agent:7", f"{NAME}-agent")
    assert gpu.node_selector == {"gpu": "true"}


def test_the_log_of_a_test_is_there_when_helm_reads_it_by_the_pods_name() -> None:
    [pod] = [each for each in render() if hooks(each) == {"test"}]

    assert pod["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation"
    assert len(containers(pod)) == 1


def test_a_pool_of_which_only_the_name_is_given_gets_the_defaults() -> None:
    data = one(render({"pools": {"default": None}}), "ConfigMap", f"{NAME}-pools")["data"]
    [pool] = map(PoolSpec.model_validate, _documents(data["pools.yaml"]))

    assert (pool.name, pool.type) == ("default", "kubernetes")


def test_without_pools_and_workspaces_there_is_nothing_to_apply() -> None:
    assert [job["metadata"]["name"] for job in of_kind(render(), "Job")] == [f"{NAME}-migrate", f"{NAME}-drain"]
