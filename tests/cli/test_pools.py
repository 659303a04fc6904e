"""Pools, agents and secrets by the command line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from tests.cli.conftest import Control, Terraslot
from tests.services.conftest import Pods
from workers.cli.main import app
from workers.protocol.encryption import new_key
from workers.services import system as services_system
from workers.services import workspaces
from workers.store import secrets
from workers.store.secrets import Owner

VALUE = "s3cret-value"

POOLS = """
---
name: small
limits: {max_agents: 2}
---
- name: large
  limits: {min_agents: 1, max_agents: 9}
- name: patient
  timeouts: {confirm: 86400}
"""


@pytest.fixture
def keyed(control: Control, monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    """A system with a key to encrypt with, whose pods are nothing."""
    config = control.system.settings.model_copy(update={"encryption_keys": _keys(new_key())})
    system = replace(control.system, settings=config, backends={"local": Pods(), "kubernetes": Pods()})
    monkeypatch.setattr(services_system, "system", lambda: system)
    yield replace(control, system=system)
    for user in system.redis.acl_users():
        if user not in ("default", b"default"):
            system.redis.acl_deluser(user)


def _keys(*keys: str) -> SecretStr:
    return SecretStr(",".join(keys))


def file(control: Control, text: str) -> str:
    path = control.home / "specifications.yaml"
    path.write_text(text)
    return str(path)


def test_a_pool_is_created_changed_shown_and_deleted(control, cli) -> None:
    assert cli("pool create big --min 0 --max 9 --step 3 --idle-timeout 60").code == 0
    assert cli("pool update big --max 12").code == 0
    shown = cli("pool show big --json").json
    assert (shown["limits"]["max_agents"], shown["limits"]["step"], shown["limits"]["idle_timeout"]) == (12, 3, 60)
    assert "--yes" in cli("pool delete big").misuse
    assert cli("pool delete big --yes").out == "Pool big deleted.\n"
    assert "'big'" in cli("pool show big").sentence


def test_a_file_says_created_changed_and_unchanged(control, cli) -> None:
    path = file(control, POOLS)
    assert [each["outcome"] for each in cli("pool apply --json -f", path).json] == ["created"] * 3
    file(control, POOLS.replace("max_agents: 2", "max_agents: 3"))
    answer = cli("pool apply -f", path)
    assert answer.out.splitlines() == ["pool small changed", "pool large unchanged", "pool patient unchanged"]


def test_json_from_stdin_is_taken_too(control: Control) -> None:
    result = CliRunner().invoke(app, ["pool", "apply", "-f", "-"], input='{"name": "piped"}')
    assert (result.exit_code, result.stdout) == (0, "pool piped created\n")


def test_everything_that_is_wrong_in_a_file_is_named_with_its_path_and_nothing_is_saved(control, cli) -> None:
    text = (
        "[{name: good}, {name: net, limits: {min_agents: 5, max_agents: 2}}, {name: odd, colour: red},\n"
        " {name: shared, type: kubernetes, kubernetes: {image: a, pod_template: {spec: {hostNetwork: true}}}}]"
    )
    refused = cli("pool apply -f", file(control, text))
    assert (refused.code, refused.out) == (2, "")
    _, *lines = refused.err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["net", "odd", "shared"]
    assert "limits: min_agents (5) is above max_agents (2)" in lines[0]
    assert "colour" in lines[1]
    assert "kubernetes.pod_template.spec.hostNetwork" in lines[2]
    assert [pool["name"] for pool in cli("pool list --json").json] == ["default"]


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "describes nothing"), ("a: [", "not YAML"), ("just words", "number 1"), ("[{name: a}, {name: a}]", "once")],
)
def test_a_file_that_describes_no_pool_is_refused(control, cli, text, says) -> None:
    answer = cli("pool apply -f", file(control, text))
    assert answer.code == 2
    assert says in answer.err


def test_a_pool_whose_cluster_can_not_be_asked_is_saved_and_says_so(control, cli) -> None:
    answer = cli("pool create far --type kubernetes --image agent:1 --json")
    assert answer.code == 0
    assert "TERRASLOT_KUBECONFIG" in answer.json["status_message"]
    assert "TERRASLOT_KUBECONFIG" in cli("pool show far --json").json["status_message"]
    assert cli("pool delete far --yes").code == 0


def test_min_above_max_is_one_sentence(control, cli) -> None:
    assert "min_agents (5) is above max_agents (2)" in cli("pool create net --min 5 --max 2").misuse
    assert "max_agents" in cli("pool update default --max 0").misuse


def test_workspaces_are_applied_from_a_file(control, cli) -> None:
    control.workspace("first")
    text = f"name: net\nsource: {{type: directory, path: {control.home}/code}}\nvariables: {{size: 3}}\n"
    assert cli("workspace apply -f", file(control, text)).out == "workspace net created\n"
    assert cli("workspace apply -f", file(control, text)).out == "workspace net unchanged\n"
    assert workspaces.get(control.system, "net").variables == {"size": 3}
    refused = cli("workspace apply -f", file(control, f"{text}pool: nowhere\n"))
    assert (refused.code, "'nowhere'" in refused.err) == (1, True)


class TestSecrets:
    def test_come_from_a_file_or_the_environment_and_are_told_to_nobody(self, keyed, cli, monkeypatch) -> None:
        keyed.workspace("other")
        (keyed.home / "secret").write_text(f"{VALUE}-1\n")
        monkeypatch.setenv("API_KEY", f"{VALUE}-2")
        options = f"--sensitive-var token=@{keyed.home}/secret --sensitive-env API_KEY"
        told = cli(f"workspace create net --path {keyed.home}/code {options} --json")
        told = told.out + cli("workspace show net").out + cli("workspace list --json").out
        assert "token" in told
        assert VALUE not in told
        opened = self.opened(keyed, Owner.WORKSPACE, "net")
        assert opened == {"variables": {"token": f"{VALUE}-1"}, "environment": {"API_KEY": f"{VALUE}-2"}}

    def test_of_a_pool_have_the_same_options(self, keyed, cli, monkeypatch) -> None:
        monkeypatch.setenv("TF_VAR_tokens", f'["{VALUE}"]')
        assert cli("pool update default --sensitive-var tokens").code == 0
        assert self.opened(keyed, Owner.POOL, "default")["variables"] == {"tokens": [VALUE]}
        assert cli("pool update default --max 4").code == 0
        assert cli("pool show default --json").json["sensitive"] == ["tokens"]
        assert cli("pool update default --unset-sensitive tokens").code == 0
        assert cli("pool show default --json").json["sensitive"] == []

    @pytest.mark.usefixtures("keyed")
    def test_are_not_taken_from_the_command_line_nor_guessed(self, cli) -> None:
        answer = cli(f"pool update default --sensitive-var token={VALUE}")
        assert answer.code == 2
        assert VALUE not in answer.err
        assert "TF_VAR_token" in cli("pool update default --sensitive-var token").misuse
        assert "/nowhere" in cli("pool update default --sensitive-var token=@/nowhere").sentence

    @pytest.mark.usefixtures("control")
    def test_are_not_kept_without_a_key_and_nothing_is_created(self, cli, monkeypatch) -> None:
        monkeypatch.setenv("TF_VAR_token", VALUE)
        assert "TERRASLOT_ENCRYPTION_KEYS" in cli("pool create other --sensitive-var token").sentence
        assert "'other'" in cli("pool show other").sentence

    def test_are_encrypted_again_with_the_first_key(self, keyed, cli, monkeypatch) -> None:
        monkeypatch.setenv("TF_VAR_token", VALUE)
        cli("pool update default --sensitive-var token")
        old = keyed.system.settings.encryption_keys.get_secret_value()
        new = new_key()
        for keys in ((new, old), (new,)):
            config = keyed.system.settings.model_copy(update={"encryption_keys": _keys(*keys)})
            system = replace(keyed.system, settings=config)
            monkeypatch.setattr(services_system, "system", lambda system=system: system)
            assert cli("reencrypt --json").json == {"reencrypted": 1}

    def opened(self, control: Control, kind: Owner, owner: str):
        with control.system.database.read() as session:
            encrypted = secrets.variables(session, kind, owner)
        assert VALUE not in encrypted
        return control.system.settings.keyring.decrypt(encrypted)


class TestWork:
    def test_is_scaled_drained_and_given_back(self, keyed: Control, cli: Terraslot) -> None:
        assert "2 agents are starting" in cli("pool scale default 2").out
        keyed.agent("default-a")
        assert cli("agent list --json").json[0]["pool"] == "default"
        assert cli("agent drain default-a --json").json == {"agent": "default-a", "draining": True, "held": 0}
        assert "being deleted" in cli("agent undrain default-a").sentence
        assert cli("pool drain default --wait --json").json == {"pool": "default", "draining": True, "held": 0}
        assert "`terraslot pool undrain default`" in cli("pool scale default 3").sentence
        assert cli("pool undrain default").code == 0
        assert "'nobody'" in cli("agent drain nobody").sentence

    @pytest.mark.usefixtures("keyed")
    def test_rotation_tells_its_steps(self, cli) -> None:
        assert cli("pool rotate default --json").json["steps"] == ["generation 1 issued"]
        assert cli("pool rotate default").out.startswith("generation 2 issued\n")

    @pytest.mark.usefixtures("control")
    def test_only_kubernetes_has_deployments(self, cli) -> None:
        assert "only Kubernetes has Deployments" in cli("pool adopt-deployment default old").misuse
        assert "only Kubernetes has Deployments" in cli("pool return-to-deployment default old").misuse

    def test_a_pool_with_a_workspace_is_not_deleted(self, control, cli) -> None:
        control.workspace()
        assert "'net'" in cli("pool delete default --yes --drain --timeout 1").sentence
        assert cli("pool delete default --yes --timeout 1").code == 2


def test_a_file_with_a_field_that_no_pool_has_is_refused_and_names_it(control, cli) -> None:
    answer = cli(f"pool apply -f {file(control, '{name: net, limits: {max_agent: 2}}')}")
    assert answer.code == 2
    assert "net: limits.max_agent: there is no such field" in answer.err
