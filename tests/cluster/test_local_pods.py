"""Pods that are local processes keep the promises of every pod backend."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest

from tests.waiting import eventually
from workers.cluster import pod_record, process_log, processes
from workers.core.pods import PodPhase
from workers.protocol.errors import Unavailable
from workers.specs.pools import PoolSpec

POOL = PoolSpec(name="default")
DRAINING = (
    "import signal, sys; signal.signal(15, lambda *_: sys.exit(0)); print('ready', flush=True)\n"
    "while True: signal.pause()"
)
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); print('ready', flush=True)\nwhile True: signal.pause()"


def directory(tmp_path, name):
    return tmp_path / "home/pods/default" / name


def is_ready(tmp_path, name):
    log = directory(tmp_path, name) / "agent.log"
    return lambda: log.exists() and "ready" in log.read_text()


def process_of(tmp_path, name):
    return pod_record.read(directory(tmp_path, name)).process


def only(pods):
    [pod] = pods.list("default")
    return pod


def test_a_created_pod_runs_in_a_session_and_directory_of_its_own(local_pods, tmp_path):
    pods = local_pods()
    pods.create(POOL, "a1")
    pod = only(pods)
    process = process_of(tmp_path, "a1")
    assert (pod.name, pod.pool, pod.phase, pod.deleting) == ("a1", "default", PodPhase.RUNNING, False)
    assert pod.uid == f"{process.pid}:{process.started}"
    assert os.getsid(process.pid) == process.pid
    assert (directory(tmp_path, "a1") / "work").is_dir()


def test_the_agent_gets_its_own_variables_and_none_of_the_control_planes(local_pods, tmp_path, monkeypatch):
    monkeypatch.setenv("TERRASLOT_DATABASE_URL", "postgresql://user:secret@host/db")
    monkeypatch.setenv("AWS_PROFILE", "cloud")
    pods = local_pods(
        "import os, signal\nfor item in sorted(os.environ.items()): print(*item)\nprint('ready', flush=True)\n"
        "signal.pause()",
        environment={"TERRASLOT_REDIS_URL": "redis://x"},
    )
    pods.create(POOL, "a1")
    eventually(is_ready(tmp_path, "a1"))
    lines = (directory(tmp_path, "a1") / "agent.log").read_text().splitlines()
    own = dict(line.split(" ", 1) for line in lines if line.startswith("TERRASLOT_"))
    assert own == {
        "TERRASLOT_REDIS_URL": "redis://x",
        "TERRASLOT_POOL": "default",
        "TERRASLOT_AGENT": "a1",
        "TERRASLOT_WORK_DIR": str(directory(tmp_path, "a1") / "work"),
        "TERRASLOT_SECRET_DIR": str(tmp_path / "home/secrets/default"),
        "TERRASLOT_GRACE_SECONDS": "60",
    }
    assert "AWS_PROFILE cloud" in lines


def test_creating_a_pod_twice_starts_one_process(local_pods, tmp_path):
    pods = local_pods()
    pods.create(POOL, "a1")
    first = only(pods)
    pods.create(POOL, "a1")
    assert only(pods).uid == first.uid


def test_threads_and_processes_that_create_the_same_pods_at_once_start_each_once(local_pods, tmp_path):
    agent = f"import os, signal; open({str(tmp_path / 'starts')!r}, 'a').write(os.environ['TERRASLOT_AGENT'] + '\\n')\n"
    agent += "print('ready', flush=True); signal.pause()"
    program = (
        "import sys; from pathlib import Path; from workers.cluster.local import LocalPods\n"
        "from workers.specs.pools import PoolSpec\n"
        f"pods = LocalPods(Path({str(tmp_path / 'home')!r}), {{}}, command=(sys.executable, '-c', {agent!r}))\n"
        "sys.stdin.readline()\n"
        "for n in range(3): pods.create(PoolSpec(name='default'), f'a{n}')\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) for _ in range(2)]
    pods = local_pods(agent)
    for other in others:
        other.stdin.write(b"go\n")
        other.stdin.close()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: pods.create(POOL, f"a{n % 3}"), range(24)))
    assert [other.wait(30) for other in others] == [0, 0]
    listed = pods.list("default")
    assert [pod.name for pod in listed] == ["a0", "a1", "a2"]
    assert all(pod.phase is PodPhase.RUNNING for pod in listed)


def test_delete_asks_with_sigterm_and_the_pod_is_gone_when_its_process_is(local_pods, tmp_path):
    pods = local_pods(DRAINING)
    pods.create(POOL, "a1")
    eventually(is_ready(tmp_path, "a1"))
    process = process_of(tmp_path, "a1")
    pods.delete(only(pods))
    eventually(lambda: not pods.list("default"))
    assert not process.alive
    assert not directory(tmp_path, "a1").exists()


def test_a_pod_that_ignores_sigterm_is_listed_as_deleting_and_killed_after_its_grace(local_pods, tmp_path):
    now = [1000.0]
    pods = local_pods(STUBBORN, grace=30, clock=lambda: now[0])
    pods.create(POOL, "a1")
    eventually(is_ready(tmp_path, "a1"))
    pods.delete(only(pods))
    now[0] += 29
    assert only(pods).deleting is True
    now[0] += 2
    eventually(lambda: not pods.list("default"))


def test_a_second_delete_neither_extends_the_grace_nor_sends_another_sigterm(local_pods, tmp_path):
    now = [1000.0]
    counting = (
        "import signal\nsignal.signal(15, lambda *_: print('terminated', flush=True))\nprint('ready', flush=True)\n"
        "while True: signal.pause()"
    )
    pods = local_pods(counting, grace=30, clock=lambda: now[0])
    pods.create(POOL, "a1")
    eventually(is_ready(tmp_path, "a1"))
    pods.delete(only(pods))
    log = directory(tmp_path, "a1") / "agent.log"
    eventually(lambda: "terminated" in log.read_text())
    now[0] += 20
    pods.delete(only(pods))
    assert log.read_text().count("terminated") == 1
    now[0] += 11
    eventually(lambda: not pods.list("default"))


def test_a_forced_delete_kills_at_once(local_pods, tmp_path):
    pods = local_pods(STUBBORN, grace=3600)
    pods.create(POOL, "a1")
    eventually(is_ready(tmp_path, "a1"))
    pods.delete(only(pods), force=True)
    eventually(lambda: not pods.list("default"))


def test_another_pod_of_the_same_name_is_not_deleted(local_pods, tmp_path):
    """F1: the deletion states the uid that it expects."""
    pods = local_pods()
    pods.create(POOL, "a1")
    stale = replace(only(pods), uid="1:long-ago")
    assert pods.delete(stale) is None
    assert only(pods).deleting is False


def test_deleting_what_is_gone_is_no_error(local_pods, tmp_path):
    pods = local_pods(DRAINING)
    pods.create(POOL, "a1")
    pod = only(pods)
    pods.delete(pod, force=True)
    eventually(lambda: not pods.list("default"))
    assert pods.delete(pod) is None


@pytest.mark.parametrize(
    ("agent", "phase", "reason"),
    [
        ("import sys; print('first'); sys.exit('no Redis there')", PodPhase.FAILED, "exit code 1: no Redis there"),
        ("import os; os.kill(os.getpid(), 9)", PodPhase.FAILED, "killed by signal 9"),
        ("print('drained')", PodPhase.SUCCEEDED, "exit code 0: drained"),
    ],
)
def test_a_pod_that_ended_by_itself_is_listed_with_its_reason_until_it_is_deleted(local_pods, agent, phase, reason):
    pods = local_pods(agent)
    pods.create(POOL, "a1")
    eventually(lambda: only(pods).phase is not PodPhase.RUNNING)
    assert (only(pods).phase, only(pods).reason) == (phase, reason)
    pods.delete(only(pods))
    assert pods.list("default") == []


def test_a_pid_of_another_process_is_neither_alive_nor_signalled(local_pods, tmp_path):
    pods = local_pods("pass")
    pods.create(POOL, "a1")
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    record = pod_record.read(directory(tmp_path, "a1"))
    eventually(lambda: not record.process.alive)  # which reaps it
    record.model_copy(update={"pid": bystander.pid, "started": "long ago"}).write(directory(tmp_path, "a1"))
    assert only(pods).phase is PodPhase.FAILED
    pods.delete(only(pods), force=True)
    assert pods.list("default") == []
    assert bystander.poll() is None
    bystander.communicate(b"\n", timeout=20)
    assert bystander.returncode == 0


def test_a_process_whose_creator_died_before_writing_it_down_is_found_again(local_pods, tmp_path):
    pods = local_pods()
    pods.create(POOL, "a1")
    eventually(is_ready(tmp_path, "a1"))
    before = only(pods)
    (directory(tmp_path, "a1") / "pod.json").unlink()
    assert only(pods).uid == before.uid


def test_a_directory_whose_process_was_never_started_is_no_pod(local_pods, tmp_path):
    pods = local_pods()
    (directory(tmp_path, "a1") / "work").mkdir(parents=True)
    assert pods.list("default") == []
    pods.create(POOL, "a1")
    assert only(pods).phase is PodPhase.RUNNING


def test_a_backend_that_stops_creates_nothing_until_it_is_opened(local_pods):
    pods = local_pods()
    pods.close()
    with pytest.raises(Unavailable, match="stopping"):
        pods.create(POOL, "a1")
    assert pods.list("default") == []
    pods.open()
    pods.create(POOL, "a1")
    assert only(pods).name == "a1"


def test_a_secret_is_readable_by_its_owner_alone_and_deleted_with_its_pool(local_pods, tmp_path):
    pods = local_pods()
    other = PoolSpec(name="other")
    for spec in (POOL, other):
        pods.put_secret(spec, spec.name)
    place = tmp_path / "home/secrets/default"
    assert (place.stat().st_mode & 0o777, (place / "pool.json").stat().st_mode & 0o777) == (0o700, 0o600)
    pods.delete_secret(POOL)
    assert [path.name for path in place.parent.iterdir()] == ["other"]
    pods.delete_secret(POOL)
    pods.put_secret(POOL, "anew")
    assert (place / "pool.json").read_text() == "anew"


def test_a_link_in_the_place_of_a_secret_is_not_followed(local_pods, tmp_path):
    pods = local_pods()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    (tmp_path / "home/secrets").mkdir(parents=True)
    (tmp_path / "home/secrets/default").symlink_to(elsewhere)
    with pytest.raises(Unavailable, match=r"can't delete .*home/secrets/default"):
        pods.delete_secret(POOL)
    assert (elsewhere / "precious").exists()


def test_a_disk_that_fails_means_unknown_and_never_gone(local_pods, tmp_path):
    """F24."""
    pods = local_pods()
    (tmp_path / "home").mkdir()
    (tmp_path / "home/pods").write_text("in the way")
    with pytest.raises(Unavailable, match="home/pods"):
        pods.list("default")
    (tmp_path / "home/pods").unlink()


def test_a_state_that_terraform_could_not_store_outlives_its_pod(local_pods, tmp_path):
    """F19."""
    pods = local_pods()
    for name in ("a1", "a2"):
        pods.create(POOL, name)
        run = directory(tmp_path, name) / "work/runs/run-1"
        (run / "module").mkdir(parents=True)
        (run / "module/errored.tfstate").write_text(name)
        (run.parent / "run-2").mkdir()
    for pod in pods.list("default"):
        pods.delete(pod, force=True)
    eventually(lambda: not pods.list("default"))
    rescued = tmp_path / "home/rescued"
    assert sorted(path.name for path in rescued.iterdir()) == ["run-1", "run-1.2"]
    assert {path.read_text() for path in rescued.rglob("errored.tfstate")} == {"a1", "a2"}


@pytest.mark.parametrize("link", ["work/runs", "work/runs/run-1"])
def test_what_a_configuration_has_linked_to_is_not_moved_in_place_of_a_state(local_pods, tmp_path, link):
    """F41: as where root's Terraslot has agents of another user."""
    pods = local_pods()
    pods.create(POOL, "a1")
    others = tmp_path / "others"
    (others / "home").mkdir(parents=True)
    (others / "home/errored.tfstate").touch()
    (directory(tmp_path, "a1") / link).parent.mkdir(exist_ok=True)
    (directory(tmp_path, "a1") / link).symlink_to(others if link == "work/runs" else others / "home")
    [pod] = pods.list("default")
    pods.delete(pod, force=True)
    eventually(lambda: not pods.list("default"))
    assert (others / "home/errored.tfstate").exists()
    assert not (tmp_path / "home/rescued").exists()


