"""The key that encrypts an embedded system's secrets at rest: made once, and kept beside what it encrypts."""

from __future__ import annotations

import os
from pathlib import Path

from workers.protocol.encryption import new_key

_FILE = "encryption.key"


def own(home: Path) -> str:
    """Return the key of the system under ``home``, which its owner alone can read."""
    path = home / _FILE
    if not path.exists():  # nobody else makes it: the supervisor owns its home
        fresh = path.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(new_key())
        fresh.replace(path)
    return path.read_text("ascii")
