"""The API does what its description says, whatever is sent: checked by generated requests on a live system."""

from __future__ import annotations

from datetime import timedelta

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks

from tests.dashboard.conftest import Live
from workers.core.access import Scope
from workers.dashboard.api.openapi import document
from workers.services.secrets import tokens

description = schemathesis.openapi.from_dict(document())
HELD = (
    checks.not_a_server_error,
    checks.CHECKS.get_one("status_code_conformance"),
    checks.CHECKS.get_one("content_type_conformance"),
    checks.CHECKS.get_one("response_schema_conformance"),
)


@pytest.fixture(scope="module")
def authorization(live: Live) -> dict[str, str]:
    live.workspace("described")
    live.ada.post("/runs", workspace="described", kind="plan")
    token, _ = tokens.create(live.system, "generated", tuple(Scope), timedelta(hours=1))
    return {"Authorization": f"Bearer {token}"}


@description.parametrize()
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_is_described(
    case: schemathesis.Case, live: Live, authorization: dict[str, str]
) -> None:
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{live.port}/api/v1", headers=authorization, timeout=60, checks=HELD
    )
