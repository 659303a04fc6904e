"""The record of an apply under way: what the agent's next process reads, and nothing else that stands in its place."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.apply_record import Applying, ApplyRecord, left_by
from agent.command_output import DIRECTORY, CommandOutput
from agent.execution import LASTING, Execution, StopCause, Stopped
from agent.files import write_atomically
from agent.process import Child
from tests.agent.conftest import Bench, Configuration, of_apply
from tests.waiting import eventually
from workers.protocol.encryption import Keyring, new_key
from workers.protocol.messages import Order

MakeOrder = Callable[..., Order]
APPLIED = '{"type": "change_summary", "@message": "Apply complete!", "changes": {"operation": "apply"}}'


def test_a_stop_is_on_record_until_the_apply_is_over(
    tmp_path: Path, bench: Bench, configuration: Configuration, make_order: MakeOrder
) -> None:
    record = ApplyRecord(tmp_path)
    execution = bench.execution(of_apply(make_order(configuration.source)))
    execution.changed = record.write
    execution.stop(StopCause.CANCELLED)
    found = record.read()
    assert found is not None
    assert (found.order, found.cause, found.ended) == (execution.order, StopCause.CANCELLED, False)
    record.remove(execution)
    execution.stop(StopCause.SHUTDOWN)
    assert record.read() is None
    assert list(tmp_path.glob("apply.json")) == []


def test_an_apply_that_was_begun_before_has_the_rest_of_its_time(
    bench: Bench, configuration: Configuration, make_order: MakeOrder
) -> None:
    execution = bench.execution(of_apply(make_order(configuration.source, timeout=60)), started_at=time.time() - 61)
    with pytest.raises(Stopped, match="timed_out"):
        execution.check()


@pytest.mark.parametrize("kind", ["plan", "text", "pipe", "directory"])
def test_what_is_no_apply_is_none(
    tmp_path: Path, configuration: Configuration, make_order: MakeOrder, kind: str
) -> None:
    """A configuration may have written it."""
    path = tmp_path / "apply.json"
    if kind == "plan":
        order = make_order(configuration.source).model_dump_json()
        path.write_text(f'{{"order": {order}, "started_at": 1}}')
    elif kind == "text":
        path.write_text("[" * 100_000)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    record = ApplyRecord(tmp_path)
    assert record.read() is None
    record.remove()


def test_a_pipe_in_the_place_of_what_is_about_to_be_written_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".apply.json.draft")
    writing = threading.Thread(target=write_atomically, args=(tmp_path / "apply.json", "{}"), daemon=True)
    writing.start()
    writing.join(10)
    assert (tmp_path / "apply.json").read_text() == "{}"


class LeftApply:
    """An apply that a dead process of an agent has begun, until it is let go."""

    def __init__(self, bench: Bench, order: Order, gate: Path, *says: str) -> None:
        execution = bench.execution(order)
        execution.directory.mkdir(parents=True, exist_ok=True)
        script = f"until [ -e {gate} ]; do sleep 0.02; done; {'; '.join(f'echo {words}' for words in says)}"
        output = CommandOutput(execution.directory / DIRECTORY, LASTING)
        self.child = Child(
            ["sh", "-c", script], cwd=gate.parent, env={}, records=execution.records, run=order.run, output=output
        )
        left = left_by(Applying(order=order, started_at=time.time()), execution.directory, execution.records)
        self.execution: Execution = bench.execution(order, left=left)

    @property
    def lives(self) -> bool:
        return self.child._process.poll() is None


def test_an_apply_ends_before_it_is_reported_also_where_the_key_of_its_variables_was_retired_meanwhile(
    bench: Bench, configuration: Configuration, make_order: MakeOrder, tmp_path: Path
) -> None:
    """F40: and nothing is shown that is not known to be masked."""
    encrypted = Keyring([new_key()], "the key of then").encrypt({"variables": {"password": "hunter2"}})
    order = of_apply(make_order(configuration.source), encrypted=encrypted)
    apply = LeftApply(bench, order, tmp_path / "gate", "hunter2", f"'{APPLIED}'")
    with ThreadPoolExecutor(1) as threads:
        finished = threads.submit(bench.phases.finish, apply.execution)
        eventually(lambda: finished.done() or any("not shown" in text for text in bench.lines.texts))
        assert not finished.done()
        (tmp_path / "gate").touch()
        assert finished.result(20).outcome == "succeeded"
    assert not apply.lives
    apply.execution.log.close(5)
    assert "hunter2" not in "".join(bench.lines.texts)


def test_an_apply_that_can_not_be_followed_any_more_is_not_left_running(
    bench: Bench, configuration: Configuration, make_order: MakeOrder, tmp_path: Path
) -> None:
    """F12"""
    apply = LeftApply(bench, of_apply(make_order(configuration.source)), tmp_path / "gate")
    assert apply.execution.left is not None

    def fail() -> None:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        apply.execution.left.finish(lambda _: None, lambda _: None, fail)
    eventually(lambda: not apply.lives)
