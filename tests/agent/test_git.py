"""Git over ssh and https, the agent's cache, and submodules: real servers on loopback, real git."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.git import _Git
from agent.git_remote import reached
from agent.locks import exclusive, free
from tests.agent.conftest import Bench, unavailable
from tests.agent.git_servers import HttpsServer, SshServer, over_https, over_ssh
from tests.agent.test_source import SIMPLE, Repository
from tests.topologies import certificates
from tests.waiting import eventually
from workers.protocol.messages import Order

PASSWORD = "s@cret-password"
Orders = Callable[..., Order]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a repository that holds a large file, which a second run must not be sent again."""
    path = tmp_path / "git"
    path.mkdir()
    made = Repository(path)
    (made.clone / "large").write_bytes(os.urandom(200_000))
    made.commit(SIMPLE)
    return made


@pytest.fixture(scope="module")
def ssh() -> Iterator[SshServer]:
    with over_ssh() as server:
        yield server


@pytest.fixture
def https(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpsServer]:
    files = certificates(tmp_path / "tls")
    monkeypatch.setenv("GIT_SSL_CAINFO", str(files["ca.pem"]))
    with over_https(repository.path.parent, (files["server.pem"], files["server.key"]), PASSWORD) as server:
        yield server


def with_module(repository: Repository, url: str) -> None:
    """Let the repository have a submodule at a URL, whose commit is that of the repository ``module.git``."""
    path = repository.path.parent / "parts"
    path.mkdir()
    part = Repository(path)
    commit = part.commit('output "of_module" { value = 1 }\n')
    shutil.move(part.path, repository.path.parent / "module.git")
    (repository.clone / ".gitmodules").write_text(f'[submodule "m"]\n path = m\n url = {url}\n')
    (repository.clone / "m").mkdir()
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},m")
    repository.commit('module "m" { source = "./m" }\n')


def cached(bench: Bench) -> list[Path]:
    return sorted((bench.work_dir / "git").glob("*/repository"))


