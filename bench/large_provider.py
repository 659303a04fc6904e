"""What ``init`` costs where a provider has the size of a real one: 170 MB, in a mirror of the file system, packed.

There is no network in it. The provider is a small program, which a plan asks for its schema, beside a file that is as
large and as compressible as a real one. Terraform is started by a script that tells of each command.
"""

from __future__ import annotations

import platform
import random
import shutil
import statistics
import subprocess
import time
import zipfile
from pathlib import Path

from celery.result import AsyncResult

from bench.pipe import PIPE, Pipe
from bench.rows import Row, at_most, share
from bench.system import create_workspace, enqueue, terraform, terraform_environment
from tests.agent.provider_program import program as provider_program
from workers.protocol.kinds import RunKind
from workers.services.system import System

SIZE = 170 * 10**6
ROUNDS = 7
SETTLE = 0.05
_ADDRESS = "example.com/bench/large"
_CODE = f"""\
terraform {{
  required_providers {{
    large = {{
      source = "{_ADDRESS}"
    }}
  }}
}}
"""
_SCRIPT = """#!/bin/sh
[ -n "$BENCH_PIPE" ] && echo "$1" > "$BENCH_PIPE"
exec "$BENCH_TERRAFORM" "$@"
"""


def program(directory: Path) -> Path:
    """Return the script that agents take for Terraform; without :data:`PIPE` it is no more than that."""
    script = directory / "terraform"
    script.write_text(_SCRIPT.replace('"$BENCH_TERRAFORM"', terraform()))
    script.chmod(0o755)
    return script


def rows(system: System, pipe: Pipe, directory: Path, effort: float) -> list[Row]:
    configuration = _mirror(directory, share(effort, SIZE, least=10**5))
    code = _code(directory / "requires")
    given = {"TF_CLI_CONFIG_FILE": str(configuration), PIPE: str(pipe.path)}
    by_hand, first, later, none = [], [], [], []
    create_workspace(system, "again", code, environment=given)
    _until(system, pipe, "again", "plan")
    for number in range(share(effort, ROUNDS)):
        by_hand.append(_by_hand(code, directory / f"by-hand{number}", configuration))
        # A variable of its own makes it another init; the package is in the agent's cache by now.
        new = create_workspace(system, f"new{number}", code, environment={**given, "ANOTHER": str(number)})
        init, plan = _until(system, pipe, new, "plan")
        first.append(plan - init)
        none.append(init)
        later.append(_until(system, pipe, "again", "plan")[1])
    return [
        Row("init by hand of a 170 MB provider", 1000 * statistics.median(by_hand), "ms"),
        Row("init of a workspace's first run with it, on a warm agent", 1000 * statistics.median(first), "ms"),
        at_most(
            "second run: enqueue to plan, beyond a run's way to its first command",
            1000 * statistics.median(second - way for second, way in zip(later, none, strict=True)), 50, "ms",
        ),
    ]  # fmt: skip


def _until(system: System, pipe: Pipe, workspace: str, command: str) -> tuple[float, float]:
    """Run a plan; return when its first command began, and when this one did, in seconds after it was enqueued."""
    time.sleep(SETTLE)  # until what follows the last run is done
    began = time.perf_counter()
    run = enqueue(system, RunKind.PLAN, workspace)
    said = [pipe.line()]
    while said[-1][1] != command:
        said.append(pipe.line())
    AsyncResult(run, app=system.celery).get(timeout=60)
    pipe.drain()
    return said[0][0] - began, said[-1][0] - began


def _by_hand(code: Path, directory: Path, configuration: Path) -> float:
    shutil.copytree(code, directory)
    environment = terraform_environment() | {"TF_CLI_CONFIG_FILE": str(configuration)}
    began = time.perf_counter()
    subprocess.run([terraform(), "init"], cwd=directory, env=environment, check=True, stdout=subprocess.PIPE)
    seconds = time.perf_counter() - began
    shutil.rmtree(directory)
    return seconds


def _code(directory: Path) -> Path:
    directory.mkdir()
    (directory / "main.tf").write_text(_CODE)
    return directory


def _mirror(directory: Path, size: int) -> Path:
    """Make a mirror that holds the provider, and return the configuration of Terraform that names it."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    target = f"{platform.system().lower()}_{machine}"
    package = directory / "mirror" / _ADDRESS / f"terraform-provider-large_1.0.0_{target}.zip"
    package.parent.mkdir(parents=True)
    chance = random.Random(7)
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        entry = zipfile.ZipInfo("terraform-provider-large_v1.0.0")
        entry.external_attr = 0o755 << 16
        archive.writestr(entry, provider_program())
        with archive.open("content", "w", force_zip64=True) as file:
            for _ in range(-(-size // 10**5)):
                file.write(chance.randbytes(25_000) * 4)
    configuration = directory / "large.tfrc"
    configuration.write_text(
        f'provider_installation {{\n  filesystem_mirror {{\n    path = "{directory}/mirror"\n  }}\n}}\n'
    )
    return configuration
