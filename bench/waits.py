"""What people wait for and pay for, on one embedded system with the machine's Terraform and one agent."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench import burst, commands, large_provider, memory, whole_run
from bench.alternatives import running
from bench.pipe import listening
from bench.rows import Row, table
from bench.system import embedded


def measure(effort: float = 1.0) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="terraslot-bench-") as name:
        directory = Path(name)
        # The pipe is made when agents have started: only runs that are to tell of their commands know it.
        program = str(large_provider.program(directory))
        with embedded(flower=True, terraform=program) as system, listening() as pipe:
            at_rest = memory.rows(system, effort)
            with running(system.settings.redis_url) as alternatives:
                runs = whole_run.rows(system, alternatives, directory, effort)
            return [
                *runs,
                *large_provider.rows(system, pipe, directory, effort),
                *commands.rows(system, effort),
                *burst.rows(system, directory, effort),
                *at_rest,
            ]


if __name__ == "__main__":
    print(table(measure()))
