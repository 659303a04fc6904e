"""What an init has made is used again by the runs that would be given the same, and by no other (F23)."""

from __future__ import annotations

import os
import subprocess
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent import init_inputs, kept_trees
from agent.execution import PhaseFailed
from agent.files import copy_file
from agent.init_inputs import LOCK_FILE
from agent.module import Module
from agent.prepared import PreparedDirectories
from agent.provider_packages import locked
from tests.agent.conftest import Bench, Configuration, of_apply
from tests.agent.provider_program import program
from workers.protocol.messages import Order

MakeOrder = Callable[..., Order]

REQUIRED = 'terraform {{\n required_providers {{\n  thing = {{ source = "corp/thing", version = "{}" }}\n }}\n}}\n'
CODE = 'resource "terraform_data" "it" { input = 1 }\n'
AGAIN = "Nothing to initialise"


def add_to(mirror: Path, version: str, content: str = "first") -> Path:
    """Add a provider to a mirror, as an archive that every init without a cache unpacks."""
    system = "_".join(os.uname()[:1]).lower()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    directory = mirror / "registry.terraform.io" / "corp" / "thing"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"terraform-provider-thing_{version}_{system}_{machine}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo(f"terraform-provider-thing_v{version}")
        entry.external_attr = 0o755 << 16
        archive.writestr(entry, f"{program()}# {content}\n#{'x' * 100_000}")
    return path


@dataclass
class Workspace:
    """A workspace whose provider lies in a mirror, planned as often as one likes."""

    bench: Bench
    make_order: MakeOrder
    configuration: Configuration
    mirror: Path
    environment: dict[str, str] = field(default_factory=dict)
    runs: int = 0

    def plan(self, **facts: Any) -> Order:
        self.runs += 1
        facts.setdefault("environment", self.environment)
        order = self.make_order(self.configuration.source, run=f"run-{self.runs}", **facts)
        self.bench.execute(order)
        return order

    def initialises(self, **facts: Any) -> bool:
        """Plan once more, and return whether that took an init."""
        before = len(self.bench.lines.texts)
        self.plan(**facts)
        said = self.bench.lines.texts[before:]
        assert any(AGAIN in text for text in said) is ("$ terraform init" not in said)
        return "$ terraform init" in said

    @property
    def module(self) -> Path:
        return self.bench.work_dir / "runs" / f"run-{self.runs}" / "source"

    def prepared(self) -> list[Path]:
        """Return the copies that are kept on disk."""
        return list((self.bench.work_dir / "prepared").iterdir())

    @property
    def package(self) -> Path:
        """Return the program of the provider as the last run has it, links followed."""
        (path,) = (self.module / ".terraform/providers").glob("*/*/*/*/*/terraform-provider-thing_v*")
        return path.resolve()


@pytest.fixture
def workspace(bench: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path) -> Workspace:
    mirror = tmp_path / "mirror"
    add_to(mirror, "1.0.0")
    (tmp_path / "rc").write_text(f'provider_installation {{\n filesystem_mirror {{ path = "{mirror}" }}\n}}')
    configuration.write(REQUIRED.format("~> 1.0") + CODE)
    return Workspace(bench, make_order, configuration, mirror, {"TF_CLI_CONFIG_FILE": str(tmp_path / "rc")})


def test_an_unchanged_workspace_is_initialised_once_and_applied_from_what_was_kept(workspace: Workspace) -> None:
    assert workspace.initialises()
    package = workspace.package
    assert not workspace.initialises()
    assert workspace.package == package
    workspace.bench.execute(of_apply(workspace.plan()))
    assert not workspace.initialises()


