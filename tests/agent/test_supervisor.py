"""The supervisor of an agent, with stand-ins for its worker: it starts it again, tells it to stop, ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.waiting import eventually

PROGRAM = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
from agent import probe, supervisor
probe.HEARTBEAT_SECONDS = 0.5
place = Path(os.environ["TERRASLOT_WORK_DIR"])

def say(text):
    with open(place / "said", "a") as said:
        said.write(f"{os.getpid()} {text}\\n")

def child(program):
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    if not (place / "children").is_file():
        (place / "children").mkdir(exist_ok=True)
        (place / "children" / str(process.pid)).write_text("{}")
    return process

def work():
    first = not (place / "said").exists()
    DO_WHAT

sys.exit(supervisor.supervise(work))
"""
WAIT_FOR_SIGNALS = """
    say("works")
    while True:
        say(f"got {supervisor.signals.get()}")
"""

Start = Callable[[str], "Supervised"]


class Supervised:
    def __init__(self, place: Path, work: str) -> None:
        self.place = place
        self.log = place / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM.replace("DO_WHAT", work.strip())],
                env={**os.environ, "TERRASLOT_WORK_DIR": str(place)},
                stderr=log,
                start_new_session=True,
            )

    def said(self, text: str) -> list[int]:
        """Return the processes that said this, in order."""
        path = self.place / "said"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(line.split(" ", 1)[0]) for line in lines if line.split(" ", 1)[1] == text]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Supervised] = []

    def begin(work: str) -> Supervised:
        started.append(Supervised(tmp_path, work))
        return started[-1]

    yield begin
    for each in started:
        left = psutil.Process(each.process.pid).children(recursive=True) if each.process.poll() is None else []
        for process in (each.process, *left):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        each.process.wait()


def test_it_ends_as_its_worker_does(start: Start) -> None:
    assert start("return 3").process.wait(20) == 3


def test_a_killed_worker_is_started_again_and_goes_with_its_supervisor(start: Start) -> None:
    supervised = start(WAIT_FOR_SIGNALS)
    (first,) = eventually(lambda: supervised.said("works"))
    os.kill(first, signal.SIGKILL)
    _, second = eventually(lambda: (pids := supervised.said("works")) and len(pids) == 2 and pids)
    assert not psutil.pid_exists(first)
    assert "killed by SIGKILL" in supervised.log.read_text()
    supervised.process.kill()
    eventually(lambda: not psutil.pid_exists(second) or psutil.Process(second).status() == psutil.STATUS_ZOMBIE)


def test_signals_to_stop_reach_the_worker_as_one(start: Start) -> None:
    """F18."""
    supervised = start(WAIT_FOR_SIGNALS)
    eventually(lambda: supervised.said("works"))
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        supervised.process.send_signal(number)
    (worker,) = eventually(lambda: supervised.said("got 15"))
    # The next worker is told as well, and hears nothing of any other signal: the first one had its time to.
    (supervised.place / "apply.json").touch()
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: len(supervised.said("got 15")) == 2)
    assert len([line for line in (supervised.place / "said").read_text().splitlines() if " got " in line]) == 2


def test_a_worker_killed_while_it_stops_is_not_started_again_for_nothing(start: Start) -> None:
    supervised = start(WAIT_FOR_SIGNALS)
    eventually(lambda: supervised.said("works"))
    supervised.process.send_signal(signal.SIGTERM)
    (worker,) = eventually(lambda: supervised.said("got 15"))
    os.kill(worker, signal.SIGKILL)
    assert supervised.process.wait(20) == 128 + signal.SIGKILL
    assert len(supervised.said("works")) == 1


def test_it_writes_down_how_a_child_of_a_dead_worker_ended(start: Start) -> None:
    """F40: only a parent can know."""
    supervised = start(
        """
    if first:
        child("import time, sys; time.sleep(0.5); sys.exit(7)")
        say("started")
        os.kill(os.getpid(), signal.SIGKILL)
    say("works")
    signal.pause()
    """
    )
    eventually(lambda: supervised.said("works"))
    (record,) = (supervised.place / "children").iterdir()
    ended = supervised.place / "ended" / record.name
    assert eventually(lambda: ended.exists() and ended.read_text()) == "7"
    assert not psutil.pid_exists(int(record.name))  # no zombie is left


