"""Whole phases with a real Terraform: what is planned is applied, and every other end has its words."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.execution import Execution, PhaseFailed, StopCause, Stopped
from agent.locks import LOCK, exclusive
from agent.masking import Mask
from agent.module import Module
from agent.programs import candidates
from agent.settings import EMBEDDED, AgentSettings
from agent.state_backend import OVERRIDE, is_remote, may_be_configured, rescue_state, use_local
from agent.terraform_environment import plugin_cache
from tests.agent.conftest import Bench, Configuration, of_apply
from tests.waiting import eventually
from workers.protocol.kinds import FailureReason, RunKind
from workers.protocol.messages import Changes, Order
from workers.protocol.sources import SensitiveVariables

MakeOrder = Callable[..., Order]
SLOW = "echo begun; exec sleep 60"
HOLDING = 'resource "terraform_data" "first" { input = 1 }\n'


class Background:
    """A phase in a thread of its own."""

    def __init__(self, bench: Bench, order: Order) -> None:
        self.bench = bench
        self.execution = bench.execution(order)
        self.result: Any = None
        self.thread = threading.Thread(target=self._execute)
        self.thread.start()

    def _execute(self) -> None:
        try:
            self.result = self.bench.execute(self.execution.order, self.execution)
        except (PhaseFailed, Stopped) as error:
            self.result = error

    def reach(self, text: str) -> Execution:
        eventually(lambda: any(text in line for line in self.bench.lines.texts) or not self.thread.is_alive())
        assert self.thread.is_alive(), self.result
        return self.execution

    def end(self) -> Any:
        self.thread.join(30)
        return self.result


def state(order: Order) -> dict[str, Any]:
    assert order.state_path is not None
    content: dict[str, Any] = json.loads(Path(order.state_path).read_text())
    return content


def failure(bench: Bench, order: Order) -> PhaseFailed:
    with pytest.raises(PhaseFailed) as failed:
        bench.execute(order)
    return failed.value


class TestAPlanAndItsApply:
    def test_do_what_they_say(self, bench: Bench, make_order: MakeOrder, configuration: Configuration) -> None:
        configuration.write(
            """
            variable "size" { type = number }
            variable "tags" { type = map(string) }
            resource "terraform_data" "a" {
              count = 2
              input = var.size
            }
            output "sum" { value = var.size + 1 }
            output "later" { value = terraform_data.a[0].output }
            output "secret" {
              value     = var.tags["x"]
              sensitive = true
            }
            """
        )
        order = make_order(configuration.source, variables={"size": 4, "tags": {"x": "hunter2"}})
        planned = bench.execute(order)
        assert (planned.changed, planned.changes) == (True, Changes(add=2))
        assert planned.outputs == {"sum": 5, "secret": "(sensitive)"}
        applied = bench.execute(of_apply(order))
        assert applied.outputs == {"sum": 5, "later": 4, "secret": "(sensitive)"}
        again = bench.execute(order)
        assert (again.changed, again.changes) == (False, Changes())
        assert "hunter2" not in "\n".join(bench.lines.texts)

    def test_say_what_becomes_of_each_resource(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        """Replaced because of what, sensitive values as Terraform marks them, unknown ones as such."""
        code = """
            variable "size" { default = 1 }
            variable "key" { sensitive = true }
            resource "terraform_data" "kept" {
              input = { size = var.size, key = var.key, copy = "see-%s" }
            }
            resource "terraform_data" "replaced" { triggers_replace = [var.size] }
            """
        configuration.write(code % "correct-horse" + 'resource "terraform_data" "gone" { input = "x" }')
        order = make_order(configuration.source, variables={"key": "hunter2"})
        bench.execute(order)
        bench.execute(of_apply(order))
        configuration.write(code % "battery-staple")
        execution = bench.execution(make_order(configuration.source, variables={"key": "hunter3", "size": 2}))
        execution.log.mask = Mask({"password": "battery-staple", "word": "before"})
        found = bench.phases._plan(execution, SensitiveVariables()).plan
        execution.log.close(5)
        gone, replaced, kept = found.resources
        assert (gone.address, gone.action) == ("terraform_data.gone", "delete")
        assert (replaced.address, replaced.action) == ("terraform_data.replaced", "replace")
        assert (replaced.replace_paths, replaced.reason) == (["triggers_replace"], "replace_because_cannot_update")
        changed = {each.path: each for each in kept.attributes}
        assert (changed["input.size"].before, changed["input.size"].after) == (1, 2)
        assert changed["input.key"].sensitive
        assert (changed["input.key"].before, changed["input.key"].after) == ("(sensitive)", "(sensitive)")
        assert changed["input.copy"].after == "see-(sensitive)"
        assert changed["output"].unknown

    def test_destroy_everything_when_asked(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        configuration.write(HOLDING)
        order = make_order(configuration.source)
        bench.execute(order)
        bench.execute(of_apply(order))
        destroy = make_order(configuration.source, destroy=True)
        assert bench.execute(destroy).changes == Changes(destroy=1)
        bench.execute(of_apply(destroy))
        assert state(order)["resources"] == []

    def test_share_one_directory_so_that_files_of_the_plan_are_there(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        """F21."""
        configuration.write('resource "terraform_data" "it" {\n provisioner "local-exec" { command = "cat made" }\n}')
        order = make_order(configuration.source)
        bench.execute(order)
        (bench.work_dir / "runs/run-1/source/made").write_text("made while planning")
        configuration.write("resource changed meanwhile")
        moved = order.source.model_copy(update={"subdir": "elsewhere"})
        bench.execute(of_apply(order).model_copy(update={"source": moved}))
        assert any("made while planning" in line for line in bench.lines.texts)

    @pytest.mark.parametrize("kind", RunKind)
    def test_leave_in_the_runs_directory_what_is_needed(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path, kind: RunKind
    ) -> None:
        """Notes for an apply where one may follow, in the place of what a configuration has put there meanwhile."""
        program = tmp_path / "terraform"
        program.write_text('#!/bin/sh\ncase $1 in\n plan) mkfifo ../module; exit 2 ;;\n show) echo "{}" ;;\nesac\n')
        program.chmod(0o755)
        bench.command = (str(program),)
        order = make_order(configuration.write("").source, kind=kind)
        assert bench.execute(order).changed
        directory = bench.work_dir / "runs" / order.run
        assert {path.name for path in directory.iterdir()} == {"source", "plugins", "output", "module"}
        assert (directory / "module").is_fifo() is (kind is RunKind.PLAN)
        if kind is RunKind.PLAN_AND_APPLY:
            assert (directory / "module").read_text() == "source"
        assert {path.suffix for path in (directory / "output").iterdir()} == {".out", ".err"}

    def test_write_through_no_link_that_a_configuration_has_put_there(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path
    ) -> None:
        program = tmp_path / "terraform"
        program.write_text(
            "#!/bin/sh\n[ $1 = plan ] || exit 0\n"
            f"for name in module not-told; do ln -s {tmp_path}/elsewhere ../$name; done; exit 2\n"
        )
        program.chmod(0o755)
        bench.command = (str(program),)
        assert bench.execute(make_order(configuration.write("").source, auto_apply=True)).detail_follows
        assert not (tmp_path / "elsewhere").exists()

    def test_work_in_the_embedded_terraform(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path
    ) -> None:
        bench.command = embedded(tmp_path)
        configuration.write(HOLDING + 'output "o" { value = terraform_data.first.output }')
        configuration.write("raise SystemExit('a module of the configuration was imported')", "ctypes.py")
        order = make_order(configuration.source)
        assert bench.execute(order).changes == Changes(add=1)
        assert bench.execute(of_apply(order)).outputs == {"o": 1}
        assert bench.lines.texts[-1].startswith("o = ")

    def test_are_given_the_workspaces_environment_and_none_of_the_platforms(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setenv("TERRASLOT_REDIS_URL", "redis://:secret@host")
        monkeypatch.setenv("CELERY_BROKER_URL", "redis://:secret@host")
        monkeypatch.setenv("FLOWER_BASIC_AUTH", "user:secret")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret")
        address = AgentSettings.model_fields["redis_url"].default
        monkeypatch.setenv("MY_REDIS", f"{address}?of=the-agent")  # under another name
        monkeypatch.setenv("AWS_REGION", "eu-1")
        monkeypatch.setenv("TF_CLI_CONFIG_FILE", "/nowhere/terraformrc")
        configuration.runs("env | sed s/^/ENV:/")
        order = make_order(configuration.source, environment={"TEAM": "net", "TF_DATA_DIR": "/nowhere/else"})
        bench.execute(order)
        bench.execute(of_apply(order))
        names = {line.split("ENV:")[1].split("=")[0] for line in bench.lines.texts if "ENV:" in line}
        assert {"TEAM", "AWS_REGION", "PATH", "TF_IN_AUTOMATION", "CHECKPOINT_DISABLE"} <= names
        assert not [name for name in names if name.startswith(("TERRASLOT_", "CELERY_", "FLOWER_", "OTEL_"))]
        assert not names & {"MY_REDIS", "TF_CLI_CONFIG_FILE", "TF_DATA_DIR"}
        assert not any("CLI configuration" in line for line in bench.lines.texts)

    def test_leave_large_outputs_out_and_say_so(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        """F22: plans stay where they are, and what is told of them is bounded."""
        configuration.write(f'output "huge" {{ value = "{"x" * 70_000}" }}\noutput "b" {{ value = 1 }}')
        assert bench.execute(make_order(configuration.source)).outputs == {"b": 1}
        assert any("'huge' is too large" in line for line in bench.lines.texts)

    def test_keep_variables_to_themselves(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        configuration.write('variable "v" {}\noutput "o" { value = 1 }')
        bench.execute(make_order(configuration.source, variables={"v": "hunter2"}))
        directory = bench.work_dir / "runs/run-1"
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "variables.tfvars.json").stat().st_mode) == 0o600
        assert not list((directory / "source").rglob("*tfvars*"))


def embedded(tmp_path: Path) -> tuple[str, ...]:
    settings = AgentSettings(pool="p", agent="a", work_dir=tmp_path, terraform=EMBEDDED)
    return candidates(settings)[0].command


class TestWhatTerraformRefuses:
    def test_is_told_in_its_own_words(self, bench: Bench, make_order: MakeOrder, configuration: Configuration) -> None:
        configuration.write('resource "terraform_data" {')
        failed = failure(bench, make_order(configuration.source))
        assert failed.reason is FailureReason.TERRAFORM_FAILED
        assert "Error: " in failed.text
        assert "main.tf line 1" in failed.text
        assert not re.search("[\x00-\x08\x0b-\x1f]", failed.text)

    def test_names_no_path_of_the_agent(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        """Neither do the log, and what the agent says itself; the values of outputs are the configuration's own."""
        configuration.write(
            'variable "no" { default = false }\n'
            'output "here" {\n  value = abspath(path.module)\n  precondition {\n    condition = var.no\n'
            '    error_message = "no x in ${abspath(path.root)}, nor in ${abspath("..")}/variables."\n  }\n}'
        )
        failed = failure(bench, make_order(configuration.source))
        assert "no x in ., nor in variables." in " ".join(failed.text.split())
        bench.lines.lines.clear()
        execution = bench.execution(make_order(configuration.source, run="run-2"))
        (bench.work_dir / "runs").mkdir(exist_ok=True)
        (bench.work_dir / "runs" / "run-2").write_text("in the way")
        ended = bench.phases.finish(execution)
        execution.log.close(5)
        assert ended is not None
        assert "The agent could not go on: " in str(ended.error)
        assert str(bench.work_dir) not in "\n".join([failed.text, str(ended.error), *bench.lines.texts])

    def test_includes_a_provider_that_can_not_be_installed(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path
    ) -> None:
        mirror = tmp_path / "mirror"
        mirror.mkdir()
        rc = (
            configuration.write(f'provider_installation {{\n filesystem_mirror {{ path = "{mirror}" }}\n}}', "rc").path
            / "rc"
        )
        configuration.write('resource "nosuch_thing" "x" {}')
        failed = failure(bench, make_order(configuration.source, environment={"TF_CLI_CONFIG_FILE": str(rc)}))
        assert failed.reason is FailureReason.TERRAFORM_FAILED
        assert "hashicorp/nosuch" in failed.text

    def test_includes_a_stale_plan(self, bench: Bench, make_order: MakeOrder, configuration: Configuration) -> None:
        """F20."""
        configuration.write(HOLDING)
        older = make_order(configuration.source)
        newer = make_order(configuration.source, run="run-2")
        bench.execute(older)
        bench.execute(newer)
        bench.execute(of_apply(newer))
        assert "Saved plan is stale" in failure(bench, of_apply(older)).text

    def test_includes_a_locked_state_and_names_its_holder(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        """F17; and a plan that may change nothing takes no lock."""
        configuration.runs(SLOW)
        order = make_order(configuration.source)
        bench.execute(order)
        holder = Background(bench, of_apply(order))
        holder.reach("begun")
        unwaited = {"TF_CLI_ARGS_plan": "-lock-timeout=0s"}
        failed = failure(bench, make_order(configuration.source, run="run-2", environment=unwaited))
        assert "Error acquiring the state lock" in failed.text
        assert re.search(r"Who:\s+\S+", failed.text)
        assert bench.execute(make_order(configuration.source, run="run-3", kind=RunKind.PLAN)).changed
        holder.execution.stop(StopCause.CANCELLED, kill_in=0)
        holder.end()

    def test_is_bounded_and_clean_however_hostile(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        configuration.runs(r"printf '\033[31mred\033[0m\r\007'; head -c 1000000 /dev/zero | tr '\0' x; exit 1")
        order = make_order(configuration.source)
        bench.execute(order)
        failed = failure(bench, of_apply(order))
        assert len(failed.text) <= 16_000
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", failed.text)
        assert all(len(line) < 9000 and line.isprintable() for line in bench.lines.texts if line)

    def test_in_an_apply_without_its_plan_is_said_plainly(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        failed = failure(bench, of_apply(make_order(configuration.source)))
        assert failed.reason is FailureReason.AGENT_ERROR
        assert "Plan the workspace again" in failed.text


class TestState:
    def test_without_a_backend_is_kept_outside_of_the_run(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        configuration.write(HOLDING)
        order = make_order(configuration.source)
        bench.execute(order)
        bench.execute(of_apply(order))
        assert len(state(order)["resources"]) == 1
        assert order.state_path is not None
        assert stat.S_IMODE(Path(order.state_path).parent.stat().st_mode) == 0o700
        assert not list(bench.work_dir.rglob("*.tfstate.backup"))

    def test_is_found_by_the_workspaces_name_too(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path
    ) -> None:
        """F47: a control plane of 0.1 knows no other name of it; a directory that the name had before stays."""
        configuration.write(HOLDING)
        states = tmp_path / "states"
        for directory in ("net.1", "net.2"):
            order = make_order(configuration.source, workspace="net", state_path=str(states / directory / "s.tfstate"))
            bench.execute(order)
            assert (states / "net").resolve().name == directory
        (states / "net").unlink()
        (states / "net").mkdir()
        bench.execute(order)
        assert sorted(each.name for each in states.iterdir()) == ["net", "net.1", "net.2"]
        assert not list((states / "net").iterdir())

    def test_is_labelled_by_two_slots_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        module, place = tmp_path / "module", tmp_path / "states/net.1"
        module.mkdir()
        replace = Path.replace

        def after_the_other(draft: Path, label: Path) -> Path:
            monkeypatch.setattr(Path, "replace", replace)
            use_local(module, str(place / "s.tfstate"), "net")
            return draft.replace(label)

        monkeypatch.setattr(Path, "replace", after_the_other)
        use_local(module, str(place / "s.tfstate"), "net")
        assert (tmp_path / "states/net").resolve() == place
        assert not list(place.iterdir())

    @pytest.mark.parametrize("backend", ['backend "local" {}', 'backend "local" { path = "kept/here.tfstate" }'])
    def test_of_a_local_backend_in_the_run_is_moved_out_of_it(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, backend: str
    ) -> None:
        configuration.write(f"terraform {{\n {backend}\n}}\n{HOLDING}")
        order = make_order(configuration.source)
        bench.execute(order)
        bench.execute(of_apply(order))
        assert len(state(order)["resources"]) == 1

    def test_in_a_place_that_the_configuration_names_stays_there(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path
    ) -> None:
        place = tmp_path / "place.tfstate"
        configuration.write(f'terraform {{\n backend "local" {{ path = "{place}" }}\n}}\n{HOLDING}')
        order = make_order(configuration.source, state_path=None)
        bench.execute(order)
        bench.execute(of_apply(order))
        assert place.exists()
        assert not (bench.work_dir / "runs/run-1/source" / OVERRIDE).exists()

    def test_may_be_kept_where_a_resource_is_called_backend(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        configuration.write('resource "terraform_data" "backend" { input = "a cloud" }')
        order = make_order(configuration.source)
        bench.execute(order)
        bench.execute(of_apply(order))
        assert len(state(order)["resources"]) == 1

    def test_has_to_have_a_place(self, bench: Bench, make_order: MakeOrder, configuration: Configuration) -> None:
        configuration.write(HOLDING)
        failed = failure(bench, make_order(configuration.source, state_path=None))
        assert "Add a backend block" in failed.text

    def test_path_may_look_like_a_template(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path
    ) -> None:
        configuration.write(HOLDING)
        order = make_order(configuration.source, state_path=str(tmp_path / "${x} %{y}" / "s.tfstate"))
        bench.execute(order)
        bench.execute(of_apply(order))
        assert len(state(order)["resources"]) == 1

    def test_of_a_hostile_source_is_written_to_no_place_of_its_choice(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path
    ) -> None:
        victim = tmp_path / "victim"
        victim.write_text("precious")
        configuration.write(HOLDING)
        (configuration.path / OVERRIDE).symlink_to(victim)
        (configuration.path / "errored.tfstate").symlink_to(victim)
        order = make_order(configuration.source)
        bench.execute(order)
        assert victim.read_text() == "precious"
        assert rescue_state(bench.execution(order), configuration.path, tmp_path / "rescued") is None

    def test_that_can_not_be_written_is_rescued_and_named(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path, refusing_backend: str
    ) -> None:
        """F19."""
        configuration.write(
            f'terraform {{\n backend "http" {{\n address = "{refusing_backend}"\n retry_max = 0\n }}\n}}\n{HOLDING}'
        )
        order = make_order(configuration.source)
        bench.execute(order)
        failed = failure(bench, of_apply(order))
        kept = tmp_path / "state" / "net-run-1.errored.tfstate"
        assert "Failed to save state" in failed.text
        assert "`terraslot state give-up run-1` lets" in failed.text
        assert str(kept) in failed.text
        assert len(json.loads(kept.read_text())["resources"]) == 1
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    def test_is_rescued_into_the_agents_directory_where_a_pool_keeps_no_state(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        """F19."""
        order = make_order(configuration.source, state_path=None)
        module = bench.work_dir / "module"
        module.mkdir(parents=True)
        (module / "errored.tfstate").write_text("{}")
        kept = rescue_state(bench.execution(order), module, bench.work_dir / "rescued")
        assert kept == bench.work_dir / "rescued/net-run-1.errored.tfstate"


class TestStopping:
    def test_an_apply_halts_it_and_writes_the_state(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        """F18: one SIGINT, whatever is asked how often."""
        self.halt(bench, make_order(configuration.source), configuration)

    def test_an_apply_of_the_embedded_terraform_as_well(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path
    ) -> None:
        bench.command = embedded(tmp_path)
        self.halt(bench, make_order(configuration.source), configuration)

    def halt(self, bench: Bench, order: Order, configuration: Configuration) -> None:
        configuration.runs(SLOW).write(HOLDING, "first.tf")
        bench.execute(order)
        apply = Background(bench, of_apply(order))
        execution = apply.reach("begun")
        for _ in range(3):
            execution.stop(StopCause.CANCELLED)
        execution.stop(StopCause.SHUTDOWN, kill_in=20)
        stopped = apply.end()
        assert (type(stopped), stopped.cause) == (Stopped, StopCause.CANCELLED)
        assert "execution halted" in (stopped.text or "")
        assert not any("Two interrupts" in line for line in bench.lines.texts)
        assert "first" in {resource["name"] for resource in state(order)["resources"]}

    def test_a_phase_that_does_not_yield_kills_it_after_its_time(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path
    ) -> None:
        os.mkfifo(tmp_path / "pipe")
        gate = (
            f'data "terraform_remote_state" "gate" {{\n backend = "local"\n config = {{ path = "{tmp_path}/pipe" }}\n}}'
        )
        configuration.write(gate)
        plan = Background(bench, make_order(configuration.source))
        plan.reach("Reading...").stop(StopCause.DROPPED, kill_in=0.5)
        plan.reach("Interrupt received")
        began = time.monotonic()
        assert plan.end().cause is StopCause.DROPPED
        assert time.monotonic() - began < 5
        assert not any((bench.work_dir / "children").iterdir())

    def test_between_two_commands_starts_no_further_one(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        configuration.write(HOLDING)
        plan = bench.execution(make_order(configuration.source))
        run = plan.run

        def stop_after(*command: Any, **options: Any) -> Any:
            finished = run(*command, **options)
            plan.stop(StopCause.CANCELLED)
            return finished

        plan.run = stop_after  # type: ignore[method-assign]
        with pytest.raises(Stopped):
            bench.execute(plan.order, plan)
        assert [text for text in bench.lines.texts if text.startswith("$ ")] == ["$ terraform init"]

    def test_an_apply_that_was_done_already_changes_nothing_of_its_success(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        configuration.write(HOLDING + 'output "o" { value = 1 }')
        order = make_order(configuration.source)
        bench.execute(order)
        apply = bench.execution(of_apply(order))
        write = apply.log.write

        def stop_at_the_end(text: str) -> None:
            write(text)
            if "Apply complete" in text:
                apply.stop(StopCause.CANCELLED)

        apply.log.write = stop_at_the_end  # type: ignore[method-assign]
        assert bench.execute(apply.order, apply).outputs in ({"o": 1}, {})

    def test_comes_by_itself_when_the_time_is_over(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration
    ) -> None:
        configuration.runs(SLOW)
        order = make_order(configuration.source)
        bench.execute(order)
        stopped = Background(bench, of_apply(order, timeout=1.0)).end()
        assert stopped.cause is StopCause.TIMED_OUT
        assert "execution halted" in stopped.text


class TestASharedPluginCache:
    """F23."""

    def test_is_used_by_one_init_at_a_time(
        self, make_order: MakeOrder, configuration: Configuration, tmp_path: Path
    ) -> None:
        cache = tmp_path / "cache"
        log = tmp_path / "inits"
        program = tmp_path / "terraform"
        program.write_text(f"#!/bin/sh\necho begin >> {log}; sleep 0.15; echo end >> {log}; exit 1\n")
        program.chmod(0o755)
        configuration.write(HOLDING)
        environment = {"TF_PLUGIN_CACHE_DIR": str(cache)}
        benches = [Bench(tmp_path / f"agent-{number}", command=(str(program),)) for number in range(2)]
        inits = [
            Background(each, make_order(configuration.source, run=f"run-{run}", environment=environment))
            for each in benches
            for run in range(2)
        ]
        for init in inits:
            init.end()
        assert log.read_text().split() == ["begin", "end"] * 4

    def test_is_found_in_terraforms_own_configuration(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path
    ) -> None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "rc").write_text(f'plugin_cache_dir = "{tmp_path}/cache"\n')
        configuration.write(HOLDING)
        bench.execute(make_order(configuration.source, environment={"TF_CLI_CONFIG_FILE": str(tmp_path / "rc")}))
        assert (tmp_path / "cache" / LOCK).exists()

    def test_that_somebody_holds_does_not_hold_up_a_cancel(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path
    ) -> None:
        configuration.write(HOLDING)
        other = bench.execution(make_order(configuration.source))
        with exclusive(tmp_path, other, "Waiting."):
            waiting = Background(
                bench, make_order(configuration.source, environment={"TF_PLUGIN_CACHE_DIR": str(tmp_path)})
            )
            waiting.reach("Waiting for another init").stop(StopCause.CANCELLED)
            assert waiting.end().cause is StopCause.CANCELLED


@pytest.mark.parametrize(
    ("code", "may"),
    [
        ("# no backend and no cloud here\n  // backend\n", False),
        ('terraform { # why\n backend "s3" {} }', True),
        ('terraform { backend /* which */ "s3" {} }', True),
        ("terraform {\n cloud {} # ours\n}", True),
        ('x = "backend"', True),
    ],
)
def test_a_backend_is_overlooked_nowhere_and_a_comment_is_none(tmp_path: Path, code: str, may: bool) -> None:
    (tmp_path / "main.tf").write_text(code)
    assert may_be_configured(Module(tmp_path, tmp_path)) is may


class TestAFileOfTheConfiguration:
    """Whoever writes a configuration chooses what its files are; the agent reads them before Terraform does."""

    @pytest.mark.parametrize("target", ["/dev/zero", "/dev/tty", "{}/pipe", "nowhere", "main.tf"])
    def test_that_is_none_is_refused_by_its_name_and_not_read(
        self, bench: Bench, make_order: MakeOrder, configuration: Configuration, target: str
    ) -> None:
        os.mkfifo(bench.work_dir.parent / "pipe")
        (configuration.path / "main.tf").symlink_to(target.format(bench.work_dir.parent))
        failed = failure(bench, make_order(configuration.source))
        assert failed.reason is FailureReason.SOURCE_UNAVAILABLE
        assert "main.tf can't be read" in failed.text

    def test_that_is_too_large_is_refused(self, configuration: Configuration) -> None:
        configuration.write("")
        os.truncate(configuration.path / "main.tf", 1 << 40)  # a hole: a terabyte of nothing
        with pytest.raises(PhaseFailed, match=r"main\.tf can't be read: it is larger than 16 MiB"):
            may_be_configured(configuration.module)

    def test_is_looked_at_where_another_names_a_backend(self, configuration: Configuration) -> None:
        configuration.write('terraform {\n  backend "s3" {}\n}')
        for name in ("a.tf", "z.tf"):
            (configuration.path / name).symlink_to("/dev/zero")
            with pytest.raises(PhaseFailed, match=f"{name} can't be read"):
                may_be_configured(configuration.module)
            (configuration.path / name).unlink()

    def test_that_lies_outside_is_left_to_terraform(self, tmp_path: Path, configuration: Configuration) -> None:
        (tmp_path / "shared.tf").write_text("# nothing")
        (configuration.path / "main.tf").symlink_to(tmp_path / "shared.tf")
        assert may_be_configured(configuration.module), "unread, it may name a backend"

    def test_may_be_a_link_inside_and_a_directory_is_none(self, configuration: Configuration) -> None:
        configuration.write("# nothing", "modules/shared.tf")
        (configuration.path / "main.tf").symlink_to("modules/shared.tf")
        (configuration.path / "called.tf").mkdir()
        assert not may_be_configured(configuration.module)

    def test_of_a_million_empty_lines_takes_no_time(self, configuration: Configuration) -> None:
        configuration.write("\n" * 1_000_000)
        assert not may_be_configured(configuration.module)

    @pytest.mark.parametrize("name", [".terraform", ".terraform/terraform.tfstate"])
    def test_in_the_place_of_terraforms_own_record_is_not_read(
        self, tmp_path: Path, configuration: Configuration, name: str
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/terraform.tfstate").write_text('{"backend": {"type": "s3"}}')
        link = configuration.path / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(tmp_path / "elsewhere" if name == ".terraform" else "/dev/zero")
        with pytest.raises(PhaseFailed) as failed:
            is_remote(configuration.module)
        assert failed.value.reason is FailureReason.SOURCE_UNAVAILABLE


def test_a_plugin_cache_is_looked_for_in_files_alone(tmp_path: Path) -> None:
    assert plugin_cache({"TF_CLI_CONFIG_FILE": "/dev/zero"}, tmp_path) is None


def test_a_plugin_cache_and_the_file_that_sets_it_are_looked_for_where_terraform_runs(tmp_path: Path) -> None:
    (tmp_path / "own.rc").write_text('plugin_cache_dir = "kept"\n')
    assert plugin_cache({"TF_CLI_CONFIG_FILE": "own.rc"}, tmp_path) == tmp_path / "kept"
    assert plugin_cache({"TF_PLUGIN_CACHE_DIR": "other"}, tmp_path) == tmp_path / "other"
