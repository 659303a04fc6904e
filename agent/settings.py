"""What an agent reads from its environment; the only module that reads ``TERRASLOT_*`` variables."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from redis import CredentialProvider

from agent.files import write_atomically
from workers.protocol import redis_address
from workers.protocol.errors import InvalidRequest
from workers.protocol.names import AgentName, Name
from workers.protocol.pool_secret import SECRET_FILE, PoolSecret
from workers.protocol.redis_address import TLS_FILES, RedisAddress
from workers.protocol.settings import GIT_CACHE_BYTES, INIT_CACHE_BYTES, PREFIX, LogFormat, LogLevel, RedisUrl, problems

EMBEDDED = "embedded"
SECRET_DIR = f"{PREFIX}SECRET_DIR"
_SECRET = frozenset({"redis_url", "broker_url"})


class PoolCredentials(CredentialProvider):
    """Gives redis-py and kombu the username and password of the moment; kombu makes one without arguments.

    The pool's Secret is one file, replaced as a whole when the credential is rotated. Every connection and every
    encrypted order reads it again: so an agent follows a rotation. Libraries want certificates as files, which are
    written anew with each reading.
    """

    def __init__(self, directory: Path | None = None, work_dir: Path | None = None) -> None:
        self.path = (directory or Path(os.environ[SECRET_DIR])) / SECRET_FILE
        self._work_dir = work_dir

    def read(self) -> PoolSecret:
        """Read the Secret. Raises :class:`InvalidRequest` where there is none, or not a whole one."""
        try:
            return PoolSecret.model_validate_json(self.path.read_bytes())
        except (OSError, ValidationError) as error:
            raise InvalidRequest(
                f"{self.path} is not a pool's Secret: check what is mounted at {SECRET_DIR}."
            ) from error

    def get_credentials(self) -> tuple[str, str]:
        """Return username and password."""
        secret = self.read()
        for server, contents in (("redis", secret.redis_tls), ("broker", secret.broker_tls)):
            self._write(server, contents)
        return secret.username, secret.password

    def certificates(self, server: Literal["redis", "broker"]) -> dict[str, str]:
        """Return the files that connecting to a server takes, by parameter of its address."""
        secret = self.read()
        return self._write(server, secret.redis_tls if server == "redis" else secret.broker_tls)

    def _write(self, server: str, contents: Mapping[str, str]) -> dict[str, str]:
        tls = (self._work_dir or Path(os.environ[f"{PREFIX}WORK_DIR"])) / "tls"
        files = {name: tls / f"{server}.{name}.pem" for name in TLS_FILES if name in contents}
        for name, path in files.items():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(path, contents[name])
        return {name: str(path) for name, path in files.items()}


class AgentSettings(BaseModel):
    """Everything configurable of an agent. Times are seconds.

    ``redis_url`` holds the slot map and the log streams, ``broker_url`` the orders (the same server unless set).
    ``secret_dir`` holds the pool's Secret, and the URLs no password then. ``work_dir`` is the agent's alone; a
    restarted agent finds its plans and unsent reports there. ``terraform`` is a path, a name on PATH, or ``embedded``,
    and what runs are executed with that require nothing. ``terraform_versions``: a directory with further versions, as
    ``VERSION/terraform`` or ``VERSION/tofu``.
    ``init_cache_bytes``: how much is kept at most of what inits have made, 0 for nothing; ``init_cache_seconds``: how
    long a module is used again whose source may change under its name (a branch, an archive).
    ``heartbeat_seconds`` applies to an idle agent, a busy one beats at least every second. ``grace_seconds``: from
    SIGTERM until whoever sent it sends SIGKILL. ``git_cache_bytes``: what may be kept of git
    repositories.
    """

    model_config = ConfigDict(frozen=True)

    pool: Name
    agent: AgentName
    work_dir: Path
    redis_url: RedisUrl = Field(default="redis://127.0.0.1:6379/0", repr=False)
    broker_url: RedisUrl = Field(default="", repr=False)
    secret_dir: Path | None = None
    terraform: str | None = None
    terraform_versions: Path | None = None
    init_cache_bytes: int = Field(default=INIT_CACHE_BYTES, ge=0)
    init_cache_seconds: float = Field(default=0, ge=0)
    heartbeat_seconds: float = Field(default=5, gt=0, le=3600)
    grace_seconds: float = Field(default=600, gt=0)
    git_cache_bytes: int = Field(default=GIT_CACHE_BYTES, ge=0)
    log_level: LogLevel = "INFO"
    log_format: LogFormat = "console"

    @field_validator("work_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @property
    def redis(self) -> RedisAddress:
        """Where the slot map, the log streams and the reports are. Raises :class:`InvalidRequest` without a Secret."""
        address = redis_address.parse(self.redis_url)
        return replace(address, files=self.credentials.certificates("redis")) if self.credentials else address

    @property
    def broker(self) -> RedisAddress:
        """Where the orders are. Raises as :attr:`redis` does."""
        address = redis_address.parse(self.broker_url or self.redis_url)
        return replace(address, files=self.credentials.certificates("broker")) if self.credentials else address

    @property
    def credentials(self) -> PoolCredentials | None:
        """What the slot map's connections ask for a username and password; None where the URL has them."""
        return PoolCredentials(self.secret_dir, self.work_dir) if self.secret_dir else None


def read() -> AgentSettings:
    """Return the settings of this process.

    Raises :class:`InvalidRequest` with one line that names every variable that is missing or invalid.
    """
    given = {field: os.environ.get(f"{PREFIX}{field.upper()}") for field in AgentSettings.model_fields}
    try:
        return AgentSettings.model_validate({field: value for field, value in given.items() if value})
    except ValidationError as error:
        raise InvalidRequest(f"The agent's environment is invalid: {problems(error, _SECRET)}.") from None
