"""A real Valkey of one's own, from the wheel or PATH: on a free port, without persistence, ended by its own pid."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from tests.waiting import eventually
from workers.embedded.valkey import free_port, server_binary


@contextmanager
def running_valkey(port: int | None = None) -> Iterator[str]:
    """Start a server, yield its URL, and stop it."""
    port = port or free_port()
    binary = server_binary()
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
