"""What the components of an embedded system are forked from."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.waiting import eventually
from workers.cluster.processes import Process
from workers.embedded.nursery import Nursery

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere components are programs of their own")

Start = Callable[[str], Process]


@pytest.fixture
def nursery(home: Path) -> Iterator[Nursery]:
    (home / "logs").mkdir(parents=True)
    nursery = Nursery(home, {**os.environ, "SECRET": ""})
    yield nursery
    process = nursery._process
    nursery.close()
    eventually(lambda: not (process and process.alive))


@pytest.fixture
def start(nursery: Nursery, tmp_path: Path) -> Iterator[Start]:
    """Execute a statement of Python as a component."""
    started = []

    def start(statement: str) -> Process:
        argv = ["timeit", "-n1", "-r1", statement]
        environment = {**os.environ, "SECRET": "hunter2"}
        started.append(nursery.start(argv, environment=environment, directory=tmp_path, log=tmp_path / "one.log"))
        return started[-1]

    yield start
    for process in started:
        process.send(signal.SIGKILL)


def test_a_component_has_a_session_a_directory_an_environment_and_a_log_of_its_own(start, tmp_path):
    one = start("import os; print(os.getsid(0), os.getcwd(), os.environ['SECRET'], os.listdir('/proc/self/fd'))")
    eventually(lambda: not one.alive)
    # One descriptor is that of the directory which is listed.
    assert f"{one.pid} {tmp_path} hunter2 ['0', '1', '2', '3']" in (tmp_path / "one.log").read_text()
    assert one.exit_code() == 0


def test_how_a_component_ended_is_known(start):
    one, other = start("import os; os._exit(3)"), start("import time; time.sleep(600)")
    eventually(lambda: not one.alive)
    assert one.exit_code() == 3
    assert other.alive
    assert other.exit_code() is None
    other.send(signal.SIGTERM)
    eventually(lambda: not other.alive)
    assert other.exit_code() == -signal.SIGTERM


def test_what_is_forked_has_no_thread_no_connection_and_no_secret(start, nursery):
    start("import time; time.sleep(600)")
    process = psutil.Process(nursery._process.pid)
    assert process.num_threads() == 1
    assert process.num_fds() == len(("input", "output", "errors", "its connection to the supervisor"))
    assert process.environ()["SECRET"] == ""
    assert "hunter2" not in " ".join(process.cmdline())


def test_components_outlive_it_and_the_next_one_has_another(start, nursery):
    one = start("import time; time.sleep(600)")
    first = nursery._process
    first.send(signal.SIGKILL)
    eventually(lambda: not first.alive)
    another = start("import time; time.sleep(600)")
    assert one.alive
    assert another.alive
    assert psutil.Process(another.pid).ppid() == nursery._process.pid != first.pid


def test_one_that_was_given_up_and_has_not_ended_yet_is_asked_for_nothing_more(start, nursery, monkeypatch):
    one = start("import time; time.sleep(600)")
    nursery._connection.close()
    with monkeypatch.context() as patched:
        patched.setattr(Process, "send", lambda *_: True)  # the signal is on its way
        assert nursery.exit_code(one.pid) is None
        assert start("import time; time.sleep(600)").alive


def test_it_ends_with_its_supervisor(start, nursery):
    one, process = start("import time; time.sleep(600)"), nursery._process
    nursery._connection.close()
    eventually(lambda: not process.alive)
    assert one.alive


def test_one_that_can_not_start_says_why(nursery, tmp_path):
    nursery._environment = {**os.environ, "TERRASLOT_REDIS_URL": "nonsense://"}
    with pytest.raises(OSError, match=r"TERRASLOT_REDIS_URL.*See .*nursery\.log"):
        nursery.start(["this"], environment=os.environ, directory=tmp_path, log=tmp_path / "one.log")
