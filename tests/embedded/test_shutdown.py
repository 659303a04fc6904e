"""The end of a system, with stand-ins for its processes: in order, patient with agents, and leaving nobody."""

import os
import signal
import sys
import threading

import psutil
import pytest

from tests.waiting import eventually
from workers.cluster import processes
from workers.cluster.local import LocalPods
from workers.embedded import shutdown, state
from workers.embedded.shutdown import shut_down
from workers.embedded.state import Running
from workers.specs.pools import PoolSpec

# Writes its name to a file when it is told to end; STUBBORN ones go on.
PROCESS = """
import signal, sys
def told(*_):
    open(sys.argv[2], "a").write(sys.argv[1] + "\\n")
    sys.exit(0)
signal.signal(15, signal.SIG_IGN if STUBBORN else told)
print("ready", flush=True)
while True: signal.pause()
"""
PARTS = ("valkey", "control", "cluster", "reports", "beat", "flower")


class Asked:
    """Somebody who asks for the end ``first`` times, and once more whenever ``again`` comes true."""

    def __init__(self, first=1, again=()):
        self.count = first
        self._again = list(again)

    def wait(self, seconds):
        threading.Event().wait(seconds)
        if self._again and self._again[0]():
            self._again.pop(0)
            self.count += 1
        return self.count


@pytest.fixture
def ended(tmp_path):
    """Return a function that lists who was told to end, in order."""
    return lambda: (tmp_path / "ended").read_text().split() if (tmp_path / "ended").exists() else []


@pytest.fixture
def start(tmp_path, home):
    """Return a function that starts stand-ins for the parts of a system, and describes them."""

    def begin(*names, stubborn=False):
        (home / "logs").mkdir(parents=True, exist_ok=True)
        system = Running(redis_url="redis://127.0.0.1:1/0")
        for name in names:
            log = home / "logs" / name
            program = PROCESS.replace("STUBBORN", str(stubborn))
            process = processes.start(
                [sys.executable, "-c", program, name, str(tmp_path / "ended")],
                environment=os.environ, directory=home, log=log,
            )  # fmt: skip
            system.children[name] = process
            system.write(home)
        eventually(lambda: all("ready" in (home / "logs" / name).read_text() for name in names))
        return system

    return begin


@pytest.fixture
def start_agent(tmp_path, home):
    """Return a function that starts a pod with a stand-in for an agent; returns its process."""

    def begin(*, stubborn=False):
        command = (sys.executable, "-c", PROCESS.replace("STUBBORN", str(stubborn)), "agent", str(tmp_path / "ended"))
        pods = LocalPods(home, {}, command=command)
        pods.create(PoolSpec(name="default"), "a1")
        log = home / "pods/default/a1/agent.log"
        eventually(lambda: log.exists() and "ready" in log.read_text())
        pid, _, started = pods.list("default")[0].uid.partition(":")
        return processes.Process(int(pid), started)

    return begin


def test_beat_goes_first_agents_while_workers_listen_and_valkey_last(start, start_agent, home, ended):
    system = start(*PARTS)
    start_agent()
    shut_down(home, system, Asked(), lambda _: None)
    order = ended()
    assert order[:2] == ["beat", "agent"]
    assert set(order[2:6]) == {"control", "cluster", "reports", "flower"}
    assert order[6:] == ["valkey"]
    assert not any(child.alive for child in system.children.values())
    assert state.running(home) is None


def test_what_does_not_go_is_killed(start, home, monkeypatch):
    monkeypatch.setattr(shutdown, "_PATIENCE", 0.2)
    system = start("beat", "valkey", stubborn=True)
    shut_down(home, system, Asked(), lambda _: None)
    assert not any(child.alive for child in system.children.values())


def test_no_pod_is_created_once_the_end_has_begun(start, start_agent, home):
    shut_down(home, start("beat"), Asked(), lambda _: None)
    with pytest.raises(Exception, match="stopping"):
        start_agent()


def test_asked_again_it_kills_the_agents_it_waits_for(start, start_agent, home, ended):
    agent = start_agent(stubborn=True)
    said = []
    shut_down(home, start("valkey"), Asked(again=[lambda: said]), said.append)
    assert said == ["Waiting for 1 agent to finish"]
    assert not agent.alive
    assert ended() == ["valkey"]


def test_asked_a_third_time_it_kills_what_dead_agents_left(start, start_agent, home, ended):
    agent = start_agent(stubborn=True)
    log = home / "terraform.log"
    terraform = processes.start(
        [sys.executable, "-c", "import signal; signal.signal(2, signal.SIG_IGN); print('ready', flush=True)\n"
         "while True: signal.pause()"],
        environment=os.environ, directory=home, log=log,
    )  # fmt: skip
    eventually(lambda: "ready" in log.read_text())
    children = home / "pods/default/a1/work/children"
    children.mkdir()
    began = psutil.Process(terraform.pid).create_time()
    (children / str(terraform.pid)).write_text(f'{{"pid": {terraform.pid}, "started": {began}}}')
    asked = Asked(again=[lambda: True, lambda: not agent.alive])
    shut_down(home, start("valkey"), asked, lambda _: None)
    assert not terraform.alive
    assert asked.count == 3
    assert ended() == ["valkey"]


def test_a_system_whose_parts_are_gone_already_is_just_forgotten(start, home):
    system = start(*PARTS)
    for child in system.children.values():
        child.send(signal.SIGKILL)
    shut_down(home, system, Asked(), lambda _: None)
    assert state.running(home) is None


def test_agents_may_be_kept_for_the_next_system(start, start_agent, home):
    agent = start_agent()
    shut_down(home, start("valkey"), Asked(first=0), lambda _: None, keep_agents=True)
    assert agent.alive
