"""The states that local pools keep for configurations without a remote backend, each under an identity of its own.

A workspace's name is a label: it may be used again, and what is kept under it would be taken for the new one's. So a
state is kept in ``HOME/state/NAME.ID``, and its workspace knows that. The agent makes ``HOME/state/NAME`` a link to the
living one's, by which 0.1 finds it. A workspace of 0.1 keeps ``HOME/state/NAME`` itself until it is deleted.
"""

import uuid
from contextlib import suppress
from pathlib import Path

from workers.protocol.errors import InvalidRequest

_FILE = "terraform.tfstate"
_ID_LENGTH = 12


def path(home: Path, directory: str) -> Path:
    """Return where the state of this identity is, or will be."""
    return home / "state" / directory / _FILE


def new(name: str) -> str:
    """Return an identity for the state of a workspace, which no other ever has."""
    return f"{name}.{uuid.uuid4().hex[:_ID_LENGTH]}"


def adoptable(home: Path, directory: str) -> str:
    """Return a kept state's identity. Raises :class:`InvalidRequest` where this machine keeps none of that name."""
    kept = sorted(each.name for each in (home / "state").glob("*") if not each.is_symlink() and each.is_dir())
    if directory not in kept:
        there_are = f"It keeps {', '.join(kept)}" if kept else "It keeps none"
        raise InvalidRequest(f"This machine keeps no state {directory!r} under {home / 'state'}. {there_are}.")
    return directory


def leave(home: Path, name: str, directory: str) -> Path | None:
    """Part the state of a deleted workspace from its name; return where it is, None where this machine keeps none.

    Without the right to move it, it stays where it is: a new workspace of the name has another identity anyway.
    """
    place = path(home, directory).parent
    label = place.with_name(name)
    with suppress(OSError):
        if label.is_symlink():
            label.unlink()
        elif place == label:
            place = place.rename(place.with_name(new(name)))
    with suppress(OSError):
        place.rmdir()  # of a workspace that was planned and never applied, which has left nothing
    return place if place.is_dir() else None
