"""What a person may choose of an embedded system, and what it leaves on disk about itself.

``HOME/up.lock`` is held by the supervisor as long as it lives and names it. ``HOME/system.json`` is what
:mod:`workers.settings` reads in every process, and names the children, so that another process can end them after a
supervisor that was killed. ``HOME/encryption.key`` encrypts its secrets at rest. Only the owner can read them: the
address of Valkey holds its password.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from workers import settings as control_plane
from workers.cluster.processes import Process, identify
from workers.core.errors import StillInUse
from workers.protocol.encryption import new_key
from workers.protocol.errors import InvalidRequest
from workers.protocol.settings import PREFIX
from workers.settings import SYSTEM_FILE
from workers.specs.pools import PoolSpec

_LOCK = "up.lock"
_PROCESS = TypeAdapter(Process)


class Options(BaseModel):
    """What a person may choose of an embedded system.

    ``flower_port``: None takes 5555, or another port if that is taken. ``pool`` is created unless a pool of its name
    exists. ``settings`` are :class:`~workers.settings.Settings` for every process of the system, by field name; the
    environment overrides them.
    """

    model_config = ConfigDict(frozen=True)

    home: Path = Field(default_factory=control_plane.home)
    flower: bool = True
    flower_port: int | None = Field(default=None, ge=1, le=65535)
    pool: PoolSpec = PoolSpec(name="default")
    settings: dict[str, float | str] = {}


class Running(BaseModel):
    """A system as ``system.json`` describes it. ``settings`` are written beside these keys, for every process.

    ``owner``: the supervisor; after one that was killed, its successor finds the description of its predecessor.
    """

    redis_url: str = Field(repr=False)
    flower_url: str | None = None
    ready: bool = False
    owner: Process | None = None
    children: dict[str, Process] = {}
    settings: dict[str, Any] = Field(default={}, repr=False)

    def write(self, home: Path) -> None:
        """Replace ``system.json`` in one step."""
        write_private(home / SYSTEM_FILE, json.dumps(self.settings | self.model_dump(mode="json"), indent=1))


def environment(home: Path) -> Mapping[str, str]:
    """Return the environment of every process of the system under ``home``, except the agents'."""
    return os.environ | {f"{PREFIX}HOME": str(home), "PYTHONUNBUFFERED": "1"}


def encryption_key(home: Path) -> str:
    """Return the key of the system under ``home``; it is made once. The caller owns ``home``."""
    path = home / "encryption.key"
    if not path.exists():
        write_private(path, new_key())
    return path.read_text("ascii")


def running(home: Path) -> Running | None:
    """Return what is written down about the system under ``home``; None if nothing is."""
    content = _read(home, SYSTEM_FILE)
    try:
        return Running.model_validate_json(content) if content else None
    except ValidationError as error:
        raise InvalidRequest(f"{home / SYSTEM_FILE} can't be read as a system's description: remove it.") from error


def forget(home: Path) -> None:
    """Remove ``system.json``."""
    (home / SYSTEM_FILE).unlink(missing_ok=True)


def supervisor(home: Path) -> Process | None:
    """Return the process that owns ``home``; None if none does."""
    content = _read(home, _LOCK)
    with suppress(ValidationError):  # it is just being written
        if content and (owner := _PROCESS.validate_json(content)).alive:
            return owner
    return None


def make_home(home: Path) -> None:
    """Create ``home`` with its directory of logs. Raises :class:`InvalidRequest` where that can't be."""
    with _usable(home):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(home.stat().st_mode & 0o711 | 0o700)  # agents of another user may be at work
        (home / "logs").mkdir(exist_ok=True)


@contextmanager
def owned(home: Path) -> Iterator[None]:
    """Create ``home`` if need be, and own it.

    Raises :class:`StillInUse` where another process does, and :class:`InvalidRequest` where it can't be.
    """
    make_home(home)
    with (home / _LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = supervisor(home)
            who = f"process {owner.pid}" if owner else "another process"
            raise StillInUse(f"{home} is in use by {who}: stop it with `terraslot down`.") from None
        lock.truncate(0)
        me = identify(os.getpid())
        assert me is not None  # noqa: S101 - this process lives
        lock.write(_PROCESS.dump_json(me).decode())
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def write_private(path: Path, content: str) -> None:
    """Replace a file in one step by one that only its owner can read."""
    fresh = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(content)
    fresh.replace(path)


@contextmanager
def _usable(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidRequest(
            f"{home} can't be used ({error.strerror}): make it a directory of yours, or set TERRASLOT_HOME to one."
        ) from error


def _read(home: Path, name: str) -> str | None:
    with _usable(home), suppress(FileNotFoundError):
        return (home / name).read_text()
    return None
