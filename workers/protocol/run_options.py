"""What a caller may ask of one run beside its workspace: a part of Terraform's planning options.

Source of the grammar of addresses: Terraform's "Resource Addressing" reference. An address is checked for its form
alone; whether the configuration has such a resource is Terraform's to say.
"""

import json
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from workers.protocol.sources import Value, Variables
from workers.protocol.states import StateStep

_MOST_ADDRESSES = 100
_LONGEST_ADDRESS = 1_000
_MOST_BYTES = 64_000  # of variables: they are a part of messages
_NAME = r"[^\W\d][\w-]*"
_KEY = r'(?:\[(?:\d+|"(?:[^"\\\x00-\x1f]|\\.)*")\])?'
_MODULES = rf"(?:module\.{_NAME}{_KEY}\.)*"
_MANAGED = re.compile(rf"{_MODULES}(?!module\.|data\.){_NAME}\.{_NAME}{_KEY}")
_ANY = re.compile(rf"{_MANAGED.pattern}|{_MODULES}(?:module\.{_NAME}{_KEY}|data\.{_NAME}\.{_NAME}{_KEY})")


def _target(address: str) -> str:
    if len(address) > _LONGEST_ADDRESS or not _ANY.fullmatch(address):
        raise ValueError(
            f"{address[:80]!r} is no address of a resource or module: write it as in "
            "module.net.aws_subnet.public[0] or module.net"
        )
    return address


def _replaced(address: str) -> str:
    if len(address) > _LONGEST_ADDRESS or not _MANAGED.fullmatch(address):
        raise ValueError(f"{address[:80]!r} is no address of a resource: write it as in aws_instance.web[0]")
    return address


def _bounded(variables: Variables) -> Variables:
    if len(json.dumps(variables)) > _MOST_BYTES:
        raise ValueError(f"more than {_MOST_BYTES:,} bytes: put large values into the workspace or the configuration")
    return variables


class RunOptions(Value):
    """Options of one run, kept for its attempts.

    ``refresh_only``: bring the state to what is there, and change nothing. ``targets``: plan these resources and
    modules, and what they depend on, alone. ``replace``: plan to replace these resources. ``variables``: Terraform
    variables, over the workspace's. ``parallelism``: how many resources Terraform changes at a time; its own default
    is 10.
    """

    refresh_only: bool = False
    targets: tuple[Annotated[str, AfterValidator(_target)], ...] = Field(default=(), max_length=_MOST_ADDRESSES)
    replace: tuple[Annotated[str, AfterValidator(_replaced)], ...] = Field(default=(), max_length=_MOST_ADDRESSES)
    variables: Annotated[Variables, AfterValidator(_bounded)] = Field(default={})
    parallelism: int | None = Field(default=None, ge=1, le=1_000)


class OrderOptions(RunOptions):
    """The options of a run as they are stored and ordered. ``state``: what it does instead of planning.

    A caller can't ask for that by an option: it is decided first whether it may be done.
    """

    state: StateStep | None = None
