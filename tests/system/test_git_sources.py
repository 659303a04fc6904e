"""Runs of git repositories on the whole system: over ssh with a deploy key, with submodules, and what is not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.git_servers import SshServer, over_ssh
from tests.agent.test_git import with_module
from tests.agent.test_source import Repository
from tests.system.conftest import Cloud
from workers.core.errors import UnknownRun, UnknownSource
from workers.core.lifecycle import RunNote
from workers.protocol.sources import GitSource, SensitiveVariables
from workers.services import workspaces
from workers.services.runs import views
from workers.services.runs.logs import LogReader
from workers.services.secrets.variables import Change
from workers.specs.workspaces import WorkspaceSpec


@pytest.fixture(scope="module")
def ssh() -> Iterator[SshServer]:
    with over_ssh() as server:
        yield server


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a repository whose only module is a submodule, beside it on its server."""
    path = tmp_path / "git"
    path.mkdir()
    made = Repository(path)
    with_module(made, "../module.git")
    made.commit('module "m" { source = "./m" }\noutput "shown" { value = module.m.of_module }\n')
    return made


def test_a_deploy_key_fetches_a_repository_and_its_submodules_and_is_found_nowhere(
    cloud: Cloud, ssh: SshServer, repository: Repository
) -> None:
    login = SensitiveVariables(environment={"GIT_SSH_KEY": ssh.key})
    known = {"GIT_SSH_KNOWN_HOSTS": ssh.known_hosts}
    source = GitSource(url=ssh.url(repository.path), ref="main", submodules=True)
    spec = WorkspaceSpec(name="over-ssh", source=source, environment=known, auto_apply=True)
    workspaces.create(cloud.system, spec, login)
    result = cloud.apply(spec.name)
    assert result.get(timeout=120)["outputs"] == {"shown": 1}
    run = cloud.run(result)
    assert run.commit == repository.git("rev-parse", "HEAD")
    assert "why" not in views.events(cloud.system.database, views.view(run))[0].detail  # its server was asked
    lines = "\n".join(line.text for line in LogReader(cloud.system, views.view(run)).read())
    assert f"Fetching {source.url} at main" in lines
    secret = ssh.key.splitlines()[1]
    assert secret not in lines
    # The agent removes the run's directory meanwhile: what is gone is passed over.
    assert not [where for where, _, files in os.walk(cloud.system.settings.home) if "GIT_SSH_KEY" in files]

    moved = spec.model_copy(update={"source": source.model_copy(update={"ref": "mian"}), "sensitive": ("GIT_SSH_KEY",)})
    workspaces.update(cloud.system, moved)
    refused = cloud.plan(spec.name)
    with pytest.raises(UnknownSource, match="has no branch, tag or commit 'mian'"):
        refused.get(timeout=60)
    with pytest.raises(UnknownRun):
        cloud.run(refused)

    workspaces.update(cloud.system, spec, Change(SensitiveVariables(environment={"GIT_SSH_KEY": ssh.wrong_key})))
    with pytest.raises(UnknownSource, match="Permission denied"):
        cloud.plan(spec.name).get(timeout=60)


def test_a_ref_that_nobody_could_look_for_fails_on_its_agent_and_its_run_says_so(
    cloud: Cloud, ssh: SshServer, repository: Repository
) -> None:
    """The workspace's proxy is its agents' alone."""
    environment = {"GIT_SSH_KNOWN_HOSTS": ssh.known_hosts, "https_proxy": "http://127.0.0.1:1"}
    source = GitSource(url=ssh.url(repository.path), ref="mian")
    spec = WorkspaceSpec(name="proxied", source=source, environment=environment)
    workspaces.create(cloud.system, spec, SensitiveVariables(environment={"GIT_SSH_KEY": ssh.key}))
    result = cloud.plan(spec.name)
    with pytest.raises(Exception, match="has no branch, tag or commit 'mian'"):
        result.get(timeout=120)
    entered = views.events(cloud.system.database, views.view(cloud.run(result)))[0]
    assert entered.event == RunNote.SUBMITTED
    assert entered.detail["why"].endswith("git on the control plane is not given the workspace's https_proxy")
