"""A whole auto-applied run, from enqueueing to the caller's result, against the same commands by hand.

Both sides alternate, each time with a workspace of its own and an empty state. By hand means ``init``, ``plan -out``,
``show -json`` and ``apply``, one right after the other.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from celery.result import AsyncResult

from bench.rows import Row, at_most, table
from bench.system import create_workspace, embedded, enqueue
from workers.protocol.kinds import RunKind
from workers.services.system import System

EXAMPLE = Path(__file__).parents[1] / "examples" / "hello"
ROUNDS = 9
BY_HAND = (
    ("init", "-input=false"),
    ("plan", "-input=false", "-out=plan.tfplan"),
    ("show", "-json", "plan.tfplan"),
    ("apply", "-input=false", "plan.tfplan"),
)


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="terraslot-bench-") as directory, embedded() as system:
        _by_hand(Path(directory, "warm-up"))
        _through_the_system(system, "warm-up")
        pairs = [
            (_by_hand(Path(directory, str(number))), _through_the_system(system, f"example{number}"))
            for number in range(ROUNDS)
        ]
    hand, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(run / commands for commands, run in pairs)
    return [
        Row("init, plan, show -json, apply by hand", 1000 * hand, "ms"),
        Row("the same as an auto-applied run, enqueue to result", 1000 * ours, "ms"),
        at_most("whole run against the commands by hand", ratio, 1.5, "times"),
    ]


def _by_hand(directory: Path) -> float:
    shutil.copytree(EXAMPLE, directory)
    began = time.perf_counter()
    for command in BY_HAND:
        subprocess.run([_terraform(), *command], cwd=directory, env=_environment(), check=True, stdout=subprocess.PIPE)
    return time.perf_counter() - began


def _through_the_system(system: System, name: str) -> float:
    workspace = create_workspace(system, name, EXAMPLE)
    began = time.perf_counter()
    run = enqueue(system, RunKind.PLAN_AND_APPLY, workspace, auto_apply=True)
    result = AsyncResult(run, app=system.celery).get(timeout=60)
    seconds = time.perf_counter() - began
    if not result["outputs"]:
        raise RuntimeError(f"the run has no outputs: {result}")
    return seconds


def _terraform() -> str:
    return shutil.which("terraform") or "tofu"


def _environment() -> dict[str, str]:
    """Return what the agent gives Terraform as well: nothing that makes it warn or ask the internet for updates."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CLI_CONFIG_FILE"}
    return environment | {"TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"}


if __name__ == "__main__":
    print(table(measure()))
