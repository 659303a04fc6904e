"""What is read from Terraform's words and JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.summary import MASKED, attributes, fitting, outputs, summary
from agent.terraform import bounded, error_text
from workers.protocol.messages import MAX_ERROR, MAX_OUTPUTS_BYTES
from workers.protocol.plan_detail import PlanDetail

ROOM = 64_000


def change(*actions: str) -> dict[str, Any]:
    return {"address": "a.b", "change": {"actions": list(actions)}}


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
    found = summary("plan", plan, ROOM)
    assert {name: found[name] for name in ("add", "change", "destroy")} == {"add": 4, "change": 1, "destroy": 3}
    actions = [resource["action"] for resource in found["plan"]["resources"]]
    assert actions == ["delete", "replace", "replace", "update", "create", "create", "read"]


def test_a_plan_without_resources_and_outputs_counts_nothing() -> None:
    found = {"add": 0, "change": 0, "destroy": 0, "outputs": {}, "plan": {"resources": []}}
    assert summary("plan", {}, ROOM) == found


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


def changed(before: Any, after: Any, **marks: Any) -> dict[str, dict[str, Any]]:
    """Return the attributes that change, by path."""
    found = {each["path"]: each for each in attributes({"before": before, "after": after, **marks})}
    return {path: {name: value for name, value in each.items() if name != "path"} for path, each in found.items()}


def test_attributes_that_change_are_told_one_by_one_as_deep_as_they_are() -> None:
    before = {"same": 1, "tags": {"a b": 1, "c": 2}, "ports": [1, 2], "rules": [{"p": 1}, {"p": 2}], "gone": "x"}
    after = {"same": 1, "tags": {"a b": 2, "c": 2}, "ports": [1], "rules": [{"p": 1}, {"p": 3}, {"p": 4}], "gone": None}
    assert changed(before, after, after_unknown={"id": True}) == {
        'tags["a b"]': {"before": 1, "after": 2},
        "ports": {"before": [1, 2], "after": [1]},
        "rules[1].p": {"before": 2, "after": 3},
        "rules[2].p": {"after": 4},
        "gone": {"before": "x"},
        "id": {"unknown": True},
    }


SENSITIVE = "hunter2"


@pytest.mark.parametrize("marks", [{"before_sensitive": True}, {"after_sensitive": True}])
def test_a_resource_that_is_sensitive_as_a_whole_tells_nothing(marks: dict[str, Any]) -> None:
    assert changed({"a": SENSITIVE}, {"a": 1}, **marks) == {"": {"before": MASKED, "after": MASKED, "sensitive": True}}


@pytest.mark.parametrize(
    ("before", "after", "mark"),
    [
        (SENSITIVE, "other", True),
        ([SENSITIVE, 1], [1], [True, False]),
        ({"b": {"c": SENSITIVE}}, "was an object", {"b": {"c": True}}),
        ([{"b": SENSITIVE}], {"b": SENSITIVE}, [{"b": True}]),
        (SENSITIVE, None, True),
        ({"b": SENSITIVE, "c": 1}, {"b": 2, "c": 2}, {"b": True}),
    ],
)
@pytest.mark.parametrize("turned_around", [False, True])
def test_what_terraform_marks_is_told_on_neither_side(before: Any, after: Any, mark: Any, turned_around: bool) -> None:
    pair = [({"a": before}, {"a": mark}), ({"a": after}, False)]
    (old, old_mark), (new, new_mark) = pair[::-1] if turned_around else pair
    found = changed(old, new, before_sensitive=old_mark, after_sensitive=new_mark)
    assert any(each.get("sensitive") for each in found.values())
    assert SENSITIVE not in json.dumps(found)


def planned(action: str, address: str, attributes: int = 0, value: str = "x") -> dict[str, Any]:
    after = {f"a{number}": value for number in range(attributes)}
    return {"address": address, "change": {"actions": [action], "before": None, "after": after}}


def test_of_a_large_plan_what_is_destroyed_is_kept_and_what_is_left_out_is_counted() -> None:
    creates = [planned("create", f"new.r[{number}]", 50, "x" * 100) for number in range(2_000)]
    plan = {"resource_changes": [*creates, planned("delete", "old.r")]}
    found = summary("plan", plan, ROOM)["plan"]
    assert len(json.dumps(found)) <= ROOM
    assert found["resources"][0]["address"] == "old.r"
    assert len(found["resources"]) + found["left_out"]["create"] == 2_001
    PlanDetail.model_validate(found)


def test_one_resource_does_not_take_the_room_of_all_and_says_what_it_lacks() -> None:
    plan = {"resource_changes": [planned("update", "a.big", 1_000, "x" * 500), planned("update", "a.small", 2)]}
    big, small = summary("plan", plan, ROOM)["plan"]["resources"]
    assert len(big["attributes"]) + big["attributes_left_out"] == 1_000
    assert (len(small["attributes"]), "attributes_left_out" in small) == (2, False)


def test_a_value_a_path_and_an_address_that_are_too_long_are_left_out_and_said() -> None:
    after = {"large": "x" * 3_000, "y" * 600: 1, "deep": json.loads("[" * 400 + "]" * 400)}
    change = {"actions": ["update"], "before": {}, "after": after}
    plan = {"resource_changes": [{"address": "a.b", "change": change}, planned("delete", f'a.b["{"k" * 2_000}"]')]}
    found = summary("plan", plan, ROOM)["plan"]
    (resource,) = found["resources"]
    assert found["left_out"] == {"delete": 1}
    assert [each["large"] for each in resource["attributes"]] == [["after"], ["after"]]
    assert resource["attributes_left_out"] == 1
    PlanDetail.model_validate(found)


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
    changes, outputs, detail = terraform.show(work / "plan")
    assert len(json.dumps(detail)) <= 64_000 and detail["left_out"]["create"] + len(detail["resources"]) == 20_000
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
    one = json.dumps({**change("create"), "address": "a" * 400, "after": [{"a": 1}] * 20})
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