def test_it_ends_what_a_dead_worker_had_not_put_on_record_yet(start: Start) -> None:
    """F12: nobody would wait for it."""
    supervised = start(
        """
    if first:
        process = child("import time; time.sleep(60)")
        (place / "children" / str(process.pid)).unlink()
        say(f"started {process.pid}")
        os.kill(os.getpid(), signal.SIGKILL)
    say("works")
    signal.pause()
    """
    )
    eventually(lambda: supervised.said("works"))
    (line,) = [line for line in (supervised.place / "said").read_text().splitlines() if "started" in line]
    eventually(lambda: not psutil.pid_exists(int(line.split()[-1])))


def test_it_survives_whatever_a_configuration_makes_of_its_files(start: Start) -> None:
    supervised = start(
        """
    if first:
        (place / "liveness.json").write_text('{"heartbeat_at": 1' + 400 * "0" + ', "tick_at": 0, "reaching_since": 0}')
        (place / "runs").symlink_to("runs")
        (place / "children").write_text("")
        os.mkfifo(place / "ended")
        child("")
    say("works")
    signal.pause()
    """
    )
    (worker,) = eventually(lambda: supervised.said("works"))
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: len(supervised.said("works")) == 2)


def test_a_worker_that_makes_no_progress_is_killed_for_the_next(start: Start) -> None:
    """F31: the kubelet would end the container with its Terraform."""
    supervised = start(
        """
    if first:
        probe.LivenessFile(place).heartbeat(reached=True)
        say("stands still")
        os.kill(os.getpid(), signal.SIGSTOP)
    say("works")
    signal.pause()
    """
    )
    eventually(lambda: supervised.said("works"))
    assert "its heartbeat stopped" in supervised.log.read_text()


# Two forks and a session of its own, deaf to signals; a second one, which is another process all the time.
ESCAPE = """
import os, signal, sys, time
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
if os.fork():
    os._exit(0)
os.setsid()
if os.fork() == 0:
    open(sys.argv[1], "w").close()
    while True:
        time.sleep(60)
while os.fork() == 0:
    os.setsid()
"""


def escaped(place: Path) -> set[int]:
    """Return what runs of an escape, zombies not; it is looked for again and again, since it changes its number."""
    found = [each for _ in range(5) for each in psutil.process_iter(["cmdline", "status"])]
    return {
        each.pid
        for each in found
        if str(place) in (each.info["cmdline"] or ()) and each.info["status"] != psutil.STATUS_ZOMBIE
    }


def test_nothing_that_left_its_group_outlives_its_command_or_the_agent(start: Start, tmp_path: Path) -> None:
    """What another slot's command has started is left alone."""
    script, first, second = tmp_path / "escape.py", tmp_path / "first", tmp_path / "second"
    script.write_text(ESCAPE)
    supervised = start(
        f"""
    from agent.children import ChildRecords
    from agent.command_output import CommandOutput
    from agent.process import Child

    def command(place, gate):
        text = f"{sys.executable} {script} {{place}}; until [ -e {{gate}} ]; do sleep 0.02; done"
        output = CommandOutput(Path("{tmp_path}/output"), Path(place).name)
        records = ChildRecords(Path("{tmp_path}/children"))
        return Child(["sh", "-c", text], cwd=Path("/"), env=os.environ, run=place, records=records, output=output)

    def finish(child):
        child.finish(lambda _: None, lambda _: None, lambda: None)

    one, other = command("{first}", "{first}.gate"), command("{second}", "{second}.gate")
    finish(one)
    say("one has ended")
    supervisor.signals.get()
    other.kill()
    os._exit(0)
    """
    )
    eventually(lambda: first.exists() and second.exists())
    assert escaped(first)
    (tmp_path / "first.gate").touch()
    eventually(lambda: supervised.said("one has ended"))
    assert not escaped(first)
    assert escaped(second)
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.process.wait(20) == 0
    assert not escaped(second)


# What the command leaves becomes a child of this process after its children were listed, and before they are looked at.
LATE_ORPHAN = """
import os, signal, subprocess, sys
from agent import descendants, spawner

spawner.become_subreaper()
command = subprocess.Popen(["sh", "-c", "sleep 60 & echo started; wait"], stdout=subprocess.PIPE)
command.stdout.readline()

def look(pid, looked=descendants.process_started):
    if pid == command.pid:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return looked(pid)

descendants.process_started = look
descendants.Reaper(os.getpid()).end_orphans()
try:
    while os.waitpid(-1, os.WNOHANG)[0]:
        pass
    sys.exit("a child lives")
except ChildProcessError:
    pass
"""


def test_what_a_command_leaves_while_it_is_looked_at_is_ended_too() -> None:
    subprocess.run([sys.executable, "-c", LATE_ORPHAN], check=True, timeout=20)
