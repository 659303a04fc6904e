"""Children: one SIGINT, whole groups, nothing left, and a record of who lives."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.children import ChildRecords, end_leftovers, process_started
from agent.command_output import CommandOutput
from agent.process import Child
from tests.waiting import eventually

COUNTER = """
import os, signal, sys, time
seen = 0
def on(*_):
    global seen
    seen += 1
    os.write(1, b"interrupted %d\\n" % seen)
signal.signal(signal.SIGINT, on)
os.write(1, b"ready\\n")
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    time.sleep(0.01)
"""


@pytest.fixture
def records(tmp_path: Path) -> ChildRecords:
    return ChildRecords(tmp_path / "children")


@pytest.fixture
def start(tmp_path: Path, records: ChildRecords) -> Callable[..., Child]:
    numbers = itertools.count()

    def start(*argv: str) -> Child:
        output = CommandOutput(tmp_path / "output", f"command-{next(numbers)}")
        return Child(argv, cwd=tmp_path, env=dict(os.environ), records=records, run="run-1", output=output)

    return start


def gone(pid: int) -> bool:
    return process_started(pid) is None


class Running:
    """A child whose output is collected by a thread."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.out = bytearray()
        self.errors = bytearray()
        self.code: int | None = None
        self.thread = threading.Thread(target=self._finish)
        self.thread.start()

    def _finish(self) -> None:
        self.code = self.child.finish(self.out.extend, self.errors.extend, lambda: None)

    def end(self) -> int:
        self.thread.join(20)
        assert self.code is not None
        return self.code


def test_both_streams_and_the_exit_code_are_passed_on(start: Callable[..., Child]) -> None:
    running = Running(start("sh", "-c", "echo out; echo err >&2; exit 3"))
    assert (running.end(), bytes(running.out), bytes(running.errors)) == (3, b"out\n", b"err\n")


def test_output_arrives_while_the_child_runs(start: Callable[..., Child]) -> None:
    running = Running(start("sh", "-c", "echo early; exec sleep 60"))
    eventually(lambda: running.out == b"early\n")
    assert running.code is None
    running.child.kill()
    assert running.end() == -signal.SIGKILL


def test_a_child_ends_without_delay(start: Callable[..., Child], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.process._TICK", 60)  # a missed end is noticed by then
    assert Running(start("true")).end() == 0


def test_exactly_one_interrupt_reaches_a_child_however_often_it_is_asked(start: Callable[..., Child]) -> None:
    """F18."""
    running = Running(start(sys.executable, "-c", COUNTER, "1"))
    eventually(lambda: b"ready" in running.out)
    threads = [threading.Thread(target=running.child.interrupt) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert running.end() == 0
    running.child.interrupt()
    assert running.out == b"ready\ninterrupted 1\n"


def test_an_interrupt_is_for_the_process_and_not_for_its_group(start: Callable[..., Child]) -> None:
    """F18: terraform tells its providers itself."""
    running = Running(start("sh", "-c", f"trap 'echo parent; wait' INT; {sys.executable} -c '{COUNTER}' 0.7 & wait"))
    eventually(lambda: b"ready" in running.out)
    running.child.interrupt()
    eventually(lambda: b"parent" in running.out)
    running.end()
    assert b"interrupted" not in running.out


def test_nothing_of_the_group_is_left_when_a_child_has_ended(start: Callable[..., Child]) -> None:
    running = Running(start("sh", "-c", "sleep 60 & echo $!"))
    assert running.end() == 0
    assert gone(int(running.out))


def test_a_kill_ends_the_whole_group(start: Callable[..., Child]) -> None:
    running = Running(start("sh", "-c", "trap '' INT TERM; sleep 60 & echo $!; sleep 60; sleep 60"))
    eventually(lambda: running.out)
    running.child.kill()
    assert running.end() == -signal.SIGKILL
    assert gone(int(running.out))


def test_someone_who_left_the_group_with_the_pipes_holds_nothing_up(start: Callable[..., Child]) -> None:
    running = Running(start("sh", "-c", "setsid sh -c 'echo $$; exec sleep 5' & sleep 0.3; echo done"))
    began = time.monotonic()
    assert running.end() == 0
    assert time.monotonic() - began < 3
    os.kill(int(running.out.split()[0]), signal.SIGKILL)


def test_a_program_that_closes_its_pipes_and_lives_on_is_waited_for(start: Callable[..., Child]) -> None:
    running = Running(start("sh", "-c", "exec >&- 2>&-; sleep 0.4; exit 7"))
    assert running.end() == 7


def test_an_error_while_output_is_passed_on_ends_the_child(start: Callable[..., Child], records: ChildRecords) -> None:
    child = start("sh", "-c", "echo out; sleep 60")

    def broken(_: bytes) -> None:
        raise ValueError("broken sink")

    with pytest.raises(ValueError, match="broken sink"):
        child.finish(broken, broken, lambda: None)
    assert gone(child.pid)
    assert records.leftovers() == {}


def test_a_living_child_is_on_record(start: Callable[..., Child], records: ChildRecords) -> None:
    running = Running(start(sys.executable, "-c", COUNTER, "0.5"))
    eventually(lambda: b"ready" in running.out)
    path = records.directory / str(running.child.pid)
    record = json.loads(path.read_text())
    assert record["pid"] == running.child.pid
    assert record["run"] == "run-1"
    assert record["interrupted"] is False
    assert abs(record["started"] - time.time()) < 10
    running.child.interrupt()
    assert json.loads(path.read_text())["interrupted"] is True
    running.end()
    assert list(records.directory.iterdir()) == []


class TestWhatAFormerLifeLeft:
    def test_is_interrupted_once_and_may_end_in_peace(self, start: Callable[..., Child], records: ChildRecords) -> None:
        running = Running(start(sys.executable, "-c", COUNTER, "0.5"))
        eventually(lambda: b"ready" in running.out)
        assert end_leftovers(ChildRecords(records.directory), 10) == [running.child.pid]
        assert running.end() == 0
        assert running.out == b"ready\ninterrupted 1\n"

    def test_gets_no_second_interrupt(self, start: Callable[..., Child], records: ChildRecords) -> None:
        running = Running(start(sys.executable, "-c", COUNTER, "0.5"))
        eventually(lambda: b"ready" in running.out)
        running.child.interrupt()
        end_leftovers(ChildRecords(records.directory), 10)
        running.end()
        assert running.out == b"ready\ninterrupted 1\n"

    def test_is_killed_when_it_does_not_yield(self, start: Callable[..., Child], records: ChildRecords) -> None:
        running = Running(start("sh", "-c", "trap '' INT; echo ready; while :; do sleep 1; done"))
        eventually(lambda: running.out)
        end_leftovers(ChildRecords(records.directory), 0.2)
        assert running.end() == -signal.SIGKILL

    def test_is_no_record_where_a_configuration_wrote_something_else(self, records: ChildRecords) -> None:
        for name, content in {"1x": "{}", "0": '{"started": 1}', "1": '{"started": 1}', "7": "[", "8": "x"}.items():
            (records.directory / name).write_text(content)
        (records.directory / "9").mkdir()
        os.mkfifo(records.directory / "10")
        assert end_leftovers(records, 1) == []
        assert {path.name for path in records.directory.iterdir()} == {"1x", "9"}

    def test_is_not_taken_for_another_process_of_the_same_number(self, records: ChildRecords) -> None:
        other = {"pid": os.getpid(), "started": 1.0, "run": "run-1", "interrupted": False}
        (records.directory / str(os.getpid())).write_text(json.dumps(other))
        assert end_leftovers(records, 1) == []
        assert list(records.directory.iterdir()) == []
