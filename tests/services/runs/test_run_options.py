"""Options of a run: refused before anything is taken, kept for its attempts, and given to agents that know them."""

from __future__ import annotations

import pytest

from workers.core.lifecycle import RunStatus
from workers.git import Answer
from workers.protocol.encryption import Keyring, new_key
from workers.protocol.errors import InvalidRequest
from workers.protocol.kinds import RunKind
from workers.protocol.sources import ArchiveSource, GitSource, SensitiveVariables
from workers.services import workspaces
from workers.services.runs import dispatch, finish
from workers.services.runs import views as run_views
from workers.services.secrets import variables
from workers.services.secrets.credentials import ensure_secret_for_pool, payload_keyring
from workers.services.secrets.variables import Change
from workers.specs.workspaces import WorkspaceSpec

SECRET = SensitiveVariables(variables={"password": "hunter2"})
OPTIONS = {
    "targets": ["module.net", "aws_instance.web[0]"],
    "replace": ["aws_instance.web[0]"],
    "variables": {"size": 3},
    "parallelism": 2,
}


def test_they_reach_every_attempt_and_are_shown(control):
    control.workspace()
    agent = control.agent()
    run = control.submit(**OPTIONS, message="disk is full")
    first = agent.order()
    assert first.options.model_dump(mode="json", exclude_defaults=True) == OPTIONS
    finish.requeue_or_fail(control.system, run, "its agent is gone", may_have_started=False)
    control.slots.release(run.id, first.token)
    dispatch.dispatch(control.system, "default")
    assert agent.order().options == first.options
    seen = run_views.one(control.system.database, run.id)
    assert (seen.options, seen.message, seen.attempt) == (OPTIONS, "disk is full", 2)


def test_a_run_without_any_sends_an_order_that_names_none(control):
    control.workspace()
    agent = control.agent()
    control.submit()
    assert "options" not in agent.order().wire()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"refresh_only": True, "destroy": True}, "refresh_only changes no resource"),
        ({"refresh_only": True, "replace": ["a.b"]}, "refresh_only changes no resource"),
        ({"destroy": True, "replace": ["a.b"]}, "choose one of them"),
        ({"message": "x" * 501}, "message"),
    ],
)
def test_what_contradicts_itself_is_refused(control, options, said):
    control.workspace()
    with pytest.raises(ValueError, match=said):
        control.submit(**options)


def test_sensitive_ones_reach_the_order_encrypted_and_go_with_the_run(control):
    control.workspace()
    ensure_secret_for_pool(control.system, control.spec())
    agent = control.agent()
    encrypted = variables.of_run(control.system, SECRET)
    run = control.submit(RunKind.PLAN, encrypted_variables=encrypted)
    order = agent.order()
    with control.system.database.read() as session:
        keys = payload_keyring(control.system, session, "default")
    assert keys.decrypt(order.encrypted) == {"variables": {"password": "hunter2"}}
    assert control.run(run.id).encrypted == encrypted
    agent.start(order)
    agent.finish(order)
    ended = control.run(run.id)
    assert (ended.status, ended.encrypted) == (RunStatus.SUCCEEDED, None)


def test_those_of_a_run_that_waits_are_encrypted_anew_with_the_others(control):
    control.workspace()
    run = control.submit(encrypted_variables=variables.of_run(control.system, SECRET))
    before = control.run(run.id).encrypted
    assert variables.reencrypt_all(control.system) >= 1
    after = control.run(run.id).encrypted
    assert after != before
    assert control.system.settings.keyring.decrypt(after) == {"variables": {"password": "hunter2"}}


def test_a_sensitive_variable_in_clear_is_refused(control):
    control.workspace()
    workspaces.update(control.system, workspaces.get(control.system, "net"), Change(SECRET))
    with pytest.raises(InvalidRequest, match=r"'password' is sensitive in this workspace.*--sensitive-var") as refused:
        control.submit(variables={"password": "hunter2"})
    assert "hunter2" not in str(refused.value)


def test_what_no_key_decrypts_or_is_no_variable_is_refused(control):
    control.workspace()
    foreign = Keyring([new_key()], "K").encrypt(SECRET.model_dump())
    odd = control.system.settings.keyring.encrypt({"variables": {"no name": "hunter2"}})
    for given, said in (
        (foreign, "none of the platform's keys"),
        ("x", "none of the platform's keys"),
        (odd, "no name"),
    ):
        with pytest.raises(InvalidRequest, match=f"encrypted_variables: .*{said}") as refused:
            control.submit(encrypted_variables=given)
        assert "hunter2" not in str(refused.value)


def test_an_agent_that_would_ignore_them_gets_none_and_is_replaced_where_there_are_newer_ones(control):
    """F38: an agent of version 1 would plan everything where two resources were asked for."""
    control.workspace()
    newer = control.agent()
    control.submit()
    newer.order()
    control.pods.create(control.spec(), "older")
    control.slots.register("older", "1234")
    net = control.workspace("other")
    run = control.submit(workspace=net, **OPTIONS)
    assert control.run(run.id).status is RunStatus.PENDING
    assert control.slots.agent("older").draining
    assert control.slots.agent("older").leases == ()
    newest = control.agent("default-2")
    assert newest.order().options.targets == tuple(OPTIONS["targets"])


def test_where_no_agent_knows_them_the_run_waits_alone(control):
    """F38: an agent that is drained for it would be followed by another that is no newer, without end."""
    control.workspace()
    control.slots.register("older", "1234")
    run = control.submit(**OPTIONS)
    other = control.submit(RunKind.PLAN)
    assert control.run(run.id).status is RunStatus.PENDING
    assert not control.slots.agent("older").draining
    assert control.run(other.id).agent == "older"


CHECKSUM = "0" * 64


@pytest.mark.parametrize(
    ("source", "secret"),
    [
        (ArchiveSource(url="https://files.example/net.zip", sha256=CHECKSUM), None),
        (GitSource(url="git@git.example:net", submodules=True), None),
        (GitSource(url="git@git.example:net"), SensitiveVariables(environment={"GIT_SSH_KEY": "a key"})),
    ],
)
def test_a_source_or_a_key_that_older_agents_do_not_know_goes_to_newer_ones_alone(control, source, secret, monkeypatch):
    """F38: an agent of version 1 would refuse the order, or give the key to Terraform."""
    monkeypatch.setattr("workers.git.ask", lambda _: Answer())
    ensure_secret_for_pool(control.system, control.spec())
    workspaces.create(control.system, WorkspaceSpec(name="net", source=source), secret)
    control.slots.register("older", "1234")
    run = control.submit(workspace="net")
    assert control.run(run.id).status is RunStatus.PENDING
    assert control.slots.agent("older").leases == ()
    assert control.agent("default-2").order().source == source


def test_a_git_workspace_with_another_secret_goes_to_any_agent(control, monkeypatch):
    monkeypatch.setattr("workers.git.ask", lambda _: Answer())
    ensure_secret_for_pool(control.system, control.spec())
    spec = WorkspaceSpec(name="net", source=GitSource(url="https://git.example/net"))
    workspaces.create(control.system, spec, SensitiveVariables(environment={"GIT_PASSWORD": "hunter2"}))
    control.slots.register("older", "1234")
    run = control.submit(workspace="net")
    assert control.run(run.id).agent == "older"