def test_a_credential_that_an_agent_has_written_to_is_replaced(local_pods, tmp_path):
    pods = local_pods()
    pods.put_secret(POOL, "credential")
    file = tmp_path / "home/secrets/default/pool.json"
    file.write_bytes(b"\xff")
    pods.put_secret(POOL, "credential")
    assert file.read_text() == "credential"


def test_a_log_that_grew_too_long_is_emptied_and_its_writer_goes_on(local_pods, tmp_path, monkeypatch):
    monkeypatch.setattr(process_log, "MAX_BYTES", 1000)
    talking = (
        "import signal\nsignal.signal(10, lambda *_: print('again', flush=True))\nprint('ready' * 500, flush=True)\n"
        "while True: signal.pause()"
    )
    pods = local_pods(talking)
    pods.create(POOL, "a1")
    eventually(is_ready(tmp_path, "a1"))
    pods.list("default")
    log = directory(tmp_path, "a1") / "agent.log"
    assert log.stat().st_size == 0
    os.kill(process_of(tmp_path, "a1").pid, 10)
    eventually(lambda: log.read_text() == "again\n")


def test_an_ended_child_is_gone_at_once_and_leaves_no_zombie(tmp_path: Path):
    process = processes.start(
        [sys.executable, "-c", "import signal; signal.pause()"],
        environment=os.environ,
        directory=tmp_path,
        log=tmp_path / "log",
    )
    assert process.alive
    assert process.exit_code() is None
    assert process.send(SIGTERM) is True
    eventually(lambda: not process.alive)
    assert process.send(SIGTERM) is False
    assert process.exit_code() == -SIGTERM
    assert not Path(f"/proc/{process.pid}").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows a process by the state of its first thread")
def test_a_process_is_gone_with_its_last_thread_not_with_its_first(tmp_path: Path):
    """As long as the others end, it can't be waited for, and may hold files and locks."""
    program = (
        "import ctypes, signal, threading; threading.Thread(target=signal.pause).start(); "
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    process = processes.start(
        [sys.executable, "-c", program], environment=os.environ, directory=tmp_path, log=tmp_path / "log"
    )
    eventually(lambda: ") Z " in Path(f"/proc/{process.pid}/stat").read_text())
    assert process.alive
    assert process.send(SIGKILL) is True
    eventually(lambda: not process.alive)
    assert process.exit_code() == -SIGKILL
