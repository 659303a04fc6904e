"""Sources: what is copied, what is fetched, and what is said when there is nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import source
from agent.files import copy_file
from tests.agent.conftest import Bench, Configuration, of_apply, unavailable
from workers.protocol.git_remote import Remote, remote
from workers.protocol.messages import Order
from workers.protocol.sources import GitSource

SIMPLE = 'output "version" { value = "one" }\n'


def copy(path: Path, target: Path) -> list[Path]:
    return source.copy_tree(path, target, lambda: None, without=target.parent / "nowhere")


class TestADirectory:
    def test_is_copied_with_modes_and_times_but_without_state_and_git(
        self, configuration: Configuration, tmp_path: Path
    ) -> None:
        for name in (
            "main.tf", "modules/a/a.tf", ".terraform.lock.hcl", "files/script.sh", "terraform.tfstate",
            "terraform.tfstate.backup", "terraform.tfstate.d/x/terraform.tfstate", ".terraform/providers/p",
            ".git/config", "modules/a/.terraform/x",
        ):  # fmt: skip
            configuration.write("text", name)
        (configuration.path / "files/script.sh").chmod(0o755)
        os.utime(configuration.path / "files/script.sh", ns=(1, 2))
        (configuration.path / "empty").mkdir()
        left_out = copy(configuration.path, tmp_path / "copy")
        found = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*")}
        assert found == {
            "main.tf", "modules", "modules/a", "modules/a/a.tf", ".terraform.lock.hcl", "files", "files/script.sh",
            "empty",
        }  # fmt: skip
        script = (tmp_path / "copy/files/script.sh").stat()
        assert (script.st_mode & 0o777, script.st_mtime_ns) == (0o755, 2)
        assert left_out == [configuration.path / "terraform.tfstate"]

    def test_keeps_its_links_as_links(self, configuration: Configuration, tmp_path: Path) -> None:
        outside = tmp_path / "shared"
        outside.mkdir()
        (outside / "shared.tf").write_text("text")
        configuration.write("text", "env/main.tf")
        links = {
            "env/inside": "main.tf",
            "env/outside": "../../shared/shared.tf",
            "env/absolute": str(outside),
            "env/loop": "..",
            "env/broken": "nowhere",
        }
        for name, target in links.items():
            (configuration.path / name).symlink_to(target)
        copied = tmp_path / "deep" / "er" / "copy"
        copy(configuration.path, copied)
        assert {name: os.readlink(copied / name) for name in links} == {
            **links,
            "env/outside": str(outside / "shared.tf"),
        }
        assert (copied / "env/outside").read_text() == "text"

    def test_may_hold_pipes_and_sockets(self, configuration: Configuration, tmp_path: Path) -> None:
        configuration.write("text")
        os.mkfifo(configuration.path / "pipe")
        copy(configuration.path, tmp_path / "copy")
        assert [path.name for path in (tmp_path / "copy").iterdir()] == ["main.tf"]

    def test_is_not_waited_for_where_a_pipe_takes_the_place_of_a_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="not a regular file"):
            copy_file(tmp_path / "pipe", tmp_path / "copy")

    def test_may_hold_the_agents_own_work(self, bench: Bench, make_order: Callable[..., Order]) -> None:
        bench.work_dir.mkdir()
        configuration = Configuration(bench.work_dir.parent).write(SIMPLE)
        module = bench.fetch(make_order(configuration.source))
        assert (module / "main.tf").read_text() == SIMPLE

    def test_is_refused_with_a_sentence_when_it_is_not_there(
        self, bench: Bench, make_order: Callable[..., Order], tmp_path: Path
    ) -> None:
        path = tmp_path / "nowhere"
        assert str(path) in unavailable(bench, make_order({"type": "directory", "path": str(path)}))

    def test_is_refused_when_it_holds_no_configuration(
        self, bench: Bench, make_order: Callable[..., Order], configuration: Configuration
    ) -> None:
        configuration.write("text", "README.md")
        text = unavailable(bench, make_order(configuration.source))
        assert "no Terraform configuration" in text
        assert str(configuration.path) in text

    def test_is_refused_when_its_subdirectory_is_not_there_or_leads_out(
        self, bench: Bench, make_order: Callable[..., Order], configuration: Configuration, tmp_path: Path
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/main.tf").write_text(SIMPLE)
        (configuration.path / "link").symlink_to(tmp_path / "elsewhere")
        assert "'deep'" in unavailable(bench, make_order({**configuration.source, "subdir": "deep"}))
        assert "leads out" in unavailable(bench, make_order({**configuration.source, "subdir": "link"}, run="run-2"))
        assert list((tmp_path / "elsewhere").iterdir()) == [tmp_path / "elsewhere/main.tf"]

    def test_that_can_not_be_read_is_named(
        self,
        bench: Bench,
        make_order: Callable[..., Order],
        configuration: Configuration,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        configuration.write(SIMPLE)

        def refused(*_: object) -> None:
            raise PermissionError(13, "Permission denied", str(configuration.path / "main.tf"))

        monkeypatch.setattr("agent.source.copy_file", refused)
        assert "Permission denied" in unavailable(bench, make_order(configuration.source))


class Repository:
    """A bare repository and a clone to push from."""

    def __init__(self, path: Path) -> None:
        self.path = path / "remote.git"
        self.clone = path / "clone"
        self.env = {
            "PATH": os.environ["PATH"], "HOME": str(path), "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }  # fmt: skip
        self.git("init", "-q", "--bare", "-b", "main", str(self.path), cwd=path)
        self.git("clone", "-q", str(self.path), str(self.clone), cwd=path)
        self.git("checkout", "-q", "-B", "main")

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        ended = subprocess.run(
            ["git", *arguments], cwd=cwd or self.clone, env=self.env, check=True, capture_output=True, text=True
        )
        return ended.stdout.strip()

    def commit(self, text: str, name: str = "main.tf") -> str:
        (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
        (self.clone / name).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", text[:20])
        self.git("push", "-q", "origin", "HEAD:main")
        return self.git("rev-parse", "HEAD")

    def source(self, ref: str = "main", **facts: str) -> dict[str, str]:
        return {"type": "git", "url": str(self.path), "ref": ref, **facts}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    path = tmp_path / "git"
    path.mkdir()
    return Repository(path)


class TestAGitRepository:
    def test_gives_the_same_commit_to_plan_and_apply_though_the_ref_moves(
        self, bench: Bench, make_order: Callable[..., Order], repository: Repository
    ) -> None:
        first = repository.commit('output "version" { value = "one" }')
        order = make_order(repository.source())
        planned = bench.execution(order)
        bench.execute(order, planned)
        repository.commit('output "version" { value = "two" }')
        applied = bench.execution(of_apply(order, commit=first))
        assert bench.execute(applied.order, applied).outputs == {"version": "one"}
        assert (planned.commit, applied.commit) == (first, first)
        assert bench.announced == [None, first, first]

    def test_gives_a_repeated_plan_the_commit_that_was_resolved_first(
        self, bench: Bench, make_order: Callable[..., Order], repository: Repository
    ) -> None:
        first = repository.commit('output "version" { value = "one" }')
        repository.commit('output "version" { value = "two" }')
        module = bench.fetch(make_order(repository.source(), commit=first))
        assert '"one"' in (module / "main.tf").read_text()
        assert bench.announced == [first]

    @pytest.mark.parametrize("ref", ["v1", "side/branch", "short", "full", "HEAD"])
    def test_knows_tags_branches_and_commits(
        self, bench: Bench, make_order: Callable[..., Order], repository: Repository, ref: str
    ) -> None:
        commit = repository.commit(SIMPLE)
        repository.git("tag", "-a", "v1", "-m", "first")
        repository.git("push", "-q", "origin", "v1", "HEAD:side/branch")
        if ref != "HEAD":
            repository.commit('output "version" { value = "two" }')
        order = make_order(repository.source({"short": commit[:10], "full": commit}.get(ref, ref)))
        execution = bench.execution(order)
        assert (bench.fetch(order, execution) / "main.tf").read_text() == SIMPLE
        assert execution.commit == commit

    def test_gives_its_modules_to_a_subdirectory(
        self, bench: Bench, make_order: Callable[..., Order], repository: Repository
    ) -> None:
        repository.commit(SIMPLE, "modules/m/main.tf")
        repository.commit('module "m" { source = "../../modules/m" }', "envs/prod/main.tf")
        module = bench.fetch(make_order(repository.source(subdir="envs/prod")))
        assert (module / "../../modules/m/main.tf").read_text() == SIMPLE

    def test_runs_no_hook_and_fetches_no_submodule(
        self, bench: Bench, make_order: Callable[..., Order], repository: Repository, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        marker = tmp_path / "hook-ran"
        hooks = tmp_path / "template" / "hooks"
        hooks.mkdir(parents=True)
        (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {marker}\n")
        (hooks / "post-checkout").chmod(0o755)
        monkeypatch.setenv("GIT_TEMPLATE_DIR", str(hooks.parent))
        repository.commit('[submodule "s"]\n path = s\n url = ext::sh -c "touch %s"' % marker, ".gitmodules")  # noqa: UP031
        repository.commit(SIMPLE)
        bench.fetch(make_order(repository.source()))
        assert not marker.exists()

    def test_that_is_not_there_is_named_with_gits_own_words(
        self, bench: Bench, make_order: Callable[..., Order], tmp_path: Path
    ) -> None:
        url = str(tmp_path / "nowhere.git")
        text = unavailable(bench, make_order({"type": "git", "url": url}))
        assert url in text
        assert "fatal:" in text

    def test_without_the_ref_is_named(
        self, bench: Bench, make_order: Callable[..., Order], repository: Repository
    ) -> None:
        repository.commit(SIMPLE)
        assert "no branch, tag or commit 'gone'" in unavailable(bench, make_order(repository.source("gone")))

    def test_needs_git_on_the_agent(
        self, bench: Bench, make_order: Callable[..., Order], repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        assert "git is not installed" in unavailable(bench, make_order(repository.source()))


HOST = "https://host.example/repo.git"


def git_credential(operation: str, origin: Remote, text: str = "protocol=https\nhost=host.example\n\n") -> str:
    command = ["git", *origin.options, "credential", operation]
    return subprocess.run(
        command, input=text, env=dict(origin.environment), capture_output=True, text=True, check=False
    ).stdout


def test_a_password_is_in_no_command_line_and_in_no_message() -> None:
    origin = remote("https://me:s%40cret@host.example:8443/repo.git", {"PATH": "/bin"}, {})
    assert origin.url == "https://host.example:8443/repo.git"
    assert origin.options[1] == "credential.https://host.example:8443.helper="
    assert origin.environment["AGENT_GIT_PASSWORD"] == "s@cret"
    assert origin.environment["GIT_TERMINAL_PROMPT"] == "0"
    assert "s@cret" not in f"{origin}"


def test_git_asks_the_helper_for_the_password_of_its_host_alone() -> None:
    origin = remote("https://me:s%40cret@host.example/repo.git", {"PATH": os.environ["PATH"]}, {})
    assert "username=me\npassword=s@cret" in git_credential("fill", origin)
    for other in ("protocol=https\nhost=evil.example", "protocol=http\nhost=host.example"):
        assert "s@cret" not in git_credential("fill", origin, f"{other}\n\n")


@pytest.mark.parametrize(
    ("url", "given", "username"),
    [
        (HOST, {}, "git"),
        (HOST, {"GIT_USERNAME": "me"}, "me"),
        ("https://me@host.example/repo.git", {}, "me"),
        ("https://me@host.example/repo.git", {"GIT_USERNAME": "another"}, "me"),
    ],
)
def test_the_password_of_the_workspaces_environment_reaches_git(url: str, given: dict[str, str], username: str) -> None:
    origin = remote(url, {"PATH": os.environ["PATH"]}, {"GIT_PASSWORD": "s@cret", **given})
    assert origin.url == HOST
    assert f"username={username}\npassword=s@cret" in git_credential("fill", origin)


def test_a_password_of_the_agents_own_environment_is_given_to_no_host() -> None:
    origin = remote(HOST, {"PATH": os.environ["PATH"], "GIT_PASSWORD": "s@cret"}, {})
    assert "s@cret" not in git_credential("fill", origin)


def test_the_agents_own_helpers_neither_answer_for_a_workspace_nor_learn_or_lose_a_password(tmp_path: Path) -> None:
    kept, config = tmp_path / "kept", tmp_path / "config"
    kept.write_text("https://alice:hers@host.example\n")
    config.write_text(
        f'[credential]\n helper = store --file={kept}\n[credential "https://host.example"]\n username = alice\n'
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_GLOBAL": str(config)}
    assert "password=hers" in git_credential("fill", remote(HOST, environment, {}))
    origin = remote(HOST, environment, {"GIT_PASSWORD": "s@cret"})
    answer = git_credential("fill", origin)
    assert "username=git\npassword=s@cret" in answer
    git_credential("approve", origin, answer)
    git_credential("reject", origin, answer)
    git_credential("reject", origin, "protocol=https\nhost=host.example\n\n")
    assert kept.read_text() == "https://alice:hers@host.example\n"


def test_a_configuration_by_environment_that_git_can_not_read_is_told_in_gits_own_words(
    bench: Bench, make_order: Callable[..., Order], repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(SIMPLE)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "many")
    url = f"https://127.0.0.1:1{repository.path}"
    text = unavailable(bench, make_order(repository.source(url=url), environment={"GIT_PASSWORD": "s@cret"}))
    assert "bogus count in GIT_CONFIG_COUNT" in text


def test_gits_password_reaches_neither_terraform_nor_its_providers(
    bench: Bench, make_order: Callable[..., Order], configuration: Configuration, tmp_path: Path
) -> None:
    configuration.runs(f"env > {tmp_path / 'seen'}")
    login = {"GIT_USERNAME": "me", "GIT_PASSWORD": "s@cret"}
    program = tmp_path / "terraform"
    program.write_text(f'#!/bin/sh\nenv >> {tmp_path / "seen-by-terraform"}\nexec terraform "$@"\n')
    program.chmod(0o755)
    bench.command = (str(program),)
    order = make_order(configuration.source, environment={**login, "KEPT": "kept"})
    bench.execute(order)
    bench.execute(of_apply(order))
    for seen in ("seen", "seen-by-terraform"):
        said = (tmp_path / seen).read_text()
        assert "KEPT=kept" in said
        assert "s@cret" not in said
        assert "GIT_USERNAME" not in said


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hunter2@127.0.0.1:1/net.git",
        "https://hunter2@127.0.0.1:1/net.git",
        "https://me:hun/hunter2@127.0.0.1:1/net.git",
        "ssh://me:hunter2@127.0.0.1:1/net.git",
        "git://me:hunter2@127.0.0.1:1/net.git",
    ],
)
def test_a_password_in_an_old_workspaces_url_is_in_no_log_and_no_error(
    bench: Bench, make_order: Callable[..., Order], url: str
) -> None:
    text = unavailable(bench, make_order({"type": "git", "url": url}))
    assert "hunter2" not in text + "\n".join(bench.lines.texts)
    assert "Fetching" in bench.lines.texts[0]


def test_other_urls_are_left_alone() -> None:
    for url in ("git@host:repo.git", "/srv/repo.git", "https://host/repo.git"):
        assert remote(url, {}, {"GIT_PASSWORD": "s@cret"}).url == url
    assert GitSource(url="https://host/repo.git").ref == "HEAD"
