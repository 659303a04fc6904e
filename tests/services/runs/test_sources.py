"""A source that is not there is refused before a slot is taken, and no other: real git, real servers on loopback."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.agent.git_servers import HttpsServer, SshServer, over_https, over_ssh
from tests.agent.test_source import SIMPLE, Repository
from tests.services.conftest import ControlPlane
from tests.topologies import certificates
from tests.waiting import eventually
from workers import git
from workers.core.errors import UnknownSource
from workers.core.lifecycle import RunNote
from workers.git import Answer, Question
from workers.protocol.kinds import RunKind
from workers.protocol.sources import GitSource, SensitiveVariables
from workers.services import workspaces
from workers.services.runs import sources, submit
from workers.services.runs import views as run_views
from workers.services.secrets.credentials import ensure_secret_for_pool
from workers.specs.workspaces import WorkspaceSpec

PASSWORD = "s@cret-password"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository(tmp_path_factory.mktemp("git"))
    made.commit(SIMPLE)
    return made


@pytest.fixture(scope="module")
def ssh() -> Iterator[SshServer]:
    with over_ssh() as server:
        yield server


@pytest.fixture(scope="module")
def https(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    files = certificates(tmp_path_factory.mktemp("tls"))
    before, os.environ["GIT_SSL_CAINFO"] = os.environ.get("GIT_SSL_CAINFO"), str(files["ca.pem"])
    with over_https(repository.path.parent, (files["server.pem"], files["server.key"]), PASSWORD) as server:
        yield server
    os.environ.pop("GIT_SSL_CAINFO")
    if before is not None:
        os.environ["GIT_SSL_CAINFO"] = before


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "ASKED", sources.Asked())


def ask(url: str, ref: str = "main", *, here: bool = False, **login: str) -> Answer:
    return git.ask(Question(url, ref, frozenset(login.items()), here=here))


def test_a_branch_and_what_may_be_a_commit_are_there_and_another_ref_is_not(repository: Repository) -> None:
    for ref in ("main", "HEAD", "refs/heads/main", "heads/main", "c" * 40, "c0ffee"):
        assert ask(str(repository.path), ref, here=True) == Answer()
    wrong = ask(str(repository.path), "mian", here=True).wrong or ""
    assert wrong == f"{repository.path} has no branch, tag or commit 'mian': correct the workspace's ref"
    assert "does not appear to be a git repository" in (ask("/nowhere/at/all", here=True).wrong or "")


@pytest.mark.parametrize("here", [True, False])
def test_over_ssh_a_server_is_believed_whoever_has_the_key(
    ssh: SshServer, repository: Repository, *, here: bool
) -> None:
    url, hosts = ssh.url(repository.path), ssh.known_hosts
    login = {"GIT_SSH_KEY": ssh.key, "GIT_SSH_KNOWN_HOSTS": hosts}
    assert ask(url, here=here, **login) == Answer()
    assert "no branch" in (ask(url, "mian", here=here, **login).wrong or "")
    wrong_key = {"GIT_SSH_KEY": ssh.wrong_key, "GIT_SSH_KNOWN_HOSTS": hosts}
    assert "Permission denied" in (ask(url, here=here, **wrong_key).wrong or "")
    wrong_host = {"GIT_SSH_KEY": ssh.key, "GIT_SSH_KNOWN_HOSTS": ssh.other_hosts}
    assert "Host key verification failed" in (ask(url, here=here, **wrong_host).wrong or "")


@pytest.mark.parametrize("here", [True, False])
def test_over_https_a_server_is_believed_whoever_has_the_password(https: HttpsServer, *, here: bool) -> None:
    url = f"{https.url}/remote.git"
    assert ask(url, here=here, GIT_PASSWORD=PASSWORD) == Answer()
    assert "no branch" in (ask(url, "mian", here=here, GIT_PASSWORD=PASSWORD).wrong or "")
    assert "not found" in (ask(f"{https.url}/other.git", here=here, GIT_PASSWORD=PASSWORD).wrong or "")
    denied = ask(url, here=here, GIT_PASSWORD="wrong").wrong or ""
    assert ("Authentication failed" in denied, "wrong" in denied) == (True, False)


def test_what_only_agents_may_have_is_left_to_them(ssh: SshServer, https: HttpsServer, repository: Repository) -> None:
    """They may have a key, a netrc, a proxy or a disk of their own. Nothing is told of what answers here."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refusing = f"https://127.0.0.1:{closed.getsockname()[1]}/net"
        for url in (ssh.url(repository.path), f"{https.url}/remote.git", refusing, "https://nowhere.invalid/x"):
            answer = ask(url)
            assert answer.wrong is None
            assert "does not let the control plane in, or can't be reached by it" in (answer.unknown or "")
            assert ask(url, here=True).wrong
    for url in (str(repository.path), f"file://{repository.path}", "git://127.0.0.1:6379/x"):
        assert ask(url) == Answer(unknown="only its agents reach it")


