"""Terraform's command line: what is asked of it, what its exit codes mean, and what is read from its JSON."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import summary
from agent.apply_messages import ApplyMessages
from agent.execution import Execution, Finished, PhaseFailed, Stopped
from agent.files import read_regular
from agent.locks import exclusive
from agent.terraform_environment import plugin_cache
from workers.protocol.kinds import FailureReason, RunKind
from workers.protocol.messages import MAX_ERROR, MAX_OUTPUTS_BYTES, Changes, Order
from workers.protocol.plan_detail import MAX_PLAN_BYTES

MAX_JSON_BYTES = 256 * 1024 * 1024
LOCK_SECONDS = 60  # for which a lock that somebody holds is waited for
_PLAN_HAS_CHANGES = 2
_WAITS = "Waiting for another init that uses the same plugin cache."
_WANTS_INIT = re.compile(
    r"\b(?:terraform|tofu)\s+init\b|^Error: (?:Required plugins are not installed|Inconsistent dependency lock file)",
    re.MULTILINE,
)
_NOTHING_MORE: Mapping[str, str] = {}
# A quarter less processor time. Providers inherit it: only for commands in which they tell their schemas at most.
_RARELY_COLLECTED = {"GOGC": "400"}


@dataclass(frozen=True, slots=True)
class Terraform:
    """Terraform in one module's directory, for one phase.

    Every method raises :class:`PhaseFailed` with Terraform's own error text, :class:`Stopped` where the phase was
    stopped before the command succeeded, and ``OSError`` where it can't be started, or its JSON can't be read.
    """

    execution: Execution
    command: Sequence[str]
    module: Path
    environment: Mapping[str, str] = field(repr=False)

    def init(self, *flags: str, environment: Mapping[str, str] = _NOTHING_MORE) -> None:
        """Install providers and modules, and connect the backend. ``environment``: beside that of every command."""
        with exclusive(plugin_cache(self.environment, self.module), self.execution, _WAITS):
            self._run("init", "-input=false", *flags, environment={**_RARELY_COLLECTED, **environment})

    @staticmethod
    def wants_init(failed: PhaseFailed) -> bool:
        """Whether a command has failed for want of an ``init``. A configuration may say so as well."""
        return bool(_WANTS_INIT.search(failed.text))

    def plan(self, plan: Path, *, variables: Path | None, lock_seconds: int | None = None) -> bool:
        """Write a plan file and return whether it holds anything to apply.

        ``lock_seconds``: for which a held lock is waited for; as long as usual by default.
        """
        order = self.execution.order
        flags = ["-input=false", "-detailed-exitcode", f"-out={plan}", *planning_flags(order), *self._parallelism]
        flags += [f"-var-file={variables}"] if variables else []
        flags += ["-lock=false"] if order.kind is RunKind.PLAN else self._lock_timeout("plan", lock_seconds)
        return self._run("plan", *flags, good=(0, _PLAN_HAS_CHANGES)).code == _PLAN_HAS_CHANGES

    def show(self, plan: Path) -> tuple[Changes, dict[str, Any], dict[str, Any]]:
        """Return what a plan file holds: its counts, outputs that are known before the apply, and resource changes."""
        found = self._summary("plan", "show", str(plan))
        counts = Changes.model_validate({name: found[name] for name in ("add", "change", "destroy")})
        return counts, found["outputs"], found["plan"]

    def apply(self, plan: Path) -> dict[str, Any] | None:
        """Apply a plan file, or go on with the apply of it that a previous process of this agent has begun.

        Returns the outputs, sensitive ones without their value; None where they are to be asked for.
        """
        messages = ApplyMessages(self.execution.progress)
        flags = ["-json", "-input=false", *self._lock_timeout("apply"), *self._parallelism]
        self._run("apply", *flags, str(plan), lasting=True, messages=messages)
        return None if messages.outputs is None else summary.outputs(messages.outputs)

    def push_state(self, state: Path, *, lock_seconds: int | None = None) -> None:
        """Make a state that was not saved the workspace's; nothing where it is already.

        Terraform refuses it where a newer one is there, or one of another lineage. It gives a state a new lineage where
        there was none, so that a repeated push is known by what the states hold.
        """
        try:
            seconds = LOCK_SECONDS if lock_seconds is None else lock_seconds
            self._run("state push", f"-lock-timeout={seconds}s", str(state))
        except PhaseFailed:
            if not self._has(state):
                raise
            self.execution.log.write("The state is there already.")

    def end_lock(self, lock: str) -> None:
        """End the lock of this id."""
        self._run("force-unlock", "-force", "--", lock)

    def output(self) -> dict[str, Any]:
        """Return the outputs in the state; also when the phase was to be stopped, but the apply was done before."""
        found: dict[str, Any] = self._summary("output", "output", even_if_stopped=True)["outputs"]
        return found

    def _has(self, state: Path) -> bool:
        """Whether the workspace's state holds the same; not known of long ones."""
        pulled = None
        try:
            pulled = self._run("state pull", keep_stdout=summary.SHORT).stdout
            there, wanted = (json.loads(read_regular(path)) for path in (pulled, state))
            return all(there[name] == wanted[name] for name in ("resources", "outputs"))
        except (PhaseFailed, OSError, ValueError, LookupError, TypeError, RecursionError):
            return False
        finally:
            if pulled is not None:
                pulled.unlink(missing_ok=True)

    def lock_probe(self, module: Path) -> str:
        """Return what a plan of another module prints as JSON that waits for no lock."""
        argv = [*self.command, "plan", "-json", "-input=false", "-refresh=false", "-lock-timeout=0s"]
        environment = {name: value for name, value in self.environment.items() if not name.startswith("TF_CLI_ARGS")}
        finished = self.execution.run(argv, cwd=module, env=environment, keep_stdout=summary.SHORT)
        try:
            return read_regular(finished.stdout).decode(errors="replace")
        finally:
            finished.stdout.unlink(missing_ok=True)

    def _lock_timeout(self, command: str, seconds: int | None = None) -> list[str]:
        """Return the flag for how long a held lock is waited for, unless the workspace's environment says that."""
        if seconds is not None:
            return [f"-lock-timeout={seconds}s"]
        given = (self.environment.get(name, "") for name in ("TF_CLI_ARGS", f"TF_CLI_ARGS_{command}"))
        return [] if any("-lock-timeout" in each for each in given) else [f"-lock-timeout={LOCK_SECONDS}s"]

    @property
    def _parallelism(self) -> list[str]:
        parallelism = self.execution.order.options.parallelism
        return [f"-parallelism={parallelism}"] if parallelism else []

    def _summary(self, kind: str, name: str, *arguments: str, even_if_stopped: bool = False) -> dict[str, Any]:
        finished = self._run(
            name,
            "-json",
            *arguments,
            environment=_RARELY_COLLECTED,
            keep_stdout=MAX_JSON_BYTES,
            even_if_stopped=even_if_stopped,
        )
        found = finished.stdout
        try:
            if found.stat().st_size <= summary.SHORT:
                return summary.summary(kind, summary.parsed(read_regular(found)), MAX_PLAN_BYTES)
            return self._summary_of_long(kind, found, even_if_stopped=even_if_stopped)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise OSError(f"terraform {name} -json printed something else ({error!r:.200})") from error
        finally:
            found.unlink(missing_ok=True)

    def _summary_of_long(self, kind: str, found: Path, *, even_if_stopped: bool) -> dict[str, Any]:
        rooms = str(MAX_OUTPUTS_BYTES), str(MAX_PLAN_BYTES)
        program = [sys.executable, "-I", summary.__file__, kind, str(found), *rooms]
        finished = self.execution.run(
            program, cwd=self.module, env={}, keep_stdout=summary.SHORT, even_if_stopped=even_if_stopped
        )
        if finished.code != 0:
            why = finished.errors[-1] if finished.errors else f"its reader was ended with {finished.code}"
            raise OSError(f"Terraform printed {found.stat().st_size / 2**20:.0f} MiB of JSON, and {why}")
        value: dict[str, Any] = summary.parsed(read_regular(finished.stdout))
        for left_out in value.pop("left_out"):
            self.execution.log.write(too_large(left_out))
        return value

    def _run(
        self,
        name: str,
        *arguments: str,
        good: tuple[int, ...] = (0,),
        keep_stdout: int | None = None,
        lasting: bool = False,
        messages: ApplyMessages | None = None,
        environment: Mapping[str, str] = _NOTHING_MORE,
        even_if_stopped: bool = False,
    ) -> Finished:
        finished = self.execution.run(
            [*self.command, *name.split(), "-no-color", *arguments],
            cwd=self.module,
            env={**environment, **self.environment},
            keep_stdout=keep_stdout,
            title=None if keep_stdout else f"$ terraform {name}",
            lasting=lasting,
            messages=messages,
            even_if_stopped=even_if_stopped,
        )
        if finished.code not in good:
            raise self._failure(name, finished)
        return finished

    def _failure(self, name: str, finished: Finished) -> PhaseFailed | Stopped:
        text = error_text(finished.errors)
        if self.execution.cause is not None:
            return Stopped(self.execution.cause, text)
        if finished.code is None:
            sentence = "The agent was lost, and Terraform ended before it was started again: how is not known."
            return PhaseFailed(FailureReason.AGENT_LOST, f"{sentence}\n\n{text}" if text else sentence)
        ended = f"was ended by signal {-finished.code}" if finished.code < 0 else f"exited with {finished.code}"
        return PhaseFailed(FailureReason.TERRAFORM_FAILED, text or f"terraform {name} {ended} and said nothing.")


