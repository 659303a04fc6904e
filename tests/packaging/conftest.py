"""The environments of the images, made by the Dockerfile's own commands in directories of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.dockerfile import ROOT, Stage, stages

USER = 10001
INSTALLED = "/opt/terraslot"


@dataclass(frozen=True)
class Workshop:
    """A build stage's directory, and a Python that has nothing but pip."""

    source: Path
    path: str

    def build_on(self, stage: Stage, installed: Path) -> subprocess.CompletedProcess[str]:
        """Run the commands of a stage that is based on this one, in a copy of its directory of its own."""
        copy = installed.with_name(f"{installed.name}-source")
        shutil.copytree(self.source, copy)
        return Workshop(copy, self.path).run(stage, installed)

    def run(self, stage: Stage, installed: Path) -> subprocess.CompletedProcess[str]:
        """Run a stage's commands; what they install to the image's directory goes to ``installed``."""
        script = "\n".join(stage.all("RUN")).replace(INSTALLED, str(installed))
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.source,
            # Packages come from wherever this machine gets them; of its Python the commands know nothing.
            env={**os.environ, "PATH": self.path, "UV_PYTHON_DOWNLOADS": "never"},
            capture_output=True,
            text=True,
            check=False,
        )


@dataclass(frozen=True)
class Environment:
    """What an image installs. Its programs run as the image's user, which may not write there."""

    directory: Path
    home: Path

    def run(self, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.directory / "bin" / argv[0], *argv[1:]],
            cwd=self.directory,
            env=self.variables(**variables),
            capture_output=True,
            text=True,
            check=False,
            user=USER if os.geteuid() == 0 else None,
        )

    def variables(self, **more: str) -> dict[str, str]:
        fixed = {"PATH": f"{self.directory / 'bin'}:/usr/bin:/bin", "HOME": str(self.home)}
        return fixed | {"PYTHONDONTWRITEBYTECODE": "1"} | more


@pytest.fixture(scope="session")
def directory() -> Iterator[Path]:
    """A directory that another user can look into, which pytest's own can't be."""
    made = Path(tempfile.mkdtemp(prefix="terraslot-images-"))
    made.chmod(0o755)
    yield made
    subprocess.run(["chmod", "-R", "u+w", made], check=True)
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def workshop(directory: Path) -> Workshop:
    """The build stage, done."""
    source, python = directory / "source", directory / "python"
    _copy_context(source)
    subprocess.run([sys.executable, "-m", "venv", python], check=True)
    made = Workshop(source, f"{python / 'bin'}:/usr/bin:/bin")
    done = made.run(stages()["build"], installed=directory / "unused")
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="session")
def agent(workshop: Workshop, directory: Path) -> Environment:
    return _installed(workshop, directory, "agent")


@pytest.fixture(scope="session")
def workers(workshop: Workshop, directory: Path) -> Environment:
    return _installed(workshop, directory, "workers")


def _installed(workshop: Workshop, directory: Path, target: str) -> Environment:
    installed, home = directory / target, directory / f"{target}-home"
    done = workshop.build_on(stages()[f"{target}-environment"], installed)
    assert done.returncode == 0, done.stderr
    subprocess.run(["chmod", "-R", "a-w,a+rX", installed], check=True)
    home.mkdir()
    if os.geteuid() == 0:
        os.chown(home, USER, USER)
    return Environment(installed, home)


def _copy_context(target: Path) -> None:
    target.mkdir()
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            origin = ROOT / line[1:]
            if origin.is_dir():
                shutil.copytree(origin, target / origin.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(origin, target)
