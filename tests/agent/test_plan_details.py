"""What a plan does is told with it; where its apply needs nobody, beside the apply, which is none the worse for it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent import plan_details
from agent.execution import Execution, PhaseFailed, StopCause
from tests.agent.conftest import Bench, Configuration, of_apply
from tests.agent.test_apply_record import APPLIED, LeftApply
from tests.waiting import eventually
from workers.protocol.messages import Changes, Order, PhaseFinished, PhaseStarted, Report

MakeOrder = Callable[..., Order]


@pytest.fixture
def order(make_order: MakeOrder, configuration: Configuration) -> Order:
    return make_order(configuration.source, auto_apply=True)


def planned(bench: Bench, order: Order) -> Execution:
    """Plan, and return the execution of the apply."""
    finished = bench.execute(order)
    assert (finished.changed, finished.detail_follows, finished.plan) == (True, True, None)
    return bench.execution(of_apply(order, auto_apply=False))


def commands_of(execution: Execution) -> list[str]:
    """Note the commands that an execution runs."""
    seen, run = [], execution.run

    def noted(argv: Any, **options: Any) -> Any:
        seen.append(argv[1])
        return run(argv, **options)

    execution.run = noted  # type: ignore[method-assign]
    return seen


def test_the_report_of_the_apply_tells_what_was_planned(
    bench: Bench, order: Order, configuration: Configuration
) -> None:
    configuration.write('resource "terraform_data" "it" { input = "hello" }\noutput "x" { value = 1 }\n')
    planning = bench.execution(order)
    commands = commands_of(planning)
    assert bench.execute(order, planning).detail_follows
    assert commands == ["init", "plan"]
    finished = bench.execute(of_apply(order, auto_apply=False))
    assert (finished.changes, finished.outputs) == (Changes(add=1), {"x": 1})
    assert [each.address for each in finished.plan.resources] == ["terraform_data.it"]


def test_a_plan_without_changes_or_whose_apply_needs_somebody_is_told_at_once(
    bench: Bench, make_order: MakeOrder, configuration: Configuration
) -> None:
    unchanged = bench.execute(make_order(configuration.write("").source, auto_apply=True))
    assert (unchanged.changed, unchanged.detail_follows, unchanged.plan is None) == (False, False, False)
    configuration.write('resource "terraform_data" "it" {}\n')
    order = make_order(configuration.source, run="run-2")
    assert bench.execute(order).changes == Changes(add=1)
    assert bench.execute(of_apply(order)).plan is None


def test_an_apply_that_takes_its_time_is_told_of_meanwhile(
    bench: Bench, order: Order, configuration: Configuration, tmp_path: Path
) -> None:
    configuration.runs(f"until [ -e {tmp_path}/gate ]; do sleep 0.05; done")
    apply, reports = planned(bench, order), list[Report]()
    apply.post = reports.append
    executing = threading.Thread(target=bench.execute, args=(apply.order, apply))
    executing.start()
    told = eventually(lambda: next((each for each in reports if isinstance(each, PhaseStarted) and each.plan), None))
    assert executing.is_alive()
    (tmp_path / "gate").touch()
    executing.join(30)
    assert (told.token, told.changes, told.locks_as is None) == (apply.order.token, Changes(add=1), False)
    assert apply.report(PhaseFinished, outcome="succeeded").plan == told.plan


def test_the_next_process_of_the_agent_goes_on_with_the_apply_alone(
    bench: Bench, order: Order, configuration: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_details, "_PATIENCE", 0.1)
    monkeypatch.setattr(bench, "command", (slow_show(bench),))
    configuration.runs(f"until [ -e {tmp_path}/gate ]; do sleep 0.05; done")
    apply = planned(bench, order)
    executing = threading.Thread(target=bench.execute, args=(apply.order, apply))
    executing.start()
    try:
        eventually(lambda: len(apply.records.leftovers()) == 2)
        found = apply.records.of_run(order.run)
        assert found is not None
        eventually(lambda: b"apply" in Path(f"/proc/{found.pid}/cmdline").read_bytes())
    finally:
        (tmp_path / "gate").touch()
        executing.join(30)


def test_what_a_killed_worker_has_not_told_the_next_one_tells(
    bench: Bench, order: Order, configuration: Configuration, tmp_path: Path
) -> None:
    configuration.write('resource "terraform_data" "it" {}\n')
    apply = LeftApply(bench, planned(bench, order).order, tmp_path / "gate", f"'{APPLIED}'")
    (tmp_path / "gate").touch()
    finished = bench.execute(apply.execution.order, apply.execution)
    assert (finished.outcome, finished.changes, bool(finished.plan)) == ("succeeded", Changes(add=1), True)
    assert not apply.lives


def test_what_is_read_beside_an_apply_is_not_written_over(bench: Bench, order: Order, tmp_path: Path) -> None:
    apply = bench.execution(of_apply(order))

    def printed(by: Execution, word: str) -> Path:
        return by.run(["echo", word], cwd=tmp_path, env=dict(os.environ), keep_stdout=100).stdout

    of_show, of_another = printed(apply.beside(), "show"), printed(apply, "another")
    assert (of_show.read_text(), of_another.read_text()) == ("show\n", "another\n")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel is not asked")
def test_what_is_read_beside_an_apply_is_ended_before_it_where_memory_is_short(
    bench: Bench, order: Order, tmp_path: Path
) -> None:
    asks = "until [ $(cat /proc/self/oom_score_adj) = 1000 ]; do sleep 0.02; done"
    apply = bench.execution(of_apply(order, timeout=10))
    assert apply.beside().run(["sh", "-c", asks], cwd=tmp_path, env=dict(os.environ)).code == 0
    apply.run(["cat", "/proc/self/oom_score_adj"], cwd=tmp_path, env=dict(os.environ))
    apply.log.close(5)
    assert bench.lines.texts[-1] == Path("/proc/self/oom_score_adj").read_text().strip() != "1000"


def test_an_agent_that_is_to_stop_reports_an_apply_that_is_done_and_waits_for_no_detail(
    bench: Bench, order: Order, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_details, "_PATIENCE", 20.0)
    bench.command = (slow_show(bench),)
    configuration.write('resource "terraform_data" "it" {}\n')
    apply = planned(bench, order)
    with ThreadPoolExecutor(1) as threads:
        finished = threads.submit(bench.execute, apply.order, apply)
        eventually(lambda: any("Apply complete!" in line for line in bench.lines.texts))
        eventually(lambda: apply._child is None)
        apply.stop(StopCause.SHUTDOWN)
        assert finished.result(10).outcome == "succeeded"


def slow_show(bench: Bench, show: str = "exec sleep 60") -> str:
    """Return a Terraform whose ``show`` does something else."""
    bench.work_dir.mkdir()
    program = bench.work_dir / "terraform"
    program.write_text(f'#!/bin/sh\ncase "$1" in show) {show};; esac\nexec terraform "$@"\n')
    program.chmod(0o755)
    return str(program)


def test_an_apply_that_fails_tells_it_as_well(bench: Bench, order: Order, configuration: Configuration) -> None:
    configuration.runs("exit 3")
    apply = planned(bench, order)
    with pytest.raises(PhaseFailed, match="exit status 3"):
        bench.execute(apply.order, apply)
    assert apply.report(PhaseFinished, outcome="failed").changes == Changes(add=1)


@pytest.mark.parametrize("show", ["exit 1", "echo nothing", "exec sleep 60"])
def test_one_that_can_not_be_read_costs_the_apply_nothing(
    bench: Bench, order: Order, configuration: Configuration, show: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_details, "_PATIENCE", 0.2)
    bench.command = (slow_show(bench, show),)
    configuration.write('resource "terraform_data" "it" {}\noutput "x" { value = 1 }\n')
    apply = planned(bench, order)
    finished = bench.execute(apply.order, apply)
    assert (finished.outcome, finished.outputs, finished.plan) == ("succeeded", {"x": 1}, None)
    assert any("What the plan does with each resource can't be read" in line for line in bench.lines.texts)
