"""Pools and workspaces are applied from files: with what result."""

from enum import StrEnum


class Applied(StrEnum):
    """What applying a configuration has done."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