def test_the_log_says_that_an_init_is_used_again_once_the_plan_has_started(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.plan()
    assert not workspace.initialises()
    said = workspace.bench.lines.texts
    assert [text for text in said if AGAIN in text or text == "$ terraform plan"][-2].startswith(AGAIN)

    def refused(*_: object, **__: object) -> None:
        raise OSError

    before = len(said)
    monkeypatch.setattr("agent.execution.Child", refused)
    with pytest.raises(PhaseFailed):
        workspace.plan()
    assert not any(AGAIN in text for text in said[before:])


def test_what_is_no_input_of_init_may_change(workspace: Workspace) -> None:
    workspace.plan()
    more = 'resource "terraform_data" "more" {\n  count = 2\n}\noutput "o" {\n  value = 1\n}\nvariable "v" {}\n'
    workspace.configuration.write(REQUIRED.format("~> 1.0") + CODE + more)
    workspace.configuration.write("v = 1", "x.auto.tfvars").write("text", "README.md")
    assert not workspace.initialises()
    assert workspace.bench.execute(of_apply(workspace.plan())).outputs == {"o": 1}


def lock(workspace: Workspace) -> None:
    (workspace.configuration.path / ".terraform.lock.hcl").write_bytes(
        (workspace.module / ".terraform.lock.hcl").read_bytes()
    )


CHANGES: Mapping[str, Callable[[Workspace], Any]] = {
    "requirement": lambda it: it.configuration.write(REQUIRED.format("1.0.0") + CODE),
    "lock file": lock,
    "module": lambda it: it.configuration.write('module "m" { source = "./m" }', "m.tf").write("", "m/main.tf"),
    "requirement of a module": lambda it: it.configuration.write(REQUIRED.format("1.0.0"), "called/main.tf"),
    "backend": lambda it: it.configuration.write('terraform {\n  backend "local" {}\n}', "backend.tf"),
    "first resource of a provider": lambda it: it.configuration.write('resource "thing_one" "e" {\n}', "e.tf"),
    "json": lambda it: it.configuration.write('{"locals": {"a": 1}}', "l.tf.json"),
    "mirror": lambda it: add_to(it.mirror, "1.0.1"),
    "command line configuration": lambda it: (it.mirror.parent / "rc").write_text(
        (it.mirror.parent / "rc").read_text() + "\ndisable_checkpoint = true"
    ),
    "environment": lambda it: it.environment.update(TF_CLI_ARGS_init="-backend-config=x=y"),
    "program": lambda it: os.utime(it.bench.command[0]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_an_init_depends_on_asks_for_a_new_one(workspace: Workspace, tmp_path: Path, change: str) -> None:
    wrapper = tmp_path / "terraform"
    wrapper.write_text('#!/bin/sh\nexec terraform "$@"\n')
    wrapper.chmod(0o755)
    workspace.bench.command = (str(wrapper),)
    workspace.configuration.write('module "called" { source = "./called" }', "calls.tf").write("", "called/main.tf")

    def digest() -> str:
        order = workspace.make_order(workspace.configuration.source)
        environment = {**os.environ, **workspace.environment}
        path = workspace.configuration.path
        found = init_inputs.read(Module(path, path), workspace.bench.command, environment, (order.workspace,))
        assert found == init_inputs.read(Module(path, path), workspace.bench.command, environment, (order.workspace,))
        return found.digest

    workspace.plan()
    before = digest()
    CHANGES[change](workspace)
    assert digest() != before


def test_a_newer_provider_in_the_mirror_is_used_and_a_replaced_one_is_unpacked_anew(workspace: Workspace) -> None:
    workspace.plan()
    add_to(workspace.mirror, "1.1.0")
    assert workspace.initialises()
    assert workspace.package.name.endswith("1.1.0")
    add_to(workspace.mirror, "1.1.0", "second")
    assert workspace.initialises()
    assert "# second" in workspace.package.read_text()


def test_another_workspace_is_given_nothing_but_packages(workspace: Workspace, tmp_path: Path) -> None:
    """What Terraform keeps about a backend may hold its credentials."""
    workspace.plan()
    package = workspace.package
    assert workspace.initialises(workspace="other", state_path=str(tmp_path / "other" / "terraform.tfstate"))
    assert workspace.package == package
    assert workspace.initialises(environment={**workspace.environment, "TF_HTTP_PASSWORD": "another"})


def test_a_package_of_another_mirror_is_not_given_where_the_configuration_names_its_own(
    workspace: Workspace, tmp_path: Path
) -> None:
    """The file that is named lies in the module, where Terraform runs, and names a mirror there."""
    rc = 'provider_installation {{\n filesystem_mirror {{ path = "{}" }}\n}}'
    workspace.environment["TF_CLI_CONFIG_FILE"] = "own.rc"
    workspace.configuration.write(rc.format(workspace.mirror), "own.rc")
    workspace.plan()
    add_to(workspace.configuration.path / "m", "1.0.0", "second")
    workspace.configuration.write(rc.format("m"), "own.rc")
    assert workspace.initialises(workspace="other", state_path=str(tmp_path / "other" / "terraform.tfstate"))
    assert "# second" in workspace.package.read_text()


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "HOME"])
def test_packages_have_another_origin_where_another_server_may_answer(
    workspace: Workspace, tmp_path: Path, name: str
) -> None:
    path = workspace.configuration.path
    (tmp_path / "given").mkdir()

    def origin(**environment: str) -> str:
        return init_inputs.read(Module(path, path), (), {"HOME": str(tmp_path), **environment}, ()).origin

    assert origin() == origin(AWS_REGION="eu")
    assert origin() != origin(**{name: str(tmp_path / "given")})


def test_nothing_is_kept_where_the_named_configuration_of_terraform_can_not_be_read(workspace: Workspace) -> None:
    path = workspace.configuration.path
    for name in ("TF_CLI_CONFIG_FILE", "TERRAFORM_CONFIG"):
        with pytest.raises(init_inputs.Unknown):
            init_inputs.read(Module(path, path), (), {name: "missing.rc"}, ())


def test_what_terraform_notes_about_a_backend_is_not_kept_on_disk(workspace: Workspace, refusing_backend: str) -> None:
    """It holds the credentials that a configuration gives."""
    backend = f'backend "http" {{\n    address = "{refusing_backend}"\n    password = "hunter2"\n  }}'
    workspace.configuration.write(f"terraform {{\n  {backend}\n}}", "backend.tf")
    assert workspace.initialises()
    assert "hunter2" in (workspace.module / ".terraform/terraform.tfstate").read_text()
    assert subprocess.run(["grep", "-r", "hunter2", workspace.bench.work_dir / "prepared"], check=False).returncode == 1
    assert not workspace.initialises()


def test_a_package_that_the_lock_file_does_not_name_is_not_written_over(workspace: Workspace) -> None:
    workspace.plan()
    package, first = workspace.package, workspace.package.stat().st_mtime_ns
    lock(workspace)
    add_to(workspace.mirror, "1.0.0", "second")
    lock_file = workspace.configuration.path / ".terraform.lock.hcl"
    lock_file.write_text(lock_file.read_text().replace("h1:", "h1:x"))
    with pytest.raises(PhaseFailed, match="checksums"):
        workspace.plan()
    assert package.stat().st_mtime_ns == first
    assert "# first" in package.read_text()


def test_a_lock_file_with_the_checksum_finds_the_package_from_wherever_it_came(workspace: Workspace) -> None:
    workspace.plan()
    package = workspace.package
    lock(workspace)
    rc = workspace.mirror.parent / "rc"
    rc.write_text(rc.read_text() + "\n# changed")
    assert workspace.initialises()
    assert workspace.package == package
    for _ in range(2):
        assert not workspace.initialises()


DAMAGES: Mapping[str, Callable[[Workspace], Any]] = {
    "a package that grew": lambda it: it.package.write_text(it.package.read_text() + "x"),
    "one of the same size and time": lambda it: rewrite(it.package),
    "one that is gone": lambda it: it.package.unlink(),
    "one with a file more": lambda it: it.package.with_name("more").touch(),
    "the lock file": lambda it: rewrite(next((it.bench.work_dir / "prepared").glob("*/.terraform.lock.hcl"))),
    "a pipe": lambda it: os.mkfifo(it.package.with_name("pipe")),
}


def rewrite(path: Path) -> None:
    """Change a file and hide it, as far as whoever owns the file can."""
    before = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_changed_is_made_anew_and_the_log_says_so(workspace: Workspace, damage: str) -> None:
    workspace.plan()
    DAMAGES[damage](workspace)
    assert workspace.initialises()
    assert any("was changed since" in text for text in workspace.bench.lines.texts)
    assert not workspace.initialises()
    assert "# first" in workspace.package.read_text()


@pytest.mark.parametrize("damage", ["package", "lock file"])
def test_what_terraform_refuses_is_made_anew(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Whatever was overlooked: Terraform has the checksums, and knows what a configuration needs."""
    workspace.plan()
    monkeypatch.setattr(kept_trees.KeptTree, "is_intact", lambda _: True)
    if damage == "package":
        workspace.package.write_text("something else")
    else:
        (kept,) = (workspace.bench.work_dir / "prepared").glob("*/.terraform.lock.hcl")
        kept.write_text(kept.read_text().replace("h1:", "h1:x"))
    monkeypatch.setattr("agent.provider_packages.Package.suits", lambda *_: False)
    workspace.plan()
    assert workspace.bench.lines.texts.count("$ terraform init") == 2
    assert any("did not suit" in text for text in workspace.bench.lines.texts)
    assert "# first" in workspace.package.read_text()


def test_a_run_that_writes_into_its_directory_changes_nothing_of_what_is_kept(workspace: Workspace) -> None:
    workspace.plan()
    for path in (workspace.module / ".terraform/terraform.tfstate", workspace.module / ".terraform.lock.hcl"):
        path.write_text("{}")
    (workspace.module / ".terraform/more").touch()
    assert not workspace.initialises()
    assert "corp/thing" in (workspace.module / ".terraform.lock.hcl").read_text()
    assert not (workspace.module / ".terraform/more").exists()


class Repository:
    """A module in git, with a branch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.git("init", "--quiet", "--initial-branch=main", str(path))
        self.commit("first")

    def git(self, *arguments: str) -> str:
        argv = ["git", "-c", "user.name=n", "-c", "user.email=e", *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, value: str) -> str:
        (self.path / "main.tf").write_text(f'output "o" {{ value = "{value}" }}')
        self.git("-C", str(self.path), "add", ".")
        self.git("-C", str(self.path), "commit", "--quiet", "--message", value)
        return self.git("-C", str(self.path), "rev-parse", "HEAD")

    def called(self, ref: str) -> str:
        source = f"git::file://{self.path}?ref={ref}"
        return f'module "m" {{\n  source = "{source}"\n}}\noutput "o" {{ value = module.m.o }}\n'


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.mark.parametrize(("seconds", "found"), [(0, "second"), (3600, "first")])
def test_a_branch_is_kept_for_as_long_as_the_operator_says(
    workspace: Workspace, repository: Repository, seconds: float, found: str
) -> None:
    workspace.bench.module_seconds = seconds
    workspace.configuration.write(repository.called("main"))
    workspace.plan()
    repository.commit("second")
    assert workspace.initialises() is (seconds == 0)
    assert workspace.bench.execute(of_apply(workspace.plan())).outputs == {"o": found}


def test_a_commit_is_kept(workspace: Workspace, repository: Repository) -> None:
    workspace.configuration.write(repository.called(repository.commit("second")))
    assert workspace.initialises()
    assert not workspace.initialises()
    assert workspace.bench.execute(of_apply(workspace.plan())).outputs == {"o": "second"}


def test_no_more_is_kept_than_may_be_and_what_a_run_needs_stays(workspace: Workspace) -> None:
    workspace.bench.kept_bytes = 150_000
    workspace.plan()
    first = workspace.package
    add_to(workspace.mirror, "1.1.0")
    order = workspace.plan()
    second = workspace.package
    assert first.exists()
    workspace.bench.execute(of_apply(order))
    (workspace.bench.work_dir / "runs/run-1").rename(workspace.bench.work_dir / "gone")
    add_to(workspace.mirror, "1.2.0")
    workspace.plan()
    assert (first.exists(), second.exists(), workspace.package.exists()) == (False, True, True)


def test_a_copy_that_can_not_be_finished_is_removed(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr("agent.prepared.copy_file", fail)
    workspace.plan()
    assert workspace.prepared() == []


def test_of_two_slots_that_initialise_the_same_the_later_one_is_kept(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PreparedDirectories, "give", lambda *_: None)  # neither finds what the other has made
        assert workspace.initialises()
        assert workspace.initialises()
    assert len(workspace.prepared()) == 1
    assert not workspace.initialises()


def test_nothing_is_kept_where_no_bytes_are_allowed(workspace: Workspace) -> None:
    workspace.bench.kept_bytes = 0
    assert workspace.initialises()
    assert workspace.initialises()
    assert workspace.package.is_relative_to(workspace.bench.work_dir / "runs/run-2")


def test_nothing_is_read_where_no_bytes_are_allowed(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror may hold thousands of packages."""
    workspace.bench.kept_bytes = 0
    monkeypatch.delattr(init_inputs, "read")
    assert workspace.initialises()


def test_the_sources_lock_file_stays_where_not_all_of_what_is_kept_can_be_given(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.plan()
    lock(workspace)
    of_the_source = workspace.configuration.path / ".terraform.lock.hcl"
    of_the_source.write_text(of_the_source.read_text().replace('"h1:', '"h1:of another platform",\n"h1:', 1))
    workspace.plan()

    def fail(source: Any, target: Any) -> None:
        if "prepared" in Path(source).parts and Path(target).name == LOCK_FILE:
            raise OSError("full")
        copy_file(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("agent.prepared.copy_file", fail)
        assert workspace.initialises()
    assert "of another platform" in (workspace.module / LOCK_FILE).read_text()


def test_a_next_process_begins_anew_and_keeps_what_a_plan_needs(workspace: Workspace) -> None:
    order = workspace.plan()
    package = workspace.package
    workspace.bench.__dict__.pop("prepared")
    assert workspace.initialises()
    assert workspace.package != package
    assert package.exists()
    workspace.bench.execute(of_apply(order))


def test_slots_may_initialise_at_the_same_time(workspace: Workspace) -> None:
    benches = [Bench(workspace.bench.work_dir) for _ in range(3)]
    for each in benches:
        each.__dict__["prepared"] = workspace.bench.prepared
    source, environment, states = workspace.configuration.source, workspace.environment, workspace.mirror.parent
    orders = [
        workspace.make_order(
            source, run=f"run-{name}", workspace=name, environment=environment, state_path=str(states / name / "s")
        )
        for name in "abc"
    ]
    threads = [
        threading.Thread(target=each.execute, args=(order,)) for each, order in zip(benches, orders, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each, order in zip(benches, orders, strict=True):
        assert each.execute(of_apply(order)).outcome == "succeeded"


def test_a_plugin_cache_of_the_pools_own_is_used_and_what_was_prepared_with_it_as_well(
    workspace: Workspace, tmp_path: Path
) -> None:
    workspace.environment["TF_PLUGIN_CACHE_DIR"] = str(tmp_path / "cache")
    workspace.plan()
    assert workspace.package.is_relative_to(tmp_path / "cache")
    assert not workspace.initialises()
    rewrite(workspace.package)
    assert workspace.initialises()


@pytest.mark.parametrize("kind", ["link", "directory", "link to a module"])
def test_a_source_that_leads_elsewhere_is_never_kept(workspace: Workspace, tmp_path: Path, kind: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/main.tf").write_text("")
    path = workspace.configuration.path
    if kind == "link":
        (path / "more.tf").symlink_to(tmp_path / "elsewhere/main.tf")
    elif kind == "directory":
        (path / ".terraform").mkdir()
    else:
        workspace.configuration.write('module "m" { source = "./m" }', "m.tf")
        (path / "m").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(init_inputs.Unknown):
        init_inputs.read(Module(path, path), (), {}, ())


def test_checksums_are_read_from_a_lock_file_and_a_hostile_one_takes_no_time() -> None:
    text = (
        'provider "h/n/t" {\n version = "1.0"\n constraints = "1"\n hashes = [\n  "h1:a",\n  "zh:b",\n  "h1:c",\n ]\n}'
    )
    assert locked(text.encode()) == {"h/n/t/1.0": {"h1:a", "h1:c"}}
    assert locked(b'provider "x" {' * 1_000_000) == {}


@pytest.fixture(autouse=True)
def _only_this_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
