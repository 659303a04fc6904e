"""The real system: Valkey, database, workers, beat and Flower, started and ended as one."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import ExitStack

import psutil
import pytest

from tests.waiting import eventually
from workers.cluster.local import LocalPods
from workers.core.errors import StillInUse
from workers.embedded import state, supervisor
from workers.embedded.background import detach, down
from workers.embedded.state import Options
from workers.embedded.supervisor import up
from workers.embedded.valkey import free_port
from workers.protocol.errors import InvalidRequest, Unavailable
from workers.settings import Settings, settings
from workers.specs.pools import PoolSpec
from workers.store import pools
from workers.store.database import Database

PARTS = {"valkey", "control", "cluster", "reports", "beat", "supervisor"}


def alive(processes):
    return {name for name, process in processes.items() if process.alive}


def test_one_system_from_its_start_to_its_end(home, parts_of, monkeypatch):
    tied_to, held = os.pipe()
    said = []
    running = detach(Options(home=home, pool=PoolSpec(name="mine")), said.append, tied_to)
    os.close(tied_to)
    every = parts_of(home)
    assert alive(every) == PARTS | {"flower"}
    assert running.ready
    assert {f"{part} answers" for part in every if part != "supervisor"} <= set(said)
    database = Database(settings().database)
    with database.read() as session:
        assert pools.names(session) == ["mine"]
    database.dispose()

    with urllib.request.urlopen(running.flower_url + "/healthcheck", timeout=10) as answer:
        assert answer.status == 200
    password = running.redis_url.split(":")[2].partition("@")[0]
    logs = "".join(log.read_text() for log in (home / "logs").iterdir())
    lines = " ".join(" ".join(psutil.Process(process.pid).cmdline()) for process in every.values())
    assert password not in logs + lines
    assert settings().encryption_keys.get_secret_value()
    with monkeypatch.context() as in_reports:
        for name, value in psutil.Process(every["reports"].pid).environ().items():
            in_reports.setenv(name, value)
        assert not Settings().encryption_keys.get_secret_value()

    with pytest.raises(StillInUse, match=f"process {every['supervisor'].pid}.*terraslot down"):
        up(Options(home=home))
    assert alive(every) == PARTS | {"flower"}

    every["control"].send(signal.SIGKILL)
    every["control again"] = eventually(lambda: (now := parts_of(home)["control"]) != every["control"] and now)
    assert every["control again"].alive

    os.close(held)  # as if the process that it is tied to had died
    eventually(lambda: not alive(every))
    assert state.running(home) is None
    assert down(home) is False


def test_agents_outlive_a_killed_supervisor_and_are_ended_by_down(home, parts_of):
    """F25: what a killed supervisor leaves is either taken over or ended."""
    options = Options(home=home, flower=False)
    detach(options)
    LocalPods(home, {}, command=(sys.executable, "-c", "import signal; signal.pause()")).create(options.pool, "a1")
    first = parts_of(home)
    first["supervisor"].send(signal.SIGKILL)
    eventually(lambda: not first["supervisor"].alive)
    assert alive(first) == PARTS - {"supervisor"} | {"a1"}

    running = detach(options)
    assert alive(first) == {"a1"}
    second = parts_of(home)
    assert second["a1"] == first["a1"]
    assert second.keys() == PARTS | {"a1"}
    assert running.redis_url == state.running(home).redis_url

    second["supervisor"].send(signal.SIGKILL)
    eventually(lambda: not second["supervisor"].alive)
    assert down(home) is True
    assert alive(second) == set()
    assert down(home) is False


def test_told_to_end_while_it_starts_it_leaves_nothing(home, parts_of):
    command = [sys.executable, "-m", "workers.embedded.background", Options(home=home).model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as supervisor:
        started = eventually(lambda: len(found := parts_of(home)) > 2 and found)
        supervisor.send_signal(signal.SIGINT)
        assert down(home) is True
        assert supervisor.wait(60) == 0
    assert alive(started) == set()
    assert state.running(home) is None


def test_a_database_that_does_not_answer_is_an_error_and_leaves_nothing(home, parts_of, monkeypatch):
    url = f"postgresql://user:secret@127.0.0.1:{free_port()}/terraslot"
    monkeypatch.setenv("TERRASLOT_DATABASE_URL", url)
    with pytest.raises(Unavailable, match="TERRASLOT_DATABASE_URL") as error:
        detach(Options(home=home))
    assert "secret" not in str(error.value)
    assert state.running(home) is None
    assert state.supervisor(home) is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TERRASLOT_REDIS_URL", "http://elsewhere:6379/0"),
        ("TERRASLOT_BROKER_URL", "redis://elsewhere:6379/0"),
        ("TERRASLOT_LOG_LEVEL", "LOUD"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named_before_anything_lasts(home, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidRequest, match=variable):
        up(Options(home=home))
    assert state.running(home) is None


def test_a_server_of_ones_own_that_does_not_answer_is_named(home, monkeypatch):
    monkeypatch.setenv("TERRASLOT_REDIS_URL", f"redis://:secret@127.0.0.1:{free_port()}/0")
    with pytest.raises(Unavailable, match=r"Redis at redis://127.*check TERRASLOT_REDIS_URL") as error:
        up(Options(home=home))
    assert "secret" not in str(error.value)
    assert state.running(home) is None


def test_a_port_that_is_taken_is_named(home):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InvalidRequest, match=f"Port {port} is taken"):
            up(Options(home=home, flower_port=port))
    assert state.running(home) is None


def test_of_systems_that_start_together_one_has_the_usual_port_of_flower(monkeypatch):
    monkeypatch.setattr(supervisor, "_FLOWER_PORT", free_port())
    with ExitStack() as second:
        with ExitStack() as first:
            usual = supervisor._flower_port(Options(), first)
            other = supervisor._flower_port(Options(), second)
        assert (usual, other != usual) == (supervisor._FLOWER_PORT, True)
        assert supervisor._flower_port(Options(), second) == usual


def test_a_home_that_is_no_directory_is_named(home):
    home.write_text("in the way")
    with pytest.raises(InvalidRequest, match="TERRASLOT_HOME"):
        up(Options(home=home))
    home.unlink()


def test_down_without_a_system_has_nothing_to_do(home):
    assert down(home) is False
