"""Who asks for a run and decides about it, and who may confirm a plan: a workspace's rules, decided on values.

A name is what the one who asks says it is: docs/threat-model.md says what that is worth.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from workers.core.lifecycle import EventDetail
from workers.protocol.errors import InvalidRequest
from workers.protocol.names import one_line
from workers.protocol.sources import Value

_LONGEST_ACTOR = 200
_LONGEST_MESSAGE = 500


def _shown_as_it_is(name: str) -> str:
    if not name or len(name) > _LONGEST_ACTOR or name != one_line(name).strip():
        raise ValueError(f"an actor is one line of up to {_LONGEST_ACTOR} characters, without control characters")
    return name


@dataclass(frozen=True, slots=True)
class Actor:
    """A person or program. Raises :class:`InvalidRequest` for what can't be a name."""

    name: str

    def __post_init__(self) -> None:
        try:
            _shown_as_it_is(self.name)
        except (ValueError, TypeError) as error:
            raise InvalidRequest(f"{str(self.name)[:80]!r} is no actor: {error}.") from None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a decision comes from: its message's id, who asks for it, and why. Raises :class:`InvalidRequest`."""

    task: str | None = None
    actor: Actor | None = None
    message: str | None = None

    def __post_init__(self) -> None:
        if self.message is not None and not (isinstance(self.message, str) and len(self.message) <= _LONGEST_MESSAGE):
            raise InvalidRequest(f"A message is a text of up to {_LONGEST_MESSAGE} characters.")

    @property
    def detail(self) -> EventDetail:
        """What is entered of it with the decision."""
        detail = by(self.actor)
        if self.task is not None:
            detail["task"] = self.task
        if self.message:
            detail["message"] = self.message
        return detail


class Approval(Value):
    """What a workspace requires of a confirmation.

    ``four_eyes``: another person than the one who asked for the run. ``approvals``: of how many different people.
    ``names``: only these; anybody where there are none.
    """

    four_eyes: bool = False
    approvals: int = Field(default=1, ge=1, le=20)
    names: tuple[Annotated[str, AfterValidator(_shown_as_it_is)], ...] = ()

    @model_validator(mode="after")
    def _enough_names(self) -> Self:
        if self.names and len({_key(name) for name in self.names}) < self.approvals:
            raise ValueError(f"{self.approvals} approvals are required, and fewer people are named")
        return self

    @property
    def is_required(self) -> bool:
        """Whether it matters who confirms."""
        return self.four_eyes or self.approvals > 1 or bool(self.names)

    def is_given_by(self, asked_by: str | None) -> bool:
        """Whether the one who asks for a run may confirm its plan as well, alone: then the request may say so ahead."""
        return not self.is_required or (asked_by is not None and not self.missing(asked_by, [asked_by]))

    def missing(self, asked_by: str | None, approved_by: Collection[str]) -> int:
        """Return how many approvals are missing, where these people have given theirs."""
        counted = {_key(name) for name in approved_by if self._may_approve(name, asked_by) is None}
        return max(0, self.approvals - len(counted))

    def refuse(self, asked_by: str | None, approved_by: Collection[str], actor: Actor | None) -> str | None:
        """Return why the confirmation of ``actor`` does not count; None where it does."""
        if actor is None:
            return (
                "its workspace says who may confirm, and this request names nobody: set TERRASLOT_ACTOR, or the "
                "header terraslot_actor of the task"
            )
        if (why := self._may_approve(actor.name, asked_by)) is not None:
            return why
        if _key(actor.name) in map(_key, approved_by) and self.missing(asked_by, approved_by):
            return f"{actor.name} has approved it already, and its workspace requires {self.approvals} people"
        return None

    def _may_approve(self, name: str, asked_by: str | None) -> str | None:
        if self.names and _key(name) not in map(_key, self.names):
            return f"{name} is none of those who may confirm: {', '.join(self.names)}"
        if self.four_eyes and asked_by is None:
            return "its workspace requires another person than the one who asked, and nobody knows who that was"
        if self.four_eyes and asked_by is not None and _key(name) == _key(asked_by):
            return f"{name} has asked for it, and its workspace requires another person"
        return None


def by(actor: Actor | None) -> EventDetail:
    """Return what is entered of an actor with an event."""
    if actor is None:
        return {}
    return {"actor": actor.name}


def _key(name: str) -> str:
    return name.casefold()
