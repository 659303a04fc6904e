"""A whole auto-applied run, from enqueueing to the caller's result, against the same commands by hand.

By hand means ``init``, ``plan -out``, ``show -json`` and ``apply``, one right after the other. Both sides alternate,
and so do the tasks that a team would write instead. A first run begins with an empty state; the next ones change what
is there.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from celery.result import AsyncResult

from bench.alternatives import Alternative
from bench.rows import Row, at_most, share
from bench.system import create_workspace, enqueue, terraform, terraform_environment
from workers.protocol.kinds import RunKind
from workers.services.system import System

EXAMPLE = Path(__file__).parents[1] / "examples" / "hello"
FIRST, NEXT = 9, 9
BY_HAND = (
    ("init", "-input=false"),
    ("plan", "-input=false", "-out=plan.tfplan"),
    ("show", "-json", "plan.tfplan"),
    ("apply", "-input=false", "plan.tfplan"),
)

# Runs a workspace of this name, with a network of this name, and returns the seconds.
Side = Callable[[str, str], float]


def rows(system: System, alternatives: list[Alternative], directory: Path, effort: float) -> list[Row]:
    sides = {"by hand": _by_hand(directory / "by-hand"), "a run": _through_the_system(system)}
    sides |= {each.name: _by(each, directory / each.name) for each in alternatives}
    for side in sides.values():
        side("warm-up", "first")
    first = [
        {name: side(f"example{number}", "first") for name, side in sides.items()}
        for number in range(share(effort, FIRST))
    ]
    later = [
        {name: side("example0", f"next{number}") for name, side in sides.items()}
        for number in range(share(effort, NEXT))
    ]
    return [*_told("first run of a workspace", first, 1.1), *_told("next run of a workspace", later, 0.9)]


def _told(which: str, found: list[dict[str, float]], target: float) -> list[Row]:
    medians = {name: statistics.median(each[name] for each in found) for name in found[0]}
    ours, hand = medians.pop("a run"), medians.pop("by hand")
    ratio = statistics.median(each["a run"] / each["by hand"] for each in found)
    return [
        Row(f"{which}: init, plan, show -json, apply by hand", 1000 * hand, "ms"),
        Row(f"{which}: auto-applied, enqueue to result", 1000 * ours, "ms"),
        at_most(f"{which}: against the commands by hand", ratio, target, "times"),
        *(
            Row(f"{which}: a {name} task of init, plan and apply under a lock", 1000 * seconds, "ms")
            for name, seconds in medians.items()
        ),
    ]


def _by_hand(root: Path) -> Side:
    def side(workspace: str, network: str) -> float:
        directory = _configuration(root / workspace)
        environment = terraform_environment() | {"TF_VAR_name": network}
        began = time.perf_counter()
        for command in BY_HAND:
            subprocess.run([terraform(), *command], cwd=directory, env=environment, check=True, stdout=subprocess.PIPE)
        return time.perf_counter() - began

    return side


def _by(alternative: Alternative, root: Path) -> Side:
    def side(workspace: str, network: str) -> float:
        directory = _configuration(root / workspace)
        environment = terraform_environment() | {"TF_VAR_name": network}
        began = time.perf_counter()
        alternative.enqueue(str(directory), terraform(), environment)()
        return time.perf_counter() - began

    return side


def _configuration(directory: Path) -> Path:
    if not directory.exists():
        shutil.copytree(EXAMPLE, directory)
    return directory


def _through_the_system(system: System) -> Side:
    known: set[str] = set()

    def side(workspace: str, network: str) -> float:
        if workspace not in known:
            known.add(create_workspace(system, workspace, EXAMPLE))
        began = time.perf_counter()
        run = enqueue(system, RunKind.PLAN_AND_APPLY, workspace, auto_apply=True, variables={"name": network})
        result = AsyncResult(run, app=system.celery).get(timeout=60)
        seconds = time.perf_counter() - began
        if network not in str(result["outputs"]):
            raise RuntimeError(f"the run has not applied {network}: {result}")
        return seconds

    return side
