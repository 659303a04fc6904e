"""What the pods run, run: the chart's own arguments, variables and probes, on a real Valkey and a real database."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.chart.rendering import NAME, Object, containers, one, pods, render, variables
from tests.waiting import eventually
from workers.protocol import names
from workers.protocol.kinds import RunKind
from workers.slots.slot_map import SlotMap

_BIN = Path(sys.executable).parent
_HOME = "/var/lib/terraslot"
_STARTS_WITHIN, _ENDS_WITHIN = 40, 30


class Machine:
    """Runs a container's program here, with its own directory for the pod's home."""

    def __init__(self, home: Path, redis_url: str) -> None:
        self.home = home
        self._log = home / "log"
        self._urls = {"TERRASLOT_REDIS_URL": redis_url, "TERRASLOT_DATABASE_URL": f"sqlite:///{home}/terraslot.db"}

    def says(self, word: str) -> bool:
        return word in self._log.read_text()

    @contextmanager
    def running(self, container: Object) -> Iterator[subprocess.Popen[bytes]]:
        with self._log.open("wb") as output:
            process = subprocess.Popen(
                self._here(container["args"]),
                env=self._environment(container),
                cwd=self.home,
                stdout=output,
                stderr=output,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def run(self, container: Object, argv: list[str]) -> int:
        done = subprocess.run(
            self._here(argv), env=self._environment(container), cwd=self.home, capture_output=True, check=False
        )
        return done.returncode

    def _here(self, argv: list[str]) -> list[str]:
        return [each.replace(_HOME, str(self.home)) for each in argv]

    def _environment(self, container: Object) -> dict[str, str]:
        fixed = {name: each["value"] for name, each in variables(container).items() if "value" in each}
        secret = {name: self._urls[name] for name in variables(container) if name in self._urls}
        own = {"PATH": f"{_BIN}:{os.environ['PATH']}", "HOSTNAME": socket.gethostname()}
        own |= {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}  # the code under test is not always what is installed
        return {**fixed, **secret, **own, "TERRASLOT_HOME": str(self.home)}


def _container(component: str) -> Object:
    # Beat's first tick is one interval after its start.
    pod = next(pod for name, pod in pods(render({"settings": {"dispatchSeconds": 0.2}})) if name == component)
    return containers(pod)[0]


@pytest.fixture
def machine(tmp_path: Path, redis_url: str) -> Machine:
    return Machine(tmp_path, redis_url)


@pytest.mark.parametrize("component", ["control", "cluster", "reports"])
def test_a_worker_passes_its_probe_unless_it_is_stuck_and_ends_when_told_to(machine: Machine, component: str) -> None:
    container = _container(component)
    probe = container["livenessProbe"]["exec"]["command"]
    impatient = [each.replace("--timeout 10", "--timeout 1").replace("-30 seconds", "-2 seconds") for each in probe]

    with machine.running(container) as worker:
        eventually(lambda: machine.run(container, probe) == 0, timeout=_STARTS_WITHIN)
        worker.send_signal(signal.SIGSTOP)
        eventually(lambda: machine.run(container, impatient) != 0, timeout=10)
        worker.send_signal(signal.SIGCONT)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(_ENDS_WITHIN) == 0


def test_beat_fires_passes_its_probe_and_ends_when_told_to(machine: Machine, valkey: redis.Redis) -> None:
    container = _container("beat")
    probe = container["livenessProbe"]["exec"]["command"]

    assert machine.run(container, probe) != 0
    with machine.running(container) as beat:
        eventually(lambda: valkey.llen(names.CONTROL_QUEUE), timeout=_STARTS_WITHIN)
        assert machine.run(container, probe) == 0
        beat.send_signal(signal.SIGTERM)
        assert beat.wait(_ENDS_WITHIN) == 0


def test_flower_answers_its_probe_and_its_metrics_without_a_password(machine: Machine) -> None:
    container = _container("flower")
    port = _free_port()
    container["args"] = [each.replace("--port=5555", f"--port={port}") for each in container["args"]]
    container["env"].append({"name": "FLOWER_BASIC_AUTH", "value": "user:password"})
    probe = container["livenessProbe"]["httpGet"]["path"]

    assert machine.run(_container("migrate"), _container("migrate")["args"]) == 0
    with machine.running(container) as flower:
        eventually(lambda: _answers(f"http://127.0.0.1:{port}{probe}"), timeout=_STARTS_WITHIN)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as metrics:
            assert b"terraslot_up 1.0" in metrics.read()
        flower.send_signal(signal.SIGTERM)
        assert flower.wait(_ENDS_WITHIN) == 0


def test_what_no_schema_refuses_ends_the_check_with_a_sentence_in_its_log(machine: Machine) -> None:
    """F46"""
    privileged = {"spec": {"containers": [{"name": "agent", "securityContext": {"privileged": True}}]}}
    objects = render({"pools": {"good": {}, "bad": {"kubernetes": {"pod_template": privileged}}}})
    files = one(objects, "ConfigMap", f"{NAME}-check")["data"]
    [container] = containers(one(objects, "Job", f"{NAME}-check")["spec"]["template"])
    for name, content in files.items():
        (machine.home / name).write_text(content)
    container["args"] = [each.replace("/etc/terraslot/specifications", str(machine.home)) for each in container["args"]]

    with machine.running(container) as check:
        assert check.wait(_STARTS_WITHIN) == 2
    assert machine.says("bad: kubernetes.pod_template.spec.containers.0.securityContext.privileged")
    assert machine.says("may not be privileged")


def test_a_release_without_work_drains_and_one_with_work_stays(machine: Machine, valkey: redis.Redis) -> None:
    drain = _container("drain")
    impatient = [each.replace("240", "0") for each in drain["args"]]
    assert machine.run(_container("migrate"), _container("migrate")["args"]) == 0
    assert machine.run(drain, ["terraslot", "pool", "create", "default"]) == 0

    assert machine.run(drain, drain["args"]) == 0
    slots = SlotMap(valkey, "default")
    slots.register("default-1", "life-1")
    assert slots.acquire("run-1", RunKind.PLAN, "token") is not None
    drain["args"] = impatient
    with machine.running(drain) as job:
        assert job.wait(_STARTS_WITHIN) == 1
    assert machine.says("Agents still hold runs: default (1 slot)")


def test_the_queues_that_keda_watches_are_those_that_the_workers_read() -> None:
    scaled = one(render({"control": {"autoscaling": {"enabled": True}}}), "ScaledObject", f"{NAME}-control")

    watched = [trigger["metadata"]["listName"] for trigger in scaled["spec"]["triggers"]]
    assert watched == list(names.REQUEST_QUEUES)
    assert f"--queues={','.join(watched)}" in _container("control")["args"]
    assert f"--queues={names.CLUSTER_QUEUE}" in _container("cluster")["args"]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
