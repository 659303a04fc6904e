"""What a person may choose of an embedded system, and what its processes are started with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from workers import settings
from workers.protocol.settings import PREFIX
from workers.specs.pools import PoolSpec


class Options(BaseModel):
    """What a person may choose of an embedded system.

    ``flower_port``: None takes 5555, or another port if that is taken. ``pool`` is created unless a pool of its name
    exists. ``settings`` are :class:`~workers.settings.Settings` for every process of the system, by field name; the
    environment overrides them.
    """

    model_config = ConfigDict(frozen=True)

    home: Path = Field(default_factory=settings.home)
    flower: bool = True
    flower_port: int | None = Field(default=None, ge=1, le=65535)
    pool: PoolSpec = PoolSpec(name="default")
    settings: dict[str, float | str] = {}


def environment(home: Path) -> Mapping[str, str]:
    """Return the environment of every process of the system under ``home``, except the agents'."""
    return os.environ | {f"{PREFIX}HOME": str(home), "PYTHONUNBUFFERED": "1"}
