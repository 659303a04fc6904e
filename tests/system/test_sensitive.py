"""Sensitive variables reach Terraform and nothing else: everything is searched for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.conftest import Cloud
from tests.waiting import eventually
from workers.core.errors import RunFailed
from workers.protocol import names
from workers.protocol.sources import SensitiveVariables
from workers.services import workspaces
from workers.services.pools import manage as pools
from workers.services.runs import views
from workers.services.runs.logs import LogReader
from workers.services.secrets.variables import Change
from workers.slots.keys import PoolKeys
from workers.slots.log_stream import RunLog

CODE = """
variable "password" {}
resource "terraform_data" "uses" {
  input = nonsensitive(sha256(var.password))
  provisioner "local-exec" { command = "echo says $TOKEN && until [ -e \\"$GATE\\" ]; do sleep 0.05; done" }
}
output "plain" { value = "it is ${var.password}" }
output "hash" { value = terraform_data.uses.output }
"""
QUOTING = """
variable "password" {}
resource "terraform_data" "refused" {
  lifecycle {
    precondition {
      condition     = var.password == ""
      error_message = "wrong: ${nonsensitive(var.password)}"
    }
  }
}
"""
PASSWORD, TOKEN = "correct-horse-battery", "a-token-of-the-pool"


def test_values_are_used_and_found_nowhere(cloud: Cloud) -> None:
    pool, gate = cloud.pool(), cloud.gate()
    workspace = cloud.workspace(CODE, pool=pool, environment={"GATE": str(gate)}, auto_apply=True)
    pools.update(cloud.system, cloud.system.pool(pool), Change(SensitiveVariables(environment={"TOKEN": TOKEN})))
    _set_password(cloud, workspace)
    seen: list[bytes] = []
    result = cloud.apply(workspace)
    cloud.reach(result, "APPLYING")
    eventually(lambda: any("says" in line.text for line in RunLog(cloud.system.redis, pool, result.id).read()))
    seen += _redis(cloud) + _arguments()
    gate.touch()
    outcome = result.get(timeout=120)
    seen += [str(outcome).encode(), *_redis(cloud), *_files(cloud)]
    assert outcome["outputs"]["plain"] == "it is (sensitive)"
    assert len(outcome["outputs"]["hash"]) == 64
    cloud.app.send_task(names.LOGS)
    eventually(lambda: not cloud.system.redis.exists(PoolKeys(pool).log(result.id)))
    lines = list(LogReader(cloud.system, views.one(cloud.system.database, result.id)))
    assert [line.phase for line in lines] == sorted((line.phase for line in lines), reverse=True)
    assert any("says (sensitive)" in line.text for line in lines)
    seen += [line.text.encode() for line in lines]
    for secret in (PASSWORD.encode(), TOKEN.encode()):
        assert [text[:200] for text in seen if secret in text] == []


def test_an_error_that_quotes_a_value_is_masked(cloud: Cloud) -> None:
    workspace = cloud.workspace(QUOTING)
    _set_password(cloud, workspace)
    with pytest.raises(RunFailed, match=r"wrong: \(sensitive\)") as failure:
        cloud.plan(workspace).get(timeout=120)
    assert PASSWORD not in str(failure.value)


def _set_password(cloud: Cloud, workspace: str) -> None:
    password = SensitiveVariables(variables={"password": PASSWORD})
    workspaces.update(cloud.system, workspaces.get(cloud.system, workspace), Change(password))


def _redis(cloud: Cloud) -> list[bytes]:
    """Every key and value on the server."""
    client = cloud.system.redis
    return [part for key in client.scan_iter(count=1000) for part in (key, client.dump(key) or b"")]


def _arguments() -> list[bytes]:
    """The arguments of every process on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return found


def _files(cloud: Cloud) -> list[bytes]:
    """The database and every log; Terraform's own state and plans are where such values belong."""
    home = cloud.system.settings.home
    return [path.read_bytes() for path in (*home.glob("terraslot.db*"), *home.glob("**/*.log"))]
