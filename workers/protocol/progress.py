"""How far a phase has come: what an agent says of it while it executes, and of an apply when it has ended.

The addresses come from a configuration: they are bounded, and shown without control characters. Every message is the
whole progress, so that one that is lost does not matter. Times are seconds since the epoch, by the agent's clock.
"""

import json
from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_PROGRESS_BYTES = 64_000  # of an apply that has ended
MAX_LIVE_BYTES = 16_000
LONGEST_ADDRESS = 1_000

_Address = Annotated[str, StringConstraints(max_length=LONGEST_ADDRESS)]
_Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z -]{0,39}$")]
_Time = Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, lt=2**53)]


class _Progress(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class ResourceProgress(_Progress):
    """One change of a resource: ``action`` is Terraform's word; ``seconds`` is None until it has ended."""

    address: _Address
    action: _Word
    since: _Time
    seconds: _Time | None = None
    failed: bool = False


class Progress(_Progress):
    """What a phase does, since when, and how many changes of resources it has begun.

    ``resources``: what is under way, then what failed, then what is done, as far as there is room for it; the counts
    are of all.
    """

    step: _Word | None = None
    since: _Time | None = None
    working: _Count = 0
    failed: _Count = 0
    done: _Count = 0
    resources: list[ResourceProgress] = []

    def compact(self) -> dict[str, Any]:
        """Return the progress as it is sent and stored: JSON without what is default."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def fitting(cls, room: int, resources: Iterable[ResourceProgress], **facts: Any) -> Self:
        """Return the progress with the first of the resources, as many as fit into ``room`` bytes of JSON."""
        kept: list[ResourceProgress] = []
        room -= _AROUND
        for resource in resources:
            room -= len(json.dumps(resource.model_dump(mode="json", exclude_defaults=True))) + 2
            if room < 0:
                break
            kept.append(resource)
        return cls(resources=kept, **facts)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if len(json.dumps(self.compact())) > MAX_PROGRESS_BYTES:
            raise ValueError(f"more than {MAX_PROGRESS_BYTES:,} bytes")
        return self


_AROUND = 300  # bytes of the other fields
