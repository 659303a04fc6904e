"""What is read from Terraform's words and JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.summary import MASKED, fitting, outputs, summary
from agent.terraform import bounded, error_text
from workers.protocol.messages import MAX_ERROR, MAX_OUTPUTS_BYTES


def change(*actions: str) -> dict[str, Any]:
    return {"change": {"actions": list(actions)}}


def test_a_replacement_is_an_add_and_a_destroy() -> None:
    plan = {
        "resource_changes": [
            change("create"),
            change("create"),
            change("update"),
            change("delete"),
            change("delete", "create"),
            change("create", "delete"),
            change("no-op"),
            change("read"),
        ]
    }
    assert summary("plan", plan) == {"add": 4, "change": 1, "destroy": 3, "outputs": {}}


def test_a_plan_without_resources_and_outputs_counts_nothing() -> None:
    assert summary("plan", {}) == {"add": 0, "change": 0, "destroy": 0, "outputs": {}}


def test_outputs_are_shown_when_known_and_never_when_sensitive() -> None:
    values = {
        "known": {"sensitive": False, "value": [1, {"a": None}]},
        "unknown": {"sensitive": False},
        "secret": {"sensitive": True, "value": "hunter2"},
        "unknown_secret": {"sensitive": True},
        "nothing": {"sensitive": False, "value": None},
    }
    assert outputs(values) == {
        "known": [1, {"a": None}],
        "secret": MASKED,
        "unknown_secret": MASKED,
        "nothing": None,
    }


LARGE = """
import json, resource, sys
from pathlib import Path
from agent.terraform import Terraform
from tests.agent.conftest import Bench
from workers.protocol.messages import Order
work, source = Path(sys.argv[1]), {"type": "directory", "path": sys.argv[1]}
order = Order(run="run-1", workspace="net", kind="plan", phase="plan", slot=0, token="x" * 16, source=source,
              timeout=60, interrupt_grace=5)
bench = Bench(work / "work")
terraform = Terraform(bench.execution(order), [str(work / "terraform")], work, {"PATH": "/usr/bin:/bin"})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    changes, outputs = terraform.show(work / "plan")
    print(json.dumps([changes.add, outputs, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
except OSError as error:
    print(json.dumps(str(error)))
"""


def show_of(tmp_path: Path, plan: str) -> Any:
    """Return what an agent makes of a plan's JSON, in a process of its own."""
    (tmp_path / "plan.json").write_text(plan)
    (tmp_path / "terraform").write_text(f"#!/bin/sh\ncat {tmp_path}/plan.json\n")
    (tmp_path / "terraform").chmod(0o755)
    argv = [sys.executable, "-c", LARGE, str(tmp_path)]
    said = subprocess.run(argv, check=True, capture_output=True, timeout=120).stdout
    return json.loads(said.splitlines()[-1])


def test_a_large_plan_is_read_by_another_process_and_costs_the_agent_no_memory(tmp_path: Path) -> None:
    one = json.dumps({"address": "a" * 400, **change("create"), "after": [{"a": 1}] * 20})
    plan = f'{{"planned_values": {{"outputs": {{"o": {{"value": 1}}, "huge": {{"value": "{"x" * 70_000}"}}}}}},'
    plan += f'"resource_changes": [{",".join([one] * 20_000)}]}}'
    assert len(plan) > 12_000_000
    added, outputs, kilobytes = show_of(tmp_path, plan)
    assert (added, outputs) == (20_000, {"o": 1})
    assert kilobytes < 16_000
    assert not list((tmp_path / "work" / "runs" / "run-1" / "output").glob("*-1.kept"))


@pytest.mark.parametrize("size", [1, 2_000_000])
def test_what_is_no_plan_says_so(tmp_path: Path, size: int) -> None:
    assert "something else" in show_of(tmp_path, "[" + "1," * size)


def test_outputs_that_do_not_fit_are_left_out_by_name() -> None:
    kept, left_out = fitting({"a": "x" * 1000, "huge": "x" * MAX_OUTPUTS_BYTES, "b": 1}, MAX_OUTPUTS_BYTES)
    assert list(kept) == ["a", "b"]
    assert left_out == ["huge"]


ERRORS = """\
Warning: Something is old

  on main.tf line 1

Error: Invalid reference

  on main.tf line 3, in resource "x" "y":
   3:   a = b

A reference needs a name.
Warning: Something else

Error: Second
""".splitlines()


def test_the_error_is_terraforms_own_without_its_warnings() -> None:
    text = error_text(ERRORS)
    assert text is not None
    assert text.startswith("Error: Invalid reference\n\n  on main.tf line 3")
    assert text.endswith("A reference needs a name.\n\nError: Second")
    assert "Warning" not in text


def test_an_error_in_a_box_is_the_same_error() -> None:
    assert error_text(["╷", "│ Error: No", "│ ", "│ Because.", "╵"]) == "Error: No\n\nBecause."


def test_words_without_an_error_block_are_better_than_none() -> None:
    assert error_text(["panic: oh no", "goroutine 1"]) == "panic: oh no\ngoroutine 1"
    assert error_text([]) is None


@pytest.mark.parametrize("size", [100, MAX_ERROR])
def test_a_long_error_keeps_its_beginning_and_its_end(size: int) -> None:
    text = bounded("begin " + "x" * 100_000 + " end", size)
    assert len(text) <= size
    assert text.startswith("begin")
    assert text.endswith("end")
    assert "left out" in text
