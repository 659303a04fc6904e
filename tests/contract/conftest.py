"""The last release beside this checkout, and a home on which either can run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.plane import Plane
from tests.contract.release import unpack
from tests.valkey_server import running_valkey


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sources of the last release."""
    return unpack(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory, release: Path) -> Iterator[Plane]:
    """Return a home that the tests of one pairing share."""
    with running_valkey() as url:
        made = Plane(tmp_path_factory.mktemp("plane") / "home", url, shutil.which("terraform") or "terraform")
        yield made
        made.end_agents()
        made.app.close()
