"""The agent's own credential: what its pool's Secret holds at the moment it is asked for.

The Secret is one file, replaced as a whole when the credential is rotated. Every connection and every encrypted order
reads it again: so an agent follows a rotation.
"""

import os
from pathlib import Path

from pydantic import ValidationError
from redis import CredentialProvider

from workers.protocol.encryption import Keyring
from workers.protocol.errors import InvalidRequest
from workers.protocol.pool_secret import SECRET_FILE, PoolSecret

SECRET_DIR = "TERRASLOT_SECRET_DIR"  # noqa: S105 - a variable's name


def read(directory: Path) -> PoolSecret:
    """Read a pool's Secret. Raises :class:`InvalidRequest` where there is none, or not a whole one."""
    path = directory / SECRET_FILE
    try:
        return PoolSecret.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidRequest(f"{path} is not a pool's Secret: check what is mounted at {SECRET_DIR}.") from error


def keyring(directory: Path) -> Keyring:
    """Return the keys that decrypt orders."""
    return Keyring(read(directory).payload_keys, "the pool's Secret")


class PoolCredentials(CredentialProvider):
    """Gives redis-py and kombu the username and password of the moment; kombu makes one without arguments."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or Path(os.environ[SECRET_DIR])

    def get_credentials(self) -> tuple[str, str]:
        """Return username and password."""
        secret = read(self._directory)
        return secret.username, secret.password
