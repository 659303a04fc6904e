"""From enqueueing a plan to Terraform's process, on a warm agent, against plain Celery's enqueue-to-start.

Everything is the product's own; only "Terraform" is a script that first reports its start. Both sides alternate: so
other load on the machine affects both alike. So do the tasks that a team would write instead.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from bench import plain
from bench.alternatives import Alternative, running
from bench.pipe import PIPE, Pipe, listening
from bench.rows import Row, at_most, share, table
from bench.system import POOL, create_workspace, embedded, enqueue, eventually, state, worker
from workers.protocol.kinds import RunKind
from workers.services.system import System
from workers.store import workspace_queue

SAMPLES = 200
OF_OTHERS = 40
TASKS = 300
WARM_UP = 10
WAITING = 1_000
SETTLE = 0.02
TERRAFORM = """#!/bin/sh
case "$1" in
  init) [ -z "$HOLDS_SLOT" ] && echo started > "$BENCH_PIPE" ;;
  plan) [ -z "$HOLDS_SLOT" ] || exit 2 ;;
  show) echo '{}' ;;
esac
exit 0
"""


def measure(effort: float = 1.0) -> list[Row]:
    """Measure, with an empty queue and with a long one."""
    with tempfile.TemporaryDirectory(prefix="terraslot-bench-") as directory, listening() as pipe:
        code, terraform = Path(directory, "code"), Path(directory, "terraform")
        code.mkdir()
        (code / "main.tf").write_text('output "nothing" { value = "" }\n')
        terraform.write_text(TERRAFORM)
        terraform.chmod(0o755)
        with embedded(terraform=str(terraform)) as system, worker("bench.plain", "plain@bench"):
            told = {PIPE: str(pipe.path)}
            create_workspace(system, "measured", code, environment=told)
            _warm_up(system, pipe, share(effort, WARM_UP))
            samples, waiting = share(effort, SAMPLES, least=2), share(effort, WAITING)
            found = _compare(system, pipe, samples, "")
            with running(system.settings.redis_url) as alternatives:
                found += _others(system, pipe, alternatives, str(terraform), share(effort, OF_OTHERS))
                found += _rates(alternatives, share(effort, TASKS))
            _let_wait(system, code, told, waiting)
            return found + _compare(system, pipe, samples, f", {waiting} runs waiting")


def _others(system: System, pipe: Pipe, others: list[Alternative], terraform: str, samples: int) -> list[Row]:
    found = [[_run(system, pipe), *(_other(each, pipe, terraform) for each in others)] for _ in range(samples)]
    ours, *theirs = (1000 * statistics.median(side) for side in zip(*found, strict=True))
    return [
        row
        for other, median in zip(others, theirs, strict=True)
        for row in (
            Row(f"{other.name} task under a lock, enqueue to Terraform's process: median", median, "ms"),
            Row(f"enqueue to Terraform's process: against {other.name}'s", ours / median, "times"),
        )
    ]


def _rates(others: list[Alternative], count: int) -> list[Row]:
    name = "tasks a second, with a lock and nothing to execute"
    return [Row(f"{each.name} {name}", _rate(each, count), "1/s") for each in others]


def _rate(other: Alternative, count: int) -> float:
    began = time.perf_counter()
    ends = [other.enqueue(f"/{number}", None, {}) for number in range(count)]
    for end in ends:
        end()
    return count / (time.perf_counter() - began)


def _other(other: Alternative, pipe: Pipe, terraform: str) -> float:
    time.sleep(SETTLE)
    began = time.perf_counter()
    ended = other.enqueue("/", terraform, {PIPE: str(pipe.path)})
    seconds = pipe.wait() - began
    ended()
    return seconds


def _compare(system: System, pipe: Pipe, samples: int, situation: str) -> list[Row]:
    pairs = [(_plain(system, pipe), _run(system, pipe)) for _ in range(samples)]
    bare, ours = ([1000 * seconds for seconds in side] for side in zip(*pairs, strict=True))
    median, bare_median = statistics.median(ours), statistics.median(bare)
    # Targets are for a pool that keeps up; with a queue the question is how the figures change.
    row = _free if situation else at_most
    return [
        Row(f"plain Celery, enqueue to start{situation}: median", bare_median, "ms"),
        Row(f"enqueue to Terraform's process{situation}: median", median, "ms"),
        row(f"enqueue to Terraform's process{situation}: 99th percentile", _percentile(ours, 99), 50, "ms"),
        row(f"enqueue to Terraform's process{situation}: against plain Celery", median / bare_median, 3.4, "times"),
    ]


def _free(name: str, value: float, _limit: float, unit: str) -> Row:
    return Row(name, value, unit)


def _run(system: System, pipe: Pipe) -> float:
    time.sleep(SETTLE)  # until what follows the last run is done
    began = time.perf_counter()
    run = enqueue(system, RunKind.PLAN, "measured")
    seconds = pipe.wait() - began
    eventually(lambda: state(system, run) == "SUCCESS")
    return seconds


def _plain(system: System, pipe: Pipe) -> float:
    time.sleep(SETTLE)
    began = time.perf_counter()
    plain.send(system.celery, plain.NOTHING)
    return pipe.wait() - began


def _warm_up(system: System, pipe: Pipe, rounds: int) -> None:
    for _ in range(rounds):
        _plain(system, pipe)
        _run(system, pipe)


def _let_wait(system: System, code: Path, environment: dict[str, str], count: int) -> None:
    """Have a run keep slot 0 for its confirmation, and many others wait for it."""
    holder = create_workspace(system, "holder", code, environment={"HOLDS_SLOT": "1"})
    held = enqueue(system, RunKind.PLAN_AND_APPLY, holder)
    eventually(lambda: state(system, held) == "APPLY_PENDING")
    waiting = [create_workspace(system, f"waiting{number}", code, environment=environment) for number in range(count)]
    for workspace in waiting:
        enqueue(system, RunKind.PLAN_AND_APPLY, workspace)
    eventually(lambda: _waiting(system) == count)


def _waiting(system: System) -> int:
    with system.database.read() as session:
        return workspace_queue.pending_by_requirement(session, POOL).get((RunKind.PLAN_AND_APPLY, None), 0)


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


if __name__ == "__main__":
    print(table(measure()))
