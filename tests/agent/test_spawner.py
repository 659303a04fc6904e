"""The spawner: what it starts are children of this process, in a state that owes nothing to either of the two."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, islice
from pathlib import Path

import psutil
import pytest

from agent import process
from agent.children import ChildRecords
from agent.command_output import CommandOutput
from agent.process import Child
from agent.spawner import Refused, Spawned, Spawner
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the worker forks itself")

TELL = """
import json, os, signal, sys
ignored = [number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN]
facts = {"parent": os.getppid(), "session": os.getsid(0), "pid": os.getpid(), "cwd": os.getcwd(), "ignored": ignored,
         "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "given": os.environ["GIVEN"],
         "input": sys.stdin.read(), "files": sorted(os.listdir("/proc/self/fd"))[:-1]}
print(json.dumps(facts))
"""
WORK = """
from agent.spawner import SPAWNER
SPAWNER.start()
SPAWNER.spawn(["true"], cwd="/", env={}, stdout=1, stderr=2).wait()
print("works", flush=True)
input()
"""


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    before = set(psutil.Process().children())
    spawner = Spawner()
    spawner.start()
    yield spawner
    for left in set(psutil.Process().children()) - before:
        left.kill()
        with suppress(ChildProcessError):
            os.waitpid(left.pid, 0)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture
def spawn(spawner: Spawner, output: Path) -> Callable[..., Spawned]:
    def spawn(*argv: str, cwd: str = ".", **environment: str) -> Spawned:
        with output.open("w") as file:
            where, env = output.parent / cwd, {"PATH": os.environ["PATH"], **environment}
            return spawner.spawn(argv, cwd=where, env=env, stdout=file.fileno(), stderr=file.fileno())

    return spawn


def test_a_child_is_this_process_own_and_inherits_nothing(spawn: Callable[..., Spawned], output: Path) -> None:
    given = "what a configuration wants, \udcff and ü included"
    child = spawn(sys.executable, "-I", "-S", "-c", TELL, GIVEN=given)
    child.wait()
    facts = json.loads(output.read_text())
    python_ignores = [signal.SIGPIPE, signal.SIGXFSZ]  # itself, when it starts
    assert facts == {
        "parent": os.getpid(), "session": child.pid, "pid": child.pid, "cwd": str(output.parent),
        "ignored": python_ignores, "blocked": [], "given": given, "input": "", "files": ["0", "1", "2"],
    }  # fmt: skip


def test_a_child_is_a_subreaper(spawn: Callable[..., Spawned], output: Path) -> None:
    child = spawn("sh", "-c", "(sleep 60 & echo $! > orphan); echo ready; sleep 60")
    eventually(lambda: output.read_text() == "ready\n")
    orphan = psutil.Process(int((output.parent / "orphan").read_text()))
    assert orphan.ppid() == child.pid
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@pytest.mark.parametrize(
    ("program", "where", "given", "number"),
    [
        ("no-such-program", ".", "", errno.ENOENT),
        ("true", "no-such-directory", "", errno.ENOENT),
        ("true", ".", "too much" * 50_000, errno.E2BIG),
        ("true", ".", "a NUL: \0", errno.EINVAL),
    ],
)
def test_what_can_not_be_started_is_said_to_be_and_leaves_no_child(
    spawn: Callable[..., Spawned], program: str, where: str, given: str, number: int
) -> None:
    before = psutil.Process().children()
    with pytest.raises(OSError, match=program) as raised:
        spawn(program, cwd=where, GIVEN=given)
    assert raised.value.errno == number
    assert psutil.Process().children() == before
    spawn("true").wait()


def test_a_child_whose_parent_never_learns_of_it_does_not_begin(spawner: Spawner, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    request = json.dumps([["touch", str(begun)], str(tmp_path), dict(os.environ)]).encode()
    (begin, word), (told, error) = os.pipe(), os.pipe()
    connection = spawner._socket
    assert connection is not None
    socket.send_fds(connection, [len(request).to_bytes(4)], (1, 2, begin, error))
    connection.sendall(request)
    pid = int.from_bytes(connection.recv(4))
    for file in (begin, error, word):  # as they are closed where this process is killed
        os.close(file)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 127
    assert os.read(told, 4) == b""
    os.close(told)
    assert not begun.exists()


def test_a_spawner_without_room_for_the_files_starts_nothing(spawn: Callable[..., Spawned]) -> None:
    spawn("true").wait()
    its_process = process_of_spawner()
    used = {int(number) for number in os.listdir(f"/proc/{its_process.pid}/fd")}
    unused = (number for number in count() if number not in used)
    _, _, third = islice(unused, 3)
    resource.prlimit(its_process.pid, resource.RLIMIT_NOFILE, (third, 1_000))  # room for two, and four come
    with pytest.raises(Refused):
        spawn("false")


def process_of_spawner() -> psutil.Process:
    (found,) = [each for each in psutil.Process().children() if each.cmdline() == psutil.Process().cmdline()]
    return found


def test_without_a_spawner_the_worker_forks_itself(
    spawner: Spawner, spawn: Callable[..., Spawned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process_of_spawner().kill()
    with pytest.raises(Refused):
        spawn("true")
    monkeypatch.setattr(process, "SPAWNER", spawner)
    records, said = ChildRecords(tmp_path / "children"), bytearray()
    child = Child(
        ["echo", "hello"], cwd=tmp_path, env=dict(os.environ), records=records, run="run-1",
        output=CommandOutput(tmp_path / "files", "command"),
    )  # fmt: skip
    assert child.finish(said.extend, said.extend, lambda: None) == 0
    assert said == b"hello\n"


def test_it_ends_with_the_worker_and_by_no_signal_to_stop(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout
        worker.stdout.readline()
        (its_own,) = psutil.Process(worker.pid).children()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            its_own.send_signal(number)
        assert its_own.is_running()
        worker.kill()
        eventually(lambda: not its_own.is_running() or its_own.status() == psutil.STATUS_ZOMBIE)
