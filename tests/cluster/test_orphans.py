"""What an agent leaves running when it dies keeps its pod in existence until it is gone, too (F12)."""

import os
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.waiting import eventually
from workers.cluster import pod_record
from workers.cluster.processes import identify
from workers.core.pods import PodPhase
from workers.specs.pools import PoolSpec

POOL = PoolSpec(name="default")

# A terraform that writes down every SIGINT, and its provider, another process of its group.
TERRAFORM = """
import os, signal, subprocess, sys
provider = subprocess.Popen([sys.executable, "-c", "import signal; signal.signal(2, signal.SIG_IGN); signal.pause()"])
def interrupted(*_):
    open("signals", "a").write("SIGINT\\n")
    if ENDS_ON_SIGINT:
        provider.kill()
        provider.wait()
        os._exit(0)
signal.signal(2, interrupted)
open("terraform-ready", "w").write(str(provider.pid))
while True: signal.pause()
"""

AGENT = """
import json, os, signal, subprocess, sys, psutil
from pathlib import Path
records = Path(os.environ["TERRASLOT_WORK_DIR"]) / "children"
records.mkdir()
child = subprocess.Popen([sys.executable, "-c", TERRAFORM], start_new_session=True)
record = {"pid": child.pid, "started": psutil.Process(child.pid).create_time()}
if INTERRUPTED: record["interrupted"] = True
(records / str(child.pid)).write_text(json.dumps(record))
signal.pause()
"""


def agent(*, ends_on_sigint: bool, interrupted: bool = False) -> str:
    terraform = TERRAFORM.replace("ENDS_ON_SIGINT", str(ends_on_sigint))
    return AGENT.replace("TERRAFORM", repr(terraform)).replace("INTERRUPTED", str(interrupted))


@pytest.fixture
def start(local_pods, tmp_path):
    """Return a function that starts a pod whose agent runs a terraform: (pods, directory, terraform, provider)."""

    def begin(text: str, **options):
        pods = local_pods(text, **options)
        pods.create(POOL, "a1")
        directory: Path = tmp_path / "home/pods/default/a1"
        ready = directory / "terraform-ready"
        provider = int(eventually(lambda: ready.exists() and ready.read_text()))
        [record] = eventually(lambda: list((directory / "work").glob("children/[0-9]*")))
        return pods, directory, identify(int(record.name)), identify(provider)

    return begin


def only(pods):
    [pod] = pods.list("default")
    return pod


def kill_agent(directory: Path) -> None:
    process = pod_record.read(directory).process
    process.send(SIGKILL)
    eventually(lambda: not process.alive)


def test_terraform_gets_exactly_one_sigint_and_time_to_store_its_state(start):
    """F18, F19."""
    pods, directory, terraform, provider = start(agent(ends_on_sigint=True))
    kill_agent(directory)
    assert only(pods).phase is PodPhase.FAILED
    eventually(lambda: not terraform.alive)
    assert only(pods).reason == "killed by signal 9"
    assert (directory / "signals").read_text() == "SIGINT\n"
    assert not provider.alive
    pods.delete(only(pods))
    assert pods.list("default") == []


def test_a_deleted_pod_exists_until_its_last_process_is_gone(start):
    now = [1000.0]
    pods, directory, terraform, provider = start(agent(ends_on_sigint=False), orphan_grace=30, clock=lambda: now[0])
    kill_agent(directory)
    pods.delete(only(pods))
    eventually((directory / "signals").exists)
    now[0] += 29
    assert only(pods).deleting is True
    assert terraform.alive
    now[0] += 2
    eventually(lambda: not pods.list("default"))
    assert not terraform.alive
    assert not provider.alive
    assert not directory.exists()


def test_a_terraform_that_its_agent_had_interrupted_is_not_interrupted_again(start):
    """F18."""
    now = [1000.0]
    pods, directory, terraform, _ = start(
        agent(ends_on_sigint=False, interrupted=True), orphan_grace=30, clock=lambda: now[0]
    )
    kill_agent(directory)
    pods.delete(only(pods))
    now[0] += 31
    eventually(lambda: not pods.list("default"))
    assert not terraform.alive


def test_providers_that_outlive_their_terraform_are_killed(start):
    pods, directory, terraform, provider = start(agent(ends_on_sigint=False))
    kill_agent(directory)
    terraform.send(SIGKILL)
    eventually(lambda: not terraform.alive)
    assert provider.alive
    pods.delete(only(pods))
    eventually(lambda: not pods.list("default"))
    assert not provider.alive


def test_a_forced_delete_kills_the_whole_tree(start):
    pods, _, terraform, provider = start(agent(ends_on_sigint=False), grace=3600, orphan_grace=3600)
    pods.delete(only(pods), force=True)
    eventually(lambda: not pods.list("default"))
    assert not terraform.alive
    assert not provider.alive


def test_a_recorded_child_whose_pid_another_process_has_now_is_left_alone(local_pods, tmp_path):
    pods = local_pods("pass")
    pods.create(POOL, "a1")
    children = tmp_path / "home/pods/default/a1/work/children"
    children.mkdir()
    (children / str(os.getpid())).write_text(f'{{"pid": {os.getpid()}, "started": 1000000000.0}}')
    eventually(lambda: only(pods).phase is PodPhase.SUCCEEDED)
    pods.delete(only(pods), force=True)
    assert pods.list("default") == []
