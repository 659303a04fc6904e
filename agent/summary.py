"""What is read from Terraform's JSON. As a program, for long ones: ``python -I summary.py plan|output FILE ROOM``.

The JSON of a plan may have hundreds of megabytes, and ten times that as Python's objects. The process that guards an
apply reads no more than :data:`SHORT` of it; the rest is read by a child of its own, whose memory is bounded, which the
kernel ends first where memory is short, and which prints no more than a report holds.

Imports nothing of the project, so that the program starts in an isolated Python.
"""

import json
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

SHORT = 2**20  # bytes
MEMORY = 3 * 2**30  # bytes of address space: ten times the longest JSON that is read, and Python
MASKED = "(sensitive)"
_NAMES = 100  # of outputs that do not fit


def summary(kind: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``add``, ``change``, ``destroy`` and ``outputs`` of a plan's JSON, or the ``outputs`` of an output's.

    A replacement is an add and a destroy. Of a plan's outputs, those that are known before the apply.
    """
    if kind == "output":
        return {"outputs": outputs(found)}
    actions = [action for change in found.get("resource_changes", ()) for action in change["change"]["actions"]]
    counts = {"add": actions.count("create"), "change": actions.count("update"), "destroy": actions.count("delete")}
    return {**counts, "outputs": outputs(found.get("planned_values", {}).get("outputs", {}))}


def outputs(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return outputs by name; sensitive ones without their value, and none that is not known yet."""
    return {
        name: MASKED if output.get("sensitive") else output["value"]
        for name, output in values.items()
        if output.get("sensitive") or "value" in output
    }


def fitting(values: Mapping[str, Any], room: int) -> tuple[dict[str, Any], list[str]]:
    """Return the outputs that fit into ``room`` bytes, in order, and the names of those that do not."""
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    for name, value in values.items():
        size = len(json.dumps({name: value}))
        if size > room:
            left_out.append(name)
        else:
            kept[name] = value
            room -= size
    return kept, left_out


def main(kind: str, path: str, room: str) -> None:
    """Print the summary of a file, with the outputs that fit into ``room`` bytes."""
    with suppress(OSError, ValueError):  # not everywhere
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        with Path(path).open("rb") as file:
            found = summary(kind, json.load(file))
    except MemoryError:
        sys.exit("to read it takes more memory than there is")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        sys.exit(f"it is something else: {error!r:.200}")
    kept, left_out = fitting(found["outputs"], int(room))
    print(json.dumps({**found, "outputs": kept, "left_out": left_out[:_NAMES]}))  # noqa: T201 - the agent reads it


if __name__ == "__main__":
    main(*sys.argv[1:])
