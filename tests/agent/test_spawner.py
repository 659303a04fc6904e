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
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import count, islice
from pathlib import Path

import psutil
import pytest

from agent import process
from agent import spawner as program
from agent.children import ChildRecords
from agent.command_output import CommandOutput
from agent.process import Child
from agent.spawner import _SPARES, Refused, Spawned, Spawner
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
STANDS_STILL = """
import socket, sys, time
socket.socket(fileno=int(sys.argv[1])).send(b"+")
time.sleep(600)
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
    if spawner._socket:
        spawner._socket.close()  # with which it ends, and its spare
    eventually(lambda: not [each for each in set(psutil.Process().children()) - before if not ended(each.pid)])


def ended(pid: int) -> bool:
    """Whether a child has ended; reap it then."""
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True


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
    spawn("true").wait()
    its_process, spare, other = process_of_spawner(), *spares()
    with pytest.raises(OSError, match=program) as raised:
        spawn(program, cwd=where, GIVEN=given)
    assert raised.value.errno == number
    assert not spare.is_running()  # nor left unreaped
    assert its_process.is_running()
    assert spares()[0] == other
    spawn("true").wait()


def test_a_spare_that_is_not_told_all_does_not_begin(spawner: Spawner, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    request = json.dumps([["touch", str(begun)], str(tmp_path), dict(os.environ)]).encode()
    spare, connection = spawner._take_spare()
    socket.send_fds(connection, [len(request).to_bytes(4)], (1, 2))
    connection.sendall(request[:-1])
    connection.close()  # as it is closed where this process is killed
    assert os.waitstatus_to_exitcode(os.waitpid(spare.pid, 0)[1]) == 127
    assert not begun.exists()


def test_a_spare_without_room_for_the_files_starts_nothing(spawn: Callable[..., Spawned]) -> None:
    spare = spares()[0]
    used = {int(number) for number in os.listdir(f"/proc/{spare.pid}/fd")}
    _, second = islice((number for number in count() if number not in used), 2)
    resource.prlimit(spare.pid, resource.RLIMIT_NOFILE, (second, 1_000))  # room for one, and two come
    with pytest.raises(Refused):
        spawn("false")
    assert not spare.is_running()
    spawn("true").wait()


def test_a_worker_without_room_for_a_connection_starts_nothing_and_leaves_no_child(spawner: Spawner) -> None:
    spare, limits = spares()[0], resource.getrlimit(resource.RLIMIT_NOFILE)
    spare.suspend()  # a configuration may do that
    highest = max(int(number) for number in os.listdir("/proc/self/fd"))
    with ExitStack() as files:
        while files.enter_context(open(os.devnull)).fileno() < highest:  # no number below it is free
            pass
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
        try:
            with pytest.raises(Refused):
                spawner.spawn(["false"], cwd=Path("/"), env={}, stdout=1, stderr=2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not spare.is_running()


def test_a_spare_that_was_killed_starts_nothing_and_the_next_one_does(spawn: Callable[..., Spawned]) -> None:
    spares()[0].kill()
    with pytest.raises(Refused):
        spawn("false")
    spawn("true").wait()


def test_a_spare_that_stands_still_is_ended_and_starts_nothing(
    spawn: Callable[..., Spawned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare = spares()[0]
    spare.suspend()
    monkeypatch.setattr(program, "_PATIENCE", 0.2)
    with pytest.raises(Refused):
        spawn("touch", "begun")
    assert not spare.is_running()
    assert not (tmp_path / "begun").exists()
    spawn("true").wait()


def test_a_spare_that_stands_still_before_it_is_its_program_ends_by_a_signal(
    spawner: Spawner, spawn: Callable[..., Spawned], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, its_own = socket.socketpair()
    with its_own:
        program_of_spare = [sys.executable, "-c", STANDS_STILL, str(its_own.fileno())]
        spare = subprocess.Popen(program_of_spare, pass_fds=[its_own.fileno()])
    monkeypatch.setattr(spawner, "_take_spare", lambda: (Spawned(spare.pid), connection))
    monkeypatch.setattr(program, "_PATIENCE_TO_BEGIN", 0.1)
    assert spawn("true").pid == spare.pid
    assert spare.wait() == -signal.SIGKILL


def test_a_worker_starts_without_a_spawner_where_its_python_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    spawner = Spawner()
    spawner.start()
    with pytest.raises(Refused):
        spawner.spawn(["true"], cwd=Path("/"), env={}, stdout=1, stderr=2)


def test_many_threads_start_each_its_own(spawn: Callable[..., Spawned]) -> None:
    with ThreadPoolExecutor(8) as threads:
        started = [threads.submit(spawn, "true") for _ in range(40)]
    pids = {child.result().pid for child in started}
    assert len(pids) == len(started)
    for pid in pids:
        os.waitpid(pid, 0)


def process_of_spawner() -> psutil.Process:
    """Return the spawner, which has this process's session; a spare has one of its own."""
    spares()  # one that was forked just now has no session yet
    (found,) = [each for each in of_the_program(psutil.Process()) if os.getsid(each.pid) == os.getsid(0)]
    return found


def spares(worker: psutil.Process | None = None) -> list[psutil.Process]:
    """Wait until there are as many spares as there should be, and return them with the next one first."""

    def found() -> list[psutil.Process]:
        return [each for each in of_the_program(worker or psutil.Process()) if os.getsid(each.pid) == each.pid]

    eventually(lambda: len(found()) == _SPARES)
    return sorted(found(), key=lambda each: (each.create_time(), each.pid))


def of_the_program(worker: psutil.Process) -> list[psutil.Process]:
    living = [each for each in worker.children() if each.status() != psutil.STATUS_ZOMBIE]
    return [each for each in living if program.__file__ in each.cmdline()]


def test_without_a_spawner_the_worker_forks_itself(
    spawner: Spawner, spawn: Callable[..., Spawned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = spares()
    process_of_spawner().kill()
    for _ in last:
        spawn("true").wait()
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
        spares(psutil.Process(worker.pid))
        its_own = psutil.Process(worker.pid).children()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            for each in its_own:
                each.send_signal(number)
        assert all(each.is_running() for each in its_own)
        worker.kill()
        eventually(lambda: all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in its_own))
