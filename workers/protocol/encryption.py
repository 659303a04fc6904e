"""Values that only holders of a key can read: Fernet, as the ``cryptography`` package has it.

At rest with the platform's keys (``TERRASLOT_ENCRYPTION_KEYS``), on the way to an agent with its pool's payload keys.
The package takes 6 MB, and is loaded by what has a key: an agent without a sensitive variable needs none of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workers.protocol.errors import InvalidRequest

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet


class NoKey(InvalidRequest):
    """The process has no key that encrypts or decrypts a value; one with the right key can."""


class Keyring:
    """Keys of which the first encrypts and any decrypts, so that a key can be followed by another."""

    def __init__(self, keys: Sequence[str], name: str) -> None:
        """Take the keys; ``name`` is what people know them by. Raises :class:`NoKey` for what is none."""
        self._name = name
        try:
            self._fernet = _fernet(keys) if keys else None
        except ValueError as error:
            raise NoKey(
                f"{name} holds something that is no Fernet key: 32 bytes in URL-safe base64 are one."
            ) from error

    def encrypt(self, value: Any) -> str:
        """Return a JSON value as text that says nothing without a key."""
        return self.encrypt_bytes(json.dumps(value).encode())

    def decrypt(self, encrypted: str) -> Any:
        """Return what was encrypted. Raises :class:`NoKey` where none of the keys decrypts it."""
        return json.loads(self.decrypt_bytes(encrypted))

    def encrypt_bytes(self, content: bytes) -> str:
        """Return bytes as text that says nothing without a key."""
        return self._ready().encrypt(content).decode()

    def decrypt_bytes(self, encrypted: str) -> bytes:
        """Return bytes that were encrypted. Raises as :meth:`decrypt` does."""
        fernet = self._ready()
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - see above

        try:
            return fernet.decrypt(encrypted.encode())
        except InvalidToken:
            raise NoKey(
                f"None of the keys in {self._name} decrypts a value that was encrypted before: add the key that did."
            ) from None

    def reencrypt(self, encrypted: str) -> str:
        """Return the same value encrypted with the first key."""
        return self.encrypt_bytes(self.decrypt_bytes(encrypted))

    def _ready(self) -> MultiFernet:
        if self._fernet is None:
            raise NoKey(f"{self._name} is not set, and nothing secret is kept without a key.")
        return self._fernet


def new_key() -> str:
    """Return a new key."""
    from cryptography.fernet import Fernet  # noqa: PLC0415 - see above

    return Fernet.generate_key().decode()


def _fernet(keys: Sequence[str]) -> MultiFernet:
    from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 - see above

    return MultiFernet([Fernet(key) for key in keys])
