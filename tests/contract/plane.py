"""A control plane of one version with agents of another, as processes; all that a test sees of them is public.

Which version a process is follows from its ``PYTHONPATH``. A control plane starts its agents with its own interpreter:
it is told that this is a script, which starts the real one on the other version's sources.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from celery import Celery
from celery.result import AsyncResult

from tests.waiting import eventually

POOL = "default"
ENCRYPTION_KEY = "8mRp2S9wJvT0hXqYc4yQWvB0vJmG2iN1oP3aKd5sL7E="
_CELERY = "import sys; sys.executable = {python!r}; from celery.__main__ import main; sys.exit(main())"
_READER = "import sys; from workers.reports import main; sys.exit(main())"
_CLI = "import sys; sys.argv[0] = 'terraslot'; from workers.cli.main import main; main()"
_WORKER = ("--pool=threads", "--without-gossip", "--without-mingle", "--loglevel=WARNING")
_TERRAFORM = """#!/bin/sh
case "$1" in plan) gate="$HOLD_PLAN" ;; apply) gate="$HOLD_APPLY" ;; esac
if [ -n "$gate" ]; then until [ -e "$gate" ]; do sleep 0.05; done; fi
exec {terraform} "$@"
"""
_CODE = """
resource "terraform_data" "it" { input = "hello" }
output "greeting" { value = terraform_data.it.output }
"""
_LIMITS = {"max_agents": 4, "idle_timeout": 600, "step": 4}
_TIMEOUTS = {"silent": 3, "dead": 6, "redeem": 20, "interrupt": 10}


@dataclass
class Plane:
    """A home and its Redis, on which control planes of any version can run, one after the other."""

    home: Path
    redis_url: str
    terraform: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home.mkdir()
        self.app = Celery("caller", broker=self.redis_url, backend=self.redis_url, set_as_current=False)
        program = self.home / "terraform"
        program.write_text(_TERRAFORM.replace("{terraform}", self.terraform))
        program.chmod(0o755)

    def environment(self, sources: Path) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TERRASLOT_", "TF_"))}
        return {
            **kept,
            "PYTHONPATH": str(sources),
            "TERRASLOT_HOME": str(self.home),
            "TERRASLOT_REDIS_URL": self.redis_url,
            "TERRASLOT_ENCRYPTION_KEYS": ENCRYPTION_KEY,
            "TERRASLOT_TERRAFORM": str(self.home / "terraform"),
            "TERRASLOT_CYCLE_SECONDS": "0.5",
            "TERRASLOT_DISPATCH_SECONDS": "1",
            "TERRASLOT_HEARTBEAT_SECONDS": "1",
        }

    def cli(self, sources: Path, *arguments: str, stdin: str = "") -> Any:
        """Run a command of the CLI of these sources; return its JSON document, if it prints one."""
        done = subprocess.run(
            [sys.executable, "-c", _CLI, *arguments],
            env=self.environment(sources), cwd=self.home, input=stdin, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout) if "--json" in arguments else None

    @contextmanager
    def control(self, sources: Path, agents: Path) -> Iterator[None]:
        """Run a control plane of ``sources`` whose agents are of ``agents``. The agents go on when it ends."""
        self.cli(sources, "migrate")
        pool = {"name": POOL, "limits": _LIMITS, "timeouts": _TIMEOUTS}
        started: list[subprocess.Popen[bytes]] = []
        try:
            for name, program, arguments in (
                ("control", _CELERY, ("-A", "workers", "worker", "-n", "control@contract", "-c", "4", *_WORKER)),
                ("reports", *_reports(sources)),
                ("beat", _CELERY, ("-A", "workers", "beat", "--loglevel=WARNING")),
            ):
                started.append(self._start(sources, agents, name, program, arguments))
            self.cli(sources, "pool", "apply", "-f", "-", stdin=yaml.safe_dump(pool))
            yield
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                process.wait(30)

    def _start(
        self, sources: Path, agents: Path, name: str, program: str, arguments: tuple[str, ...]
    ) -> subprocess.Popen[bytes]:
        python = self.home / f"python-for-{agents.name}"
        python.write_text(f'#!/bin/sh\nPYTHONPATH="{agents}" exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        with (self.home / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", program.format(python=str(python)), *arguments],
                env=self.environment(sources), cwd=self.home, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def workspace(self, sources: Path, name: str, **environment: str) -> str:
        directory = self.home / "code" / name
        directory.mkdir(parents=True)
        (directory / "main.tf").write_text(_CODE)
        given = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
        self.cli(sources, "workspace", "create", name, "--path", str(directory), "--pool", POOL, *given)
        return name

    def apply(self, workspace: str, **options: Any) -> AsyncResult:
        return self.app.send_task("terraform.plan_and_apply", kwargs={"workspace": workspace, **options})

    def tell(self, verb: str, run: AsyncResult) -> dict[str, Any]:
        return self.app.send_task(f"terraform.{verb}", args=[run.id]).get(timeout=120)

    def reach(self, run: AsyncResult, state: str) -> dict[str, Any]:
        """Wait until a run's Celery state is this one; return what it says of the run then."""

        def reached() -> bool:
            now = run.state
            assert now == state or not run.ready(), f"{now} instead of {state}: {run.result}\n{self.logs()}"
            return now == state

        eventually(reached, 60)
        return run.info

    def started(self, sources: Path, run: AsyncResult) -> dict[str, Any]:
        """Wait until Terraform has started for a run; return the run."""

        def starts() -> dict[str, Any] | None:
            shown = self.cli(sources, "show", run.id, "--json")
            return shown if shown["started_at"] else None

        return eventually(starts, 60) or {}

    def agents(self) -> dict[str, int]:
        """Return the living agents' process ids, by name."""
        records = self.home.glob(f"pods/{POOL}/*/pod.json")
        found = {record.parent.name: json.loads(record.read_text())["pid"] for record in records}
        return {name: pid for name, pid in found.items() if Path(f"/proc/{pid}").exists()}

    def sources_of(self, agent: str) -> str:
        """Return which sources an agent runs from; nothing for one that has ended."""
        try:
            environ = Path(f"/proc/{self.agents()[agent]}/environ").read_bytes().decode().split("\0")
        except (KeyError, FileNotFoundError, ProcessLookupError):  # it ends just now
            return ""
        return dict(line.partition("=")[::2] for line in environ if line)["PYTHONPATH"]

    def end_agents(self) -> None:
        for pid in self.agents().values():
            os.kill(pid, signal.SIGTERM)
        eventually(lambda: not any(_runs(pid) for pid in self.agents().values()), 60)

    def logs(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in self.home.rglob("*.log"))


def _reports(sources: Path) -> tuple[str, tuple[str, ...]]:
    """Return the program that reads reports, and its arguments: before 0.2 it was a Celery worker."""
    if "Reader" in (sources / "workers" / "reports.py").read_text():
        return _READER, ()
    return _CELERY, ("-A", "workers.reports", "worker", "-n", "reports@contract", "-c", "2", *_WORKER)


def _runs(pid: int) -> bool:
    """Whether a process does anything; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