def planning_flags(order: Order) -> list[str]:
    """Return the flags of ``terraform plan`` that say what is to be planned. Every value has been validated."""
    options = order.options
    return [
        *(["-destroy"] if order.destroy else []),
        *(["-refresh-only"] if options.refresh_only else []),
        *(f"-target={address}" for address in options.targets),
        *(f"-replace={address}" for address in options.replace),
    ]


def error_text(lines: Sequence[str]) -> str | None:
    """Return Terraform's error blocks of what it wrote to stderr, or all of it if there are none."""
    blocks: list[str] = []
    inside = False
    for line in (line.removeprefix("│ ") for line in lines if line not in ("╷", "╵", "│")):
        if line.startswith(("Error: ", "Warning: ")):
            inside = line.startswith("Error: ")
            blocks += [""] if inside and blocks and blocks[-1] else []
        if inside:
            blocks.append(line)
    text = "\n".join(blocks if blocks else lines).strip()
    return bounded(text, MAX_ERROR) or None


def too_large(output: str) -> str:
    """Return the line of the log about an output that does not fit into a report."""
    return f"The output '{output:.200}' is too large for the run's record, and left out of it."


def bounded(text: str, size: int) -> str:
    """Return the text, or its beginning and end with a mark between them if it is longer than ``size``."""
    if len(text) <= size:
        return text
    mark = "\n… (left out) …\n"
    half = (size - len(mark)) // 2
    return text[:half] + mark + text[-half:]