class TestOverSsh:
    def test_a_deploy_key_fetches_from_a_known_host_and_is_gone_then(
        self, bench: Bench, make_order: Orders, repository: Repository, ssh: SshServer
    ) -> None:
        login = {"GIT_SSH_KEY": ssh.key.strip(), "GIT_SSH_KNOWN_HOSTS": ssh.known_hosts}
        order = make_order(repository.source(url=ssh.url(repository.path)), environment=login)
        assert (bench.fetch(order) / "main.tf").read_text() == SIMPLE
        secret = ssh.key.splitlines()[1]
        left = [path for path in bench.work_dir.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
        assert left == []
        assert not (bench.work_dir / "runs" / "run-1" / "ssh").exists()

    def test_an_unknown_host_another_hosts_key_and_a_wrong_deploy_key_are_refused(
        self, bench: Bench, make_order: Orders, repository: Repository, ssh: SshServer
    ) -> None:
        before = ssh.connections
        for number, (key, hosts, said) in enumerate(
            (
                (ssh.key, "", "Host key verification failed"),
                (ssh.key, ssh.other_hosts, "Host key verification failed"),
                (ssh.wrong_key, ssh.known_hosts, "Permission denied"),
            )
        ):
            login = {"GIT_SSH_KEY": key, "GIT_SSH_KNOWN_HOSTS": hosts}
            source = repository.source(url=ssh.url(repository.path))
            text = unavailable(bench, make_order(source, environment=login, run=f"run-{number}"))
            assert said in text
            assert ssh.url(repository.path) in text
        assert ssh.connections == before

    def test_the_key_is_for_its_owner_alone_and_no_command_is_made_of_what_is_given(self, tmp_path: Path) -> None:
        """Neither the account's configuration nor its ssh agent plays a part, whatever the paths are."""
        private = tmp_path / "it's; touch x $(touch y)"
        login = {"GIT_SSH_KEY": "a key\r\nof lines", "GIT_SSH_KNOWN_HOSTS": "hosts"}
        with reached("ssh://git@h/x", {"PATH": "/bin", "GIT_SSH_COMMAND": "mine"}, login, private) as origin:
            command = origin.environment["GIT_SSH_COMMAND"]
            script = f'ssh() {{ printf "%s\\n" "$@"; }}; {command} git@host'
            said = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
            assert f'IdentityFile="{private}/GIT_SSH_KEY"' in said.splitlines()
            assert said.splitlines()[:2] == ["-F", "/dev/null"]
            for option in ("StrictHostKeyChecking=yes", "IdentityAgent=none", "IdentitiesOnly=yes", "BatchMode=yes"):
                assert option in said.splitlines()
            assert (private / "GIT_SSH_KEY").read_bytes() == b"a key\nof lines\n"
            assert (private / "GIT_SSH_KEY").stat().st_mode & 0o777 == 0o600
            assert "a key" not in command
        assert not private.exists()
        assert not (tmp_path / "x").exists()


class TestTheCache:
    def test_a_second_run_is_sent_only_what_is_new(
        self, bench: Bench, make_order: Orders, repository: Repository, https: HttpsServer
    ) -> None:
        source = repository.source(url=f"{https.url}/remote.git")
        order = make_order(source, environment={"GIT_PASSWORD": PASSWORD})
        bench.fetch(order)
        assert https.received > 200_000
        https.received = 0
        repository.commit('output "version" { value = "two" }\n')
        module = bench.fetch(order.model_copy(update={"run": "run-2"}))
        assert '"two"' in (module / "main.tf").read_text()
        assert (module / "large").stat().st_size == 200_000
        assert https.received < 20_000
        assert not any(PASSWORD.encode() in path.read_bytes() for path in (bench.work_dir / "git").rglob("config"))

    def test_gives_nothing_to_a_workspace_that_the_server_does_not_let_in(
        self, bench: Bench, make_order: Orders, repository: Repository, https: HttpsServer
    ) -> None:
        """Also not a commit that it has, and by its name."""
        source = repository.source(url=f"{https.url}/remote.git")
        commit = repository.git("rev-parse", "HEAD")
        bench.fetch(make_order(source, environment={"GIT_PASSWORD": PASSWORD}))
        for number, wrong in enumerate(({}, {"GIT_PASSWORD": "another"})):
            order = make_order(source, environment=wrong, commit=commit, run=f"other-{number}", workspace="other")
            assert "git ls-remote of" in unavailable(bench, order)
            assert not (bench.work_dir / "runs" / order.run / "source").exists()
        assert len(cached(bench)) == 1

    def test_is_not_shared_with_a_workspace_that_names_another_server_for_the_url(
        self, bench: Bench, make_order: Orders, repository: Repository
    ) -> None:
        """Who decides where a URL leads could else be given what is private, for a commit's name."""
        bench.fetch(make_order(repository.source()))
        bench.fetch(make_order(repository.source(), environment={"HTTPS_PROXY": "http://mine"}, run="run-2"))
        bench.fetch(make_order(repository.source(), environment={"AWS_REGION": "eu"}, run="run-3", workspace="other"))
        assert len(cached(bench)) == 2

    @pytest.mark.parametrize("damage", ["objects", "lock", "refs", "a file"])
    def test_is_made_anew_where_it_is_damaged(
        self, bench: Bench, make_order: Orders, repository: Repository, damage: str
    ) -> None:
        bench.fetch(make_order(repository.source()))
        (place,) = cached(bench)
        match damage:
            case "objects":
                for path in [path for path in (place / "objects").rglob("*") if path.is_file()]:
                    path.chmod(0o644)
                    path.write_bytes(b"garbage")
            case "lock":
                (place / "shallow.lock").touch()
                repository.commit('output "version" { value = "two" }\n')
            case "refs":
                shutil.rmtree(place / "refs")
                (place / "refs").write_text("")
            case "a file":
                shutil.rmtree(place)
                place.touch()
        module = bench.fetch(make_order(repository.source(), run="run-2"))
        assert (module / "main.tf").exists()
        assert "The agent's copy of the repository can't be used" in "\n".join(bench.lines.texts)
        assert bench.fetch(make_order(repository.source(), run="run-3"))

    @pytest.mark.parametrize("plant", ["another server", "another common directory", "a program", "nonsense"])
    def test_follows_nothing_that_a_run_has_planted_in_it(
        self, bench: Bench, make_order: Orders, repository: Repository, tmp_path: Path, plant: str
    ) -> None:
        bench.fetch(make_order(repository.source()))
        (place,) = cached(bench)
        (tmp_path / "hostile").mkdir()
        hostile = Repository(tmp_path / "hostile")
        hostile.commit('output "version" { value = "hostile" }\n')
        instead = f'[url "{hostile.path}"]\n insteadOf = {repository.path}\n'
        match plant:
            case "another server":
                (place / "config").write_text((place / "config").read_text() + instead)
            case "another common directory":
                (hostile.path / "config").write_text((hostile.path / "config").read_text() + instead)
                (place / "commondir").write_text(str(hostile.path))
            case "a program":
                (place / "objects/info/alternates").write_text(f"{hostile.path}/objects\n")
                program = f"[core]\n alternateRefsCommand = touch {tmp_path}/ran;:\n"
                (place / "config").write_text((place / "config").read_text() + program)
            case "nonsense":
                (place / "config").write_text("[[[")
        repository.commit('output "version" { value = "two" }\n')
        module = bench.fetch(make_order(repository.source(), run="run-2"))
        assert '"two"' in (module / "main.tf").read_text()
        assert not (tmp_path / "ran").exists()
        assert "can't be used" not in "\n".join(bench.lines.texts)

    def test_follows_a_ref_that_moves_while_it_is_fetched(
        self, bench: Bench, make_order: Orders, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        find, moves = _Git.find, ['output "version" { value = "moved" }\n']

        def then_move(git: _Git, wanted: str) -> Any:
            found = find(git, wanted)
            if moves:
                repository.commit(moves.pop())
            return found

        monkeypatch.setattr(_Git, "find", then_move)
        assert '"moved"' in (bench.fetch(make_order(repository.source())) / "main.tf").read_text()

    @pytest.mark.parametrize("wanted", ["0" * 40, "0123456"])
    def test_is_kept_where_no_such_commit_is_known(
        self, bench: Bench, make_order: Orders, repository: Repository, wanted: str
    ) -> None:
        bench.fetch(make_order(repository.source()))
        (place,) = cached(bench)
        before = place.stat().st_ino
        assert f"commit '{wanted}'" in unavailable(bench, make_order(repository.source(ref=wanted), run="run-2"))
        assert place.stat().st_ino == before
        assert "can't be used" not in "\n".join(bench.lines.texts)

    def test_is_bounded_and_forgets_what_is_unused_for_longest(
        self, bench: Bench, make_order: Orders, repository: Repository, tmp_path: Path
    ) -> None:
        bench.git_cache_bytes = 2**20
        urls = [str(tmp_path / f"{number}.git") for number in range(6)]
        for number, url in enumerate(urls):
            shutil.copytree(repository.path, url)
            bench.fetch(make_order(repository.source(url=url), run=f"run-{number}"))
        used = [place.parent / "used" for place in cached(bench)]
        assert 3 <= len(used) <= 5
        bench.git_cache_bytes = 0
        bench.fetch(make_order(repository.source(), run="last"))
        assert list((bench.work_dir / "git").iterdir()) == []

    def test_measures_only_what_a_run_has_used(
        self, bench: Bench, make_order: Orders, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(repository.path, tmp_path / "other.git")
        bench.fetch(make_order(repository.source()))
        (first,) = cached(bench)
        measured: list[str] = []
        walk = os.walk

        def walked(top: Path) -> Any:
            measured.append(str(top))
            return walk(top)

        monkeypatch.setattr(os, "walk", walked)
        bench.fetch(make_order(repository.source(url=str(tmp_path / "other.git")), run="run-2"))
        (second,) = set(cached(bench)) - {first}
        assert [path for path in measured if "/git/" in path] == [str(second)]
        (first.parent / "used").write_text("nonsense")
        bench.fetch(make_order(repository.source(url=str(tmp_path / "other.git")), run="run-3"))
        assert str(first) in measured

    def test_is_waited_for_though_it_is_removed_meanwhile(self, bench: Bench, make_order: Orders) -> None:
        """Who waits and who comes later don't hold locks of two directories of one name."""
        place, execution = bench.work_dir / "git" / "place", bench.execution(make_order({"type": "git", "url": "/x"}))
        held, done = threading.Event(), threading.Event()

        def wait() -> None:
            with exclusive(place, execution, "waiting"):
                held.set()
                done.wait(20)

        with free(place) as is_free:
            assert is_free
            thread = threading.Thread(target=wait)
            thread.start()
            eventually(lambda: "waiting" in bench.lines.texts)
            shutil.rmtree(place)
        assert held.wait(20)
        with free(place) as is_free:
            assert not is_free
        done.set()
        thread.join()
        execution.log.close(5)

    def test_is_used_by_one_run_at_a_time(self, bench: Bench, make_order: Orders, repository: Repository) -> None:
        failed: list[BaseException] = []

        def fetch(number: int) -> None:
            try:
                bench.fetch(make_order(repository.source(), run=f"run-{number}"))
            except BaseException as error:  # noqa: BLE001 - told to the test
                failed.append(error)

        threads = [threading.Thread(target=fetch, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (failed, len(cached(bench))) == ([], 1)
        assert {path.read_text() for path in bench.work_dir.glob("runs/*/source/main.tf")} == {SIMPLE}


class TestSubmodules:
    def test_are_fetched_when_asked_for_from_where_the_repository_is(
        self, bench: Bench, make_order: Orders, repository: Repository, https: HttpsServer
    ) -> None:
        with_module(repository, "../module.git")
        source = repository.source(url=f"{https.url}/remote.git")
        login = {"GIT_PASSWORD": PASSWORD}
        module = bench.fetch(make_order(source, environment=login))
        assert not (module / "m/main.tf").exists()
        module = bench.fetch(make_order({**source, "submodules": True}, environment=login, run="run-2"))
        assert "of_module" in (module / "m/main.tf").read_text()

    @pytest.mark.parametrize(
        "url",
        [
            "{root}/module.git", "file://{root}/module.git", "../module.git", "ext::sh -c touch% {root}/ran",
            "--upload-pack=touch {root}/ran",
        ],
    )  # fmt: skip
    def test_read_no_repository_of_the_agents_disk_and_run_nothing(
        self, bench: Bench, make_order: Orders, repository: Repository, url: str
    ) -> None:
        root = repository.path.parent
        with_module(repository, url.format(root=root))
        order = make_order({**repository.source(), "submodules": True})
        text = unavailable(bench, order)
        assert "git submodule of" in text
        assert not (root / "ran").exists()
        assert not (bench.work_dir / "runs" / "run-1" / "source" / "m" / "main.tf").exists()
