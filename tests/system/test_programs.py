"""Two real versions of Terraform in one pool: each run is planned and applied by the one that it requires."""

from __future__ import annotations

import json

import pytest

from tests.system.conftest import Cloud
from workers.core.errors import UnknownVersion
from workers.services.pools import views as pool_views


def test_runs_of_one_pool_have_the_versions_that_they_require_and_what_none_has_is_refused(cloud: Cloud) -> None:
    pool = cloud.pool()
    first = cloud.apply(cloud.workspace(pool=pool, auto_apply=True))
    assert first.get(timeout=120)["status"] == "succeeded"
    default = cloud.run(first).program
    [other] = {*pool_views.one(cloud.system, pool).programs} - {default}

    required = cloud.workspace(pool=pool, auto_apply=True, terraform=other)
    run = cloud.apply(required)
    assert run.get(timeout=120)["status"] == "succeeded"

    assert cloud.run(run).program == other
    states = sorted((cloud.system.settings.home / "state").glob(f"{required}.*/terraform.tfstate"))
    assert [json.loads(state.read_text())["terraform_version"] for state in states] == [other.split()[1]]
    refused = cloud.plan(cloud.workspace(pool=pool, terraform="terraform ~> 99.0"))
    with pytest.raises(UnknownVersion, match=r"No agent of the pool .* has terraform ~> 99\.0: they have") as said:
        refused.get(timeout=60)
    assert default in str(said.value)
    assert other in str(said.value)
