"""`terraslot demo`: the main job on a system of its own, which ends with it, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import eventually
from workers.embedded import state

TERRASLOT = str(Path(sys.executable).parent / "terraslot")


@pytest.fixture
def run_demo(home):
    """Return a function that runs the demo to its end and returns what it printed."""

    def run():
        done = subprocess.run([TERRASLOT, "demo"], capture_output=True, text=True, timeout=110, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_it_applies_on_the_agent_that_planned_and_so_does_a_second_one(run_demo, home, monkeypatch):
    # What the environment says of other systems is not the demo's to touch.
    monkeypatch.setenv("TERRASLOT_DATABASE_URL", "postgresql://user@192.0.2.1/production")
    monkeypatch.setenv("TERRASLOT_REDIS_URL", "redis://192.0.2.1/0")
    told = [
        "Pool default: no agents",
        "no agent accepts runs (first in line)",
        "Terraform will perform the following actions",
        "1 reserved",
        "until a person has decided",
        "Apply complete! Resources: 5 added",
        "result.get()",
        "greeting = Hello from hello: 3 subnets behind the gateway of hello.",
        "in the same directory, the plan that it had made",
    ]
    for _ in range(2):
        said = run_demo()
        places = [said.index(words) for words in told]
        assert places == sorted(places)
        assert state.running(home / "demo") is None
        assert state.supervisor(home / "demo") is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_told_to_end_in_the_middle_it_takes_everything_with_it(home, parts_of, number):
    with subprocess.Popen([TERRASLOT, "demo"], stdout=subprocess.PIPE, text=True, start_new_session=True) as demo:
        eventually(lambda: "planning on" in demo.stdout.readline())
        parts = parts_of(home / "demo")
        assert len(parts) == 7  # the supervisor, its five children without Flower, and an agent
        os.kill(demo.pid, number)
        demo.stdout.read()
        assert demo.wait(60) == (-number if number == signal.SIGKILL else 130)
    eventually(lambda: not any(process.alive for process in parts.values()), 60)
