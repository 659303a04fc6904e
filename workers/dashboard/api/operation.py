"""One operation of the API, as it is answered and as it is described."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict

from workers.core.access import Caller, Scope
from workers.dashboard.shared_pools import SharedPools
from workers.services.system import System


class Given(BaseModel):
    """What a caller writes: fields that nobody knows are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Nothing(Given):
    """No fields at all."""


@dataclass(frozen=True)
class Asked:
    """One request: what it works on, who asks, what the path names, its query and body; and two of its headers.

    ``key``: its idempotency key; ``trace``: the traceparent of its caller.
    """

    system: System
    pools: SharedPools
    caller: Caller
    named: dict[str, str] = field(default_factory=dict)
    query: Any = None
    body: Any = None
    key: str | None = None
    trace: str | None = None


@dataclass(frozen=True)
class Answered:
    """An answer with a status of its own; ``location``: where what was made is found."""

    value: Any
    status: HTTPStatus
    location: str | None = None


@dataclass(frozen=True)
class Operation:
    """A request that is answered by ``do``, with a value of the type ``answer``, which is JSON then.

    ``name`` tells it from the others. Where it ``streams``, ``do`` returns an iterator of lists of such values: one
    JSON document a line.
    """

    name: str
    method: str
    path: str
    summary: str
    scope: Scope
    do: Callable[[Asked], Any]
    answer: Any
    query: type[Given] = Nothing
    body: type[BaseModel] | None = None
    status: HTTPStatus = HTTPStatus.OK
    refusals: tuple[HTTPStatus, ...] = ()
    streams: bool = False
    takes_key: bool = False

    @property
    def parameters(self) -> list[str]:
        """The names in the path."""
        return re.findall(r"{(\w+)}", self.path)

    @property
    def pattern(self) -> str:
        """The path as a regular expression."""
        return re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", self.path)
