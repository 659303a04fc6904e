"""The configuration of pools and workspaces, checked when it is saved. Pure."""

from enum import StrEnum


class Applied(StrEnum):
    """What applying a configuration has done."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
