"""What is told and sent of Terraform's state: one that it could not save, and the lock that it met.

A state travels packed and encrypted with its pool's payload key, in a key of the pool of its own: no report is as long,
and Redis never holds it in clear.
"""

import re
import zlib
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from workers.protocol.errors import InvalidRequest
from workers.protocol.names import RunId, one_line
from workers.protocol.sources import Value

# Bytes: of a state as Terraform writes it, packed, and encrypted, which takes four thirds and some.
MAX_STATE, MAX_PACKED, MAX_ENCRYPTED = 256 << 20, 8 << 20, 12 << 20


class RescuedState(Value):
    """A state that Terraform could not save: its size in ``bytes``, and whether it was ``sent`` with the report.

    One that is too large, or that the agent has no key for, is not.
    """

    bytes: int = Field(ge=0)
    sent: bool = False


_Text = Annotated[str, StringConstraints(max_length=300), AfterValidator(one_line)]
# It becomes an argument of a command line.
LockId = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x1f\x7f-][^\x00-\x1f\x7f]{0,255}$")]


class StateLock(Value):
    """A lock of a state as Terraform tells it: ``who`` is a user and a host, ``created`` that host's time."""

    id: LockId
    who: _Text = ""
    operation: _Text = ""
    created: _Text = ""

    @property
    def at(self) -> float | None:
        """When it was taken, in seconds since the epoch; None where that is no time in UTC."""
        if (found := _TIME.fullmatch(self.created)) is None:
            return None
        try:
            return datetime.fromisoformat(f"{found[1]}T{found[2]}+00:00").timestamp() + float(found[3] or 0)
        except ValueError:
            return None


# As Go prints a time, and as JSON has it.
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d{1,9})?(?: \+0000 UTC|Z)")


class DeadHolder(Value):
    """A phase whose processes are gone, and what its Terraform may have left locked: what ``who`` has locked then.

    Both times by its host's clock, in seconds since the epoch.
    """

    who: str = Field(max_length=300)
    since: float
    until: float

    def holds(self, lock: StateLock) -> bool:
        """Whether it has taken a lock."""
        return lock.who == self.who and lock.at is not None and self.since <= lock.at <= self.until


class StateStep(Value):
    """What a run does to the state of its workspace, instead of planning. It needs no configuration but the backend.

    ``push``: the rescued state of that run becomes the state. ``unlock``: the lock of this id is ended.
    """

    push: RunId | None = None
    unlock: LockId | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.push is None) is (self.unlock is None):
            raise ValueError("one of push and unlock is done")
        return self


def pack(content: Iterable[bytes]) -> bytes | None:
    """Return a state packed; None where that takes more than :data:`MAX_PACKED` bytes."""
    packer, packed = zlib.compressobj(), bytearray()
    for part in content:
        packed += packer.compress(part)
        if len(packed) > MAX_PACKED:
            return None
    packed += packer.flush()
    return bytes(packed) if len(packed) <= MAX_PACKED else None


def unpack(packed: bytes) -> bytes:
    """Return a state as Terraform wrote it. Raises :class:`InvalidRequest` for what is none, or too large for one."""
    unpacker = zlib.decompressobj()
    try:
        state = unpacker.decompress(packed, MAX_STATE)
    except zlib.error:
        raise InvalidRequest("What is kept as a state can't be unpacked.") from None
    if not unpacker.eof:
        raise InvalidRequest(f"What is kept as a state is larger than {MAX_STATE:,} bytes, or not whole.")
    return state


_LINE = re.compile(r"\s*(ID|Operation|Who|Created):\s*(.*?)\s*")


def lock_of(detail: str) -> dict[str, str]:
    """Return the fields of a :class:`StateLock` in the detail of Terraform's diagnostic about a held lock."""
    found = (_LINE.fullmatch(line) for line in detail.partition("Lock Info:")[2].splitlines())
    return {match[1].lower(): match[2] for match in found if match}
