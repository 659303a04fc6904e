"""Terraform's command line: what is asked of it, what its exit codes mean, and what is read from its JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.execution import Execution, Finished, PhaseFailed, Stopped
from agent.masking import MASKED
from agent.process import Sink
from agent.terraform_environment import exclusive, plugin_cache
from workers.protocol.kinds import FailureReason
from workers.protocol.messages import MAX_ERROR, MAX_OUTPUTS_BYTES, Changes

MAX_JSON_BYTES = 256 * 1024 * 1024
_PLAN_HAS_CHANGES = 2


@dataclass(frozen=True, slots=True)
class Terraform:
    """Terraform in one module's directory, for one phase.

    Every method raises :class:`PhaseFailed` with Terraform's own error text, :class:`Stopped` where the phase was
    stopped before the command succeeded, and ``OSError`` where it can't be started, or prints too much JSON.
    """

    execution: Execution
    command: Sequence[str]
    module: Path
    environment: Mapping[str, str] = field(repr=False)

    def init(self, *flags: str) -> None:
        """Install providers and modules, and connect the backend."""
        with exclusive(plugin_cache(self.environment), self.execution):
            self._run("init", "-input=false", *flags)

    def plan(self, plan: Path, *, variables: Path | None, destroy: bool, lock: bool) -> bool:
        """Write a plan file and return whether it holds anything to apply."""
        flags = ["-input=false", "-detailed-exitcode", f"-out={plan}"]
        flags += [f"-var-file={variables}"] if variables else []
        flags += ["-destroy"] if destroy else []
        flags += [] if lock else ["-lock=false"]
        return self._run("plan", *flags, good=(0, _PLAN_HAS_CHANGES)) == _PLAN_HAS_CHANGES

    def show(self, plan: Path) -> tuple[Changes, dict[str, Any]]:
        """Return what a plan file holds: its counts, and those outputs that are known before the apply."""
        return summary(self._read("show", str(plan)))

    def apply(self, plan: Path) -> None:
        """Apply a plan file."""
        self._run("apply", "-input=false", str(plan))

    def output(self) -> dict[str, Any]:
        """Return the outputs in the state; also when the phase was to be stopped, but the apply was done before."""
        return outputs(self._read("output", even_if_stopped=True))

    def _read(self, name: str, *arguments: str, even_if_stopped: bool = False) -> dict[str, Any]:
        found = bytearray()

        def collect(data: bytes) -> None:
            if len(found) + len(data) > MAX_JSON_BYTES:
                raise OSError(f"terraform {name} printed more than {MAX_JSON_BYTES} bytes of JSON")
            found.extend(data)

        self._run(name, "-json", *arguments, stdout=collect, even_if_stopped=even_if_stopped)
        value: dict[str, Any] = json.loads(found)
        return value

    def _run(
        self,
        name: str,
        *arguments: str,
        good: tuple[int, ...] = (0,),
        stdout: Sink | None = None,
        even_if_stopped: bool = False,
    ) -> int:
        finished = self.execution.run(
            [*self.command, name, "-no-color", *arguments],
            cwd=self.module,
            env=self.environment,
            stdout=stdout,
            title=None if stdout else f"$ terraform {name}",
            even_if_stopped=even_if_stopped,
        )
        if finished.code not in good:
            raise self._failure(name, finished)
        return finished.code

    def _failure(self, name: str, finished: Finished) -> PhaseFailed | Stopped:
        text = error_text(finished.errors)
        if self.execution.cause is not None:
            return Stopped(self.execution.cause, text)
        ended = f"was ended by signal {-finished.code}" if finished.code < 0 else f"exited with {finished.code}"
        return PhaseFailed(FailureReason.TERRAFORM_FAILED, text or f"terraform {name} {ended} and said nothing.")


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


def bounded(text: str, size: int) -> str:
    """Return the text, or its beginning and end with a mark between them if it is longer than ``size``."""
    if len(text) <= size:
        return text
    mark = "\n… (left out) …\n"
    half = (size - len(mark)) // 2
    return text[:half] + mark + text[-half:]


def summary(plan: Mapping[str, Any]) -> tuple[Changes, dict[str, Any]]:
    """Return the counts and the known outputs of ``show -json``. A replacement is an add and a destroy."""
    actions = [action for change in plan.get("resource_changes", ()) for action in change["change"]["actions"]]
    changes = Changes(add=actions.count("create"), change=actions.count("update"), destroy=actions.count("delete"))
    return changes, outputs(plan.get("planned_values", {}).get("outputs", {}))


def outputs(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return outputs by name; sensitive ones without their value, and none that is not known yet."""
    return {
        name: MASKED if output.get("sensitive") else output["value"]
        for name, output in values.items()
        if output.get("sensitive") or "value" in output
    }


def fitting(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the outputs that fit a message, in order, and the names of those that do not."""
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    room = MAX_OUTPUTS_BYTES
    for name, value in values.items():
        size = len(json.dumps({name: value}))
        if size > room:
            left_out.append(name)
        else:
            kept[name] = value
            room -= size
    return kept, left_out
