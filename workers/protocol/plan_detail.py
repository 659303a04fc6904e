"""What a plan would do with each resource, as an agent reports it and the control plane stores it.

All of it comes from a configuration: texts are bounded, and shown without control characters. The words are those of
Terraform's "JSON Output Format" where that has one; an agent of a later version may send others.
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_PLAN_BYTES = 64_000
# The fields whose text a configuration has chosen.
FROM_CONFIGURATION = frozenset({"address", "moved_from", "deposed", "replace_paths", "path", "before", "after"})

_Address = Annotated[str, StringConstraints(max_length=1_000)]
_Path = Annotated[str, StringConstraints(max_length=500)]
_Word = Annotated[str, StringConstraints(max_length=100)]
_Action = Annotated[str, StringConstraints(pattern=r"^[a-z-]{1,40}$")]


class _Detail(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class AttributeChange(_Detail):
    """An attribute that changes; ``before`` and ``after`` are its values, None where it has none.

    ``unknown``: its value is known after the apply. ``sensitive``: Terraform marks it, or a part of it, which is
    replaced. ``large``: which of the two values is too long to be told.
    """

    path: _Path
    before: Any = None
    after: Any = None
    unknown: bool = False
    sensitive: bool = False
    large: list[Literal["before", "after"]] = []


class ResourceChange(_Detail):
    """What becomes of one resource.

    ``action``: ``delete``, ``replace``, ``forget``, ``update``, ``create``, ``read`` or ``no-op``. ``reason``:
    Terraform's ``action_reason``. ``replace_paths``: the attributes for which it is replaced; ``create_first``: the new
    one is made before the old one is destroyed. ``drift``: it has changed so outside of Terraform.
    """

    address: _Address
    action: _Action
    reason: _Word | None = None
    replace_paths: list[_Path] = []
    create_first: bool = False
    deposed: _Word | None = None
    moved_from: _Address | None = None
    imported: bool = False
    drift: bool = False
    attributes: list[AttributeChange] = []
    attributes_left_out: int = Field(default=0, ge=0)

    @property
    def destroys(self) -> bool:
        """Whether the resource that is there is destroyed."""
        return self.action in ("delete", "replace") and not self.drift


class PlanDetail(_Detail):
    """The resource changes of a plan, the gravest first; ``left_out``: how many are not among them, by action."""

    resources: list[ResourceChange] = []
    left_out: dict[_Action, int] = {}

    def compact(self) -> dict[str, Any]:
        """Return the detail as it is sent and stored: JSON without what is default."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if len(json.dumps(self.compact())) > MAX_PLAN_BYTES:
            raise ValueError(f"more than {MAX_PLAN_BYTES:,} bytes")
        return self
