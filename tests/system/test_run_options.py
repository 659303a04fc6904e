"""Options of a run, as Terraform carries them out."""

from __future__ import annotations

from tests.system.conftest import Cloud
from workers.protocol.sources import SensitiveVariables
from workers.services.secrets import variables

CODE = """
variable "size" { default = 1 }
variable "password" { default = "" }
resource "terraform_data" "a" { input = var.size }
resource "terraform_data" "b" { input = sha256(var.password) }
output "a" { value = terraform_data.a.output }
output "b" { value = terraform_data.b.output }
output "said" { value = "password ${var.password}" }
"""


def test_terraform_does_what_a_run_asks_for(cloud: Cloud) -> None:
    workspace = cloud.workspace(CODE, auto_apply=True)
    target = {"targets": ["terraform_data.a"], "variables": {"size": 5}, "parallelism": 1}
    first = cloud.apply(workspace, **target).get(timeout=120)
    assert (first["changes"], first["outputs"]["a"]) == ({"add": 1, "change": 0, "destroy": 0}, 5)

    encrypted = variables.of_run(cloud.system, SensitiveVariables(variables={"password": "correct-horse"}))
    second = cloud.apply(workspace, variables={"size": 5}, encrypted_variables=encrypted).get(timeout=120)
    assert second["changes"] == {"add": 1, "change": 0, "destroy": 0}
    assert second["outputs"]["said"] == "password (sensitive)"

    replaced = {"replace": ["terraform_data.a"], "targets": ["terraform_data.a"], "variables": {"size": 5}}
    assert cloud.plan(workspace, **replaced).get(timeout=120)["changes"] == {"add": 1, "change": 0, "destroy": 1}
    refreshed = cloud.plan(workspace, refresh_only=True, variables={"size": 9}).get(timeout=120)
    assert refreshed["changes"] == {"add": 0, "change": 0, "destroy": 0}
