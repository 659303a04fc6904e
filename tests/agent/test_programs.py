"""Which programs an agent finds, and which of them it chooses for a plan and its apply."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import settings
from agent.execution import PhaseFailed
from agent.programs import Programs, candidates, find
from agent.required_version import required_versions
from agent.settings import AgentSettings
from tests.agent.conftest import AgentProcess, Bench, Configuration, InnerAgent, Plane, of_apply
from tests.waiting import eventually
from workers.protocol.errors import InvalidRequest
from workers.protocol.kinds import FailureReason, RunKind
from workers.protocol.messages import Order
from workers.protocol.programs import Version, constraints

MakeOrder = Callable[..., Order]


def settings_of(tmp_path: Path, **given: Any) -> AgentSettings:
    return AgentSettings(pool="pool", agent="agent-1", work_dir=tmp_path, **given)


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """The programs of this machine: the terraform on PATH and, of a later version, the embedded one."""
    found = find(settings_of(tmp_path_factory.mktemp("work")), {"CHECKPOINT_DISABLE": "1"})
    on_path, library = found.installed[0].program, found.installed[-1].program
    assert on_path
    assert library
    assert library.version.order > on_path.version.order
    return found


def program(directory: Path, version: str, name: str = "terraform") -> Path:
    """Put a program into a directory of versions; it runs nothing."""
    path = directory / version / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\nexit 3\n")
    path.chmod(0o755)
    return path


class TestFinding:
    @pytest.fixture(autouse=True)
    def _agent(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name, value in {"POOL": "pool", "AGENT": "agent-1", "WORK_DIR": str(tmp_path / "work")}.items():
            monkeypatch.setenv(f"TERRASLOT_{name}", value)

    def test_terraform_on_the_path_comes_before_tofu_and_before_the_embedded_one(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert candidates(settings.read())[0].command[0] == sys.executable
        for name in ("tofu", "terraform"):
            (tmp_path / name).write_text("#!/bin/sh\n")
            (tmp_path / name).chmod(0o755)
            assert candidates(settings.read())[0].command == (str(tmp_path / name),)

    def test_a_terraform_that_is_asked_for_has_to_be_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERRASLOT_TERRAFORM", "/nowhere/terraform")
        with pytest.raises(InvalidRequest, match="'/nowhere/terraform' is not a program"):
            candidates(settings.read())

    def test_a_directory_of_versions_has_to_be_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERRASLOT_TERRAFORM_VERSIONS", "/nowhere")
        with pytest.raises(InvalidRequest, match="TERRASLOT_TERRAFORM_VERSIONS='/nowhere' can't be read: No such file"):
            candidates(settings.read())

    def test_without_any_terraform_it_is_said_what_to_do(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr("agent.programs.find_spec", lambda _: None)
        with pytest.raises(InvalidRequest, match="install terraform or tofu"):
            candidates(settings.read())

    def test_a_directory_holds_further_versions_newest_first_and_nothing_else_of_it_is_taken(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        versions = tmp_path / "versions"
        for version, name in (("1.9.8", "terraform"), ("1.10.1", "terraform"), ("1.10.1", "tofu"), ("notes", "tofu")):
            program(versions, version, name)
        program(versions, "1.11.0").chmod(0o644)
        (versions / "README").write_text("not a version")
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("TERRASLOT_TERRAFORM_VERSIONS", str(versions))

        found = [str(each.program) for each in candidates(settings.read()) if each.program]

        assert found == ["terraform 1.10.1", "terraform 1.9.8", "tofu 1.10.1"]

    def test_a_program_that_does_not_say_its_version_serves_where_nothing_is_required(self, tmp_path: Path) -> None:
        mute = program(tmp_path / "versions", "1.9.8")
        found = find(settings_of(tmp_path, terraform=str(mute)), {})
        assert found.known == []
        assert found.choose(None, constraints(">= 1.0")).command == (str(mute),)
        with pytest.raises(InvalidRequest, match=r"This agent does not have terraform 1\.9\.8: it has no version"):
            found.choose("terraform 1.9.8", [])


class TestChoosing:
    @pytest.fixture
    def programs(self, tmp_path: Path) -> Programs:
        versions = tmp_path / "versions"
        for version in ("1.8.5", "1.9.8", "1.10.1"):
            program(versions, version)
        program(versions, "1.9.0", "tofu")
        default = program(tmp_path / "default", "1.9.2")
        default.write_text('#!/bin/sh\necho \'{"terraform_version": "1.9.2"}\'\n')
        return find(settings_of(tmp_path, terraform=str(default), terraform_versions=versions), {})

    @pytest.mark.parametrize(
        ("required", "by_configuration", "chosen"),
        [
            (None, None, "terraform 1.9.2"),
            (None, ">= 1.8", "terraform 1.10.1"),
            (None, "~> 1.9.0", "terraform 1.9.8"),
            (None, "> 3", "terraform 1.9.2"),
            ("terraform ~> 1.9.0", None, "terraform 1.9.8"),
            ("terraform", None, "terraform 1.10.1"),
            ("terraform ~> 1.9.0", "< 1.9.5", "terraform 1.9.2"),
            ("terraform ~> 1.9.0", "> 3", "terraform 1.9.8"),
            ("tofu 1.9.x", ">= 1.8", "tofu 1.9.0"),
        ],
    )
    def test_the_newest_one_is_chosen_that_workspace_and_configuration_require(
        self, programs: Programs, required: str | None, by_configuration: str | None, chosen: str
    ) -> None:
        wanted = constraints(by_configuration) if by_configuration else []
        assert str(programs.choose(required, wanted).program) == chosen

    def test_what_is_not_there_is_refused_with_what_there_is(self, programs: Programs) -> None:
        with pytest.raises(InvalidRequest) as refused:
            programs.choose("terraform > 3", [])
        assert str(refused.value) == (
            "This agent does not have terraform > 3: it has terraform 1.10.1, terraform 1.9.8, terraform 1.9.2, "
            "terraform 1.8.5, tofu 1.9.0."
        )

    def test_the_embedded_library_is_chosen_where_no_other_will_do(self, real: Programs) -> None:
        on_path, library = real.installed[0], real.installed[-1]
        assert library.program
        assert real.choose("terraform", []) is on_path
        assert real.choose(None, constraints(">= 1.0")) is on_path
        assert real.choose(None, constraints(f"= {library.program.version.text}")) is library


class TestRequiredVersion:
    def read(self, configuration: Configuration) -> list[str]:
        """Which of some versions meet what the configuration requires; all of them where it requires nothing."""
        found = required_versions(configuration.module)
        some = ["1.8.0", "1.9.8", "1.10.1"]
        return [version for version in some if all(each.met_by(Version.of(version)) for each in found)]

    @pytest.mark.parametrize(
        "text",
        [
            'terraform {\n  required_version = "~> 1.9.0"\n}',
            'terraform{required_version="~> 1.9.0"}',
            'locals {\n  a = "${"}"}" # }\n}\nterraform {\n  backend "s3" {}\n  required_version = "~> 1.9.0"\n}',
            'terraform {\n  /* required_version = "1.8.0" */\n  // required_version = "1.8.0"\n'
            '  required_version = "~> 1.9.0" # "1.8.0"\n}',
            'locals {\n  a = <<-EOT\n    terraform {\n      required_version = "1.8.0"\n    }\n  EOT\n}\n'
            'terraform {\n  required_version = ">= 1.9, < 1.10"\n}',
            'terraform {\n  required_version = ">= 1.9"\n}\nterraform {\n  required_version = "< 1.10"\n}',
        ],
    )
    def test_is_read_where_terraform_reads_it(self, configuration: Configuration, text: str) -> None:
        assert self.read(configuration.write(text)) == ["1.9.8"]

    def test_is_read_from_json_and_from_all_files_together(self, configuration: Configuration) -> None:
        configuration.write(json.dumps({"terraform": [{"required_version": "< 1.10"}]}), "versions.tf.json")
        configuration.write('terraform {\n  required_version = ">= 1.9"\n}')
        assert self.read(configuration) == ["1.9.8"]

    @pytest.mark.parametrize(
        "text",
        [
            'module "terraform" {\n  required_version = "1.8.0"\n}',
            'variable terraform {\n  required_version = "1.8.0"\n}',
            'terraform {\n  required_providers {\n    required_version = "1.8.0"\n  }\n}',
            'terraform {\n  required_version = "${var.version}"\n}',
            'terraform {\n  required_version = "next"\n}',
            'locals {\n  a = "terraform { required_version"\n}',
            'terraform {\n  required_version = "1.8.0"\n',
            'terraform {\n  required_version = "1.8.0"\n}\n}',
            'terraform {\n  required_version = "1.8.0"\n}\nlocals {\n  a = <<EOT\n',
            "terraform {\n" + '"${' * 5_000 + 'required_version = "1.8.0"',
            'terraform {\n  required_version = "1.8.0"\n}\n' + "#" * 200_000,
        ],
        ids=lambda text: text[:40],
    )
    def test_counts_as_nothing_said_where_it_is_unclear(self, configuration: Configuration, text: str) -> None:
        assert len(self.read(configuration.write(text))) == 3

    def test_is_not_read_outside_of_the_source(self, configuration: Configuration, tmp_path: Path) -> None:
        (tmp_path / "other.tf").write_text('terraform {\n  required_version = "1.8.0"\n}')
        (configuration.path / "main.tf").symlink_to(tmp_path / "other.tf")
        assert len(self.read(configuration)) == 3


class TestARun:
    @pytest.fixture
    def two(self, bench: Bench, real: Programs, configuration: Configuration) -> Bench:
        bench.programs = real
        configuration.write('resource "terraform_data" "it" {}\noutput "o" { value = 1 }')
        return bench

    def test_is_planned_and_applied_by_the_version_that_it_requires(
        self, two: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path, real: Programs
    ) -> None:
        library = real.installed[-1].program
        order = make_order(configuration.source, terraform=f"terraform {library.version.text}")

        planned = two.execute(order)
        # The apply has its plan's program, whatever its own order says.
        applied = two.execute(of_apply(order, terraform=None))

        assert planned.program == applied.program == str(library)
        assert f"Using {library}, as terraform {library.version.text} requires." in two.lines.texts
        state = json.loads((tmp_path / "state/terraform.tfstate").read_text())
        assert state["terraform_version"] == library.version.text

    def test_is_planned_by_the_version_that_its_configuration_requires(
        self, two: Bench, make_order: MakeOrder, configuration: Configuration, real: Programs
    ) -> None:
        """With the default, Terraform would refuse the configuration."""
        library = real.installed[-1].program
        configuration.write(f'terraform {{\n  required_version = "{library.version.text}"\n}}', "versions.tf")
        assert two.execute(make_order(configuration.source)).program == str(library)
        assert f"Using {library}, as the configuration requires." in two.lines.texts

    def test_has_the_default_where_nothing_is_required(
        self, two: Bench, make_order: MakeOrder, configuration: Configuration, real: Programs
    ) -> None:
        assert two.execute(make_order(configuration.source)).program == str(real.installed[0].program)
        assert not any("Using" in text for text in two.lines.texts)

    def test_leaves_the_last_word_to_terraform(
        self, two: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        configuration.write('terraform {\n  required_version = "> 9"\n}', "versions.tf")
        with pytest.raises(PhaseFailed, match="Unsupported Terraform Core version") as failed:
            two.execute(make_order(configuration.source))
        assert failed.value.reason is FailureReason.TERRAFORM_FAILED

    def test_fails_where_its_agent_has_no_such_version(
        self, two: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        with pytest.raises(PhaseFailed, match="This agent does not have tofu: it has terraform") as failed:
            two.execute(make_order(configuration.source, terraform="tofu"))
        assert failed.value.reason is FailureReason.AGENT_ERROR

    def test_is_applied_by_no_other_program_than_planned_it(
        self, two: Bench, make_order: MakeOrder, configuration: Configuration, real: Programs
    ) -> None:
        order = make_order(configuration.source, terraform=f"terraform {real.installed[-1].program.version.text}")
        two.execute(order)
        two.programs = Programs(real.installed[:1])  # the agent was started again with another image
        with pytest.raises(PhaseFailed, match="no longer has the program that made the plan"):
            two.execute(of_apply(order))


def test_an_agent_registers_with_its_programs_and_gets_the_runs_that_require_them(
    plane: Plane, start_agent: Callable[..., AgentProcess], configuration: Configuration, real: Programs, tmp_path: Path
) -> None:
    configuration.write('output "o" { value = 1 }')
    program(tmp_path / "versions", "1.3.9")
    start_agent(TERRASLOT_TERRAFORM_VERSIONS=str(tmp_path / "versions"))
    record = eventually(lambda: plane.slots.agent("agent-1"))
    assert {*map(str, record.programs)} == {*map(str, real.known), "terraform 1.3.9"}

    library = real.installed[-1].program
    lease = plane.slots.acquire("run-1", RunKind.PLAN, "token-of-run-1-xx", [library])
    order = plane._of(lease, configuration.source, terraform=str(library))
    plane.send(order)

    assert plane.finished(order)["program"] == str(library)


def test_an_agent_whose_program_says_no_version_registers_all_the_same(
    inner_agent: Callable[..., InnerAgent], plane: Plane, tmp_path: Path
) -> None:
    inner_agent(terraform=str(program(tmp_path, "1.9.8")))
    assert plane.slots.agent("agent-1").programs == ()