def test_a_control_plane_without_git_asks_nothing_and_enters_each_run_at_once(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is the one of the image: none of its runs is entered twice, or has a remark that says nothing of it."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sources.ASKED, "ask", lambda _: pytest.fail("asked"))
    workspaces.create(control.system, WorkspaceSpec(name="net", source=GitSource(url="https://nowhere.invalid/x")))
    run = control.submit(workspace="net")
    assert "why" not in (run_views.events(control.system.database, run_views.view(run))[0].detail or {})


def test_git_gets_nothing_of_the_platforms_and_writes_no_more_than_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "git"
    program.write_text(
        f'#!/bin/sh\nenv > {tmp_path}/env; echo "$@" > {tmp_path}/argv; pwd > {tmp_path}/pwd\nexec yes x\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("TERRASLOT_ENCRYPTION_KEYS", "OTEL_EXPORTER_OTLP_HEADERS", "FLOWER_BASIC_AUTH"):
        monkeypatch.setenv(name, "hunter2")
    assert ask("https://h/x", here=True, GIT_PASSWORD="s3cret").wrong  # ended by its bound, long before its time
    assert "hunter2" not in (tmp_path / "env").read_text()
    assert "s3cret" not in (tmp_path / "argv").read_text()
    assert not Path((tmp_path / "pwd").read_text().strip()).exists()


def test_a_server_that_does_not_answer_costs_its_time_once(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        for name in ("net", "web"):
            source = GitSource(url=f"{url}/{name}")
            workspaces.create(control.system, WorkspaceSpec(name=name, source=source))
            run = control.submit(workspace=name)
            (entered, *_) = run_views.events(control.system.database, run_views.view(run))
            assert entered.event == RunNote.SUBMITTED
            assert "was not looked for: 127.0.0.1" in entered.detail["why"]
            assert "has not answered within 0.3 s" in entered.detail["why"]
        silent.settimeout(0)
        silent.accept()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_a_run_of_a_missing_ref_is_refused_with_nothing_left_behind(
    control: ControlPlane, repository: Repository
) -> None:
    agent = control.agent()
    spec = WorkspaceSpec(name="net", source=GitSource(url=str(repository.path), ref="mian"))
    workspaces.create(control.system, spec)
    with pytest.raises(UnknownSource, match=r"Workspace net: .* has no branch, tag or commit 'mian'"):
        control.submit(workspace="net")
    assert (submit.find(control.system, "run-1"), control.quiet()) == (None, True)
    workspaces.update(control.system, spec.model_copy(update={"source": GitSource(url=str(repository.path))}))
    run = control.submit(workspace="net")
    assert agent.order().run == run.id
    assert "why" not in run_views.events(control.system.database, run_views.view(run))[0].detail


def test_a_login_that_is_stored_is_used_and_programs_that_a_workspace_names_are_not(
    control: ControlPlane, ssh: SshServer, repository: Repository, tmp_path: Path
) -> None:
    ensure_secret_for_pool(control.system, control.spec())
    url, connections = ssh.url(repository.path), ssh.connections
    login = SensitiveVariables(environment={"GIT_SSH_KEY": ssh.key, "GIT_SSH_KNOWN_HOSTS": ssh.known_hosts})
    spec = WorkspaceSpec(name="net", source=GitSource(url=url))
    workspaces.create(control.system, spec, login)
    control.submit(workspace="net")
    assert ssh.connections == connections + 1
    planted = {"GIT_SSH_COMMAND": f"touch {tmp_path}/planted;"}
    workspaces.create(control.system, spec.model_copy(update={"name": "web", "environment": planted}), login)
    run = control.submit(workspace="web")
    (entered, *_) = run_views.events(control.system.database, run_views.view(run))
    assert "is not given the workspace's GIT_SSH_COMMAND" in entered.detail["why"]
    assert not (tmp_path / "planted").exists()
    assert ssh.connections == connections + 1


class TestManyAtOnce:
    @pytest.fixture
    def asked(self, control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Any:
        asked, going = list[str](), threading.Event()

        def answer(question: Question) -> Answer:
            with control.system.database.begin():  # on SQLite one at a time: nobody who asks holds it
                asked.append(question.url)
            assert going.wait(20)
            return Answer()

        monkeypatch.setattr(git, "ask", answer)
        return asked, going

    def submits(self, control: ControlPlane, count: int) -> ThreadPoolExecutor:
        threads = ThreadPoolExecutor(count)
        for number in range(count):
            request = submit.RunRequest(workspace=f"ws{number}")
            task: Any = {"name": "terraform.plan", "args": [], "kwargs": {}, "options": {}}
            threads.submit(submit.submit, control.system, f"run-{number}", RunKind.PLAN, request, task)
        return threads

    def test_ask_the_same_once_and_outside_of_a_transaction(self, control: ControlPlane, asked: Any) -> None:
        for number in range(sources.PLACES):
            source = GitSource(url="https://git.example/net", subdir=str(number))
            workspaces.create(control.system, WorkspaceSpec(name=f"ws{number}", source=source))
        with self.submits(control, sources.PLACES):
            eventually(lambda: asked[0])
            asked[1].set()
        assert asked[0] == ["https://git.example/net"]
        assert all(submit.find(control.system, f"run-{number}") for number in range(sources.PLACES))

    def test_leave_no_question_and_so_no_login_behind(self, asked: Any) -> None:
        """One that was answered meanwhile is not asked again, and nobody would come for it any more."""
        going, question = (
            asked[1],
            Question("https://git.example/net", "main", frozenset({("GIT_PASSWORD", "x")}), False),
        )
        going.set()
        sources.ASKED.ask(question)
        sources.ASKED.ask(question)
        assert len(asked[0]) == 1
        assert question not in sources.ASKED._asking

    def test_do_not_wait_for_others_servers(self, control: ControlPlane, asked: Any) -> None:
        for number in range(sources.PLACES + 2):
            source = GitSource(url=f"https://git{number}.example/net")
            workspaces.create(control.system, WorkspaceSpec(name=f"ws{number}", source=source))
        with self.submits(control, sources.PLACES + 2):
            eventually(lambda: len(asked[0]) == sources.PLACES)
            eventually(lambda: len(run_views.recent(control.system.database)) == 2)
            asked[1].set()
        assert len(run_views.recent(control.system.database)) == sources.PLACES + 2
