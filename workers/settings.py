"""The settings of the control plane; the only module that reads its environment.

Precedence: ``TERRASLOT_*`` variables, then the file that ``terraslot up`` leaves under ``TERRASLOT_HOME`` while the
embedded system runs, then defaults.
"""

import os
import pwd
from functools import cache
from pathlib import Path
from typing import Self

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, JsonConfigSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from workers.protocol import redis_address
from workers.protocol.encryption import Keyring
from workers.protocol.errors import InvalidRequest
from workers.protocol.names import NAME
from workers.protocol.redis_address import RedisAddress
from workers.protocol.settings import GIT_CACHE_BYTES, INIT_CACHE_BYTES, PREFIX, LogFormat, LogLevel, RedisUrl, problems

SYSTEM_FILE = "system.json"
# A hundred years, in days: further back, a date minus this would be none.
_FOR_EVER = 36_500
_SECRET = frozenset({"redis_url", "broker_url", "database_url", "encryption_keys", "shared_agent_password"})


def home() -> Path:
    """Return the directory of everything that lasts: ``TERRASLOT_HOME``, or ``~/.terraslot``."""
    return Path(os.environ.get(f"{PREFIX}HOME") or "~/.terraslot").expanduser().absolute()


class Settings(BaseSettings):
    """Everything configurable of the control plane. Intervals are seconds.

    ``redis_url`` holds the slot map, log streams and results, ``broker_url`` Celery's queues (the same server unless
    set). Each pool is reconciled and scaled every ``cycle_seconds``; every ``dispatch_seconds`` the dispatcher
    makes up for lost wake-ups. ``encryption_keys``: Fernet keys separated by commas; the first encrypts, all decrypt.
    ``credential_days``: how old a pool's credential gets before it is rotated. ``run_retention_days``: how long a run
    that is over stays on record, ``decision_retention_days`` a scaling decision or a pod's failure. ``kubeconfig`` and
    ``namespace``: where the pods of Kubernetes pools are, unless in the namespace of this process's own pod.
    ``shared_agent_username`` and ``shared_agent_password`` are the Redis user of all agents of all pools, where the
    server administers no users: pools are not kept from one another then. ``local_user``: the user of this machine as
    whom the agents of local pools run, where root starts this system. ``instance`` tells the control plane from
    others in its namespace. ``actor``: who uses the command line, unless its account says so. ``terraform``,
    ``terraform_versions``, ``init_cache_*`` and ``git_cache_bytes`` are given to local agents. ``log_format``
    is ``console`` or ``json``. ``metrics_port``: where a worker serves its metrics, at ``metrics_address``; 0: nowhere.
    ``traces_endpoint``: where traces are exported to, unless ``traces_disabled`` is ``true``; OpenTelemetry reads its
    other variables itself. ``traceparent``: the trace that runs asked for by this command line join.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    home: Path = Field(default_factory=home)
    redis_url: RedisUrl = Field(default="redis://127.0.0.1:6379/0", repr=False)
    broker_url: RedisUrl = Field(default="", repr=False)
    database_url: str = Field(default="", repr=False)
    shared_agent_username: str = ""
    shared_agent_password: SecretStr = SecretStr("")
    encryption_keys: SecretStr = SecretStr("")
    credential_days: float = Field(default=30, gt=0)
    run_retention_days: float = Field(default=90, ge=1, le=_FOR_EVER)
    decision_retention_days: float = Field(default=30, ge=1, le=_FOR_EVER)
    terraform: str | None = None
    terraform_versions: Path | None = None
    local_user: str = ""
    init_cache_bytes: int = Field(default=INIT_CACHE_BYTES, ge=0)
    init_cache_seconds: float = Field(default=0, ge=0)
    git_cache_bytes: int = Field(default=GIT_CACHE_BYTES, ge=0)
    kubeconfig: str | None = None
    namespace: str | None = Field(default=None, pattern=f"^{NAME.pattern}$")
    instance: str = Field(default="terraslot", pattern=f"^{NAME.pattern}$")
    actor: str = ""
    dashboard_read_only: bool = False
    traces_endpoint: str = Field(
        default="",
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    )
    traces_disabled: str = Field(default="", validation_alias="OTEL_SDK_DISABLED")
    traceparent: str = Field(default="", validation_alias="TRACEPARENT")
    metrics_port: int = Field(default=0, ge=0, le=65535)
    metrics_address: str = "127.0.0.1"
    cycle_seconds: float = Field(default=30, gt=0)
    dispatch_seconds: float = Field(default=10, gt=0)
    heartbeat_seconds: float = Field(default=5, gt=0)
    log_level: LogLevel = "INFO"
    log_format: LogFormat = "console"

    @field_validator("database_url")
    @classmethod
    def _database_scheme(cls, url: str) -> str:
        if url and not url.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
            raise ValueError("must start with sqlite:/// or postgresql://")
        return url

    @model_validator(mode="after")
    def _shared_user_is_whole(self) -> Self:
        if bool(self.shared_agent_username) != bool(self.shared_agent_password.get_secret_value()):
            raise ValueError(f"set both of {PREFIX}SHARED_AGENT_USERNAME and {PREFIX}SHARED_AGENT_PASSWORD, or neither")
        return self

    @field_validator("terraform_versions")
    @classmethod
    def _from_any_directory(cls, versions: Path | None) -> Path | None:
        return versions and versions.expanduser().absolute()  # agents start elsewhere

    @field_validator("redis_url", "broker_url")
    @classmethod
    def _certificates(cls, url: str) -> str:
        """Refuse now what would fail at each connection."""
        if url:
            redis_address.parse(url).load_certificates()
        return url

    @property
    def person(self) -> str:
        """Who uses this process: ``actor``, or the account that runs it."""
        return self.actor or _account()

    @property
    def traces_to(self) -> str:
        """Where traces are exported to; empty for nowhere."""
        return "" if self.traces_disabled.strip().lower() == "true" else self.traces_endpoint

    @property
    def in_cluster(self) -> bool:
        """Whether this process is a pod of an installation in a cluster; a pod that runs `terraslot up` is none."""
        return self.namespace is not None and "KUBERNETES_SERVICE_HOST" in os.environ

    @property
    def redis(self) -> RedisAddress:
        """Where the slot map, the log streams and the results are."""
        return redis_address.parse(self.redis_url)

    @property
    def broker(self) -> RedisAddress:
        """Where Celery's queues are."""
        return redis_address.parse(self.broker_url or self.redis_url)

    @property
    def database(self) -> str:
        """The SQLAlchemy URL of the database: SQLite under ``home`` unless set; PostgreSQL by psycopg 3."""
        url = self.database_url or f"sqlite:///{self.home / 'terraslot.db'}"
        return url.replace("postgresql://", "postgresql+psycopg://", 1)

    @property
    def keyring(self) -> Keyring:
        """What encrypts everything secret at rest. Raises :class:`InvalidRequest` for an invalid key."""
        keys = self.encryption_keys.get_secret_value().replace(",", " ").split()
        return Keyring(keys, f"{PREFIX}ENCRYPTION_KEYS")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the hook's signature is the library's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment before the running system's file."""
        system = JsonConfigSettingsSource(settings_cls, json_file=home() / SYSTEM_FILE)
        return init_settings, env_settings, system


def _account() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user that nobody has named
        return f"uid {os.geteuid()}"


@cache
def settings() -> Settings:
    """Return the settings of this process. Raises :class:`InvalidRequest` with a clause for each invalid variable."""
    try:
        return Settings()
    except ValidationError as error:
        raise InvalidRequest(f"The environment is invalid: {problems(error, _SECRET)}.") from None
