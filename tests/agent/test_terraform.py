"""What is read from Terraform's words and JSON."""

from __future__ import annotations

from typing import Any

import pytest

from agent.masking import MASKED
from agent.terraform import bounded, error_text, fitting, outputs, summary
from workers.protocol.messages import MAX_ERROR, MAX_OUTPUTS_BYTES, Changes


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
    assert summary(plan)[0] == Changes(add=4, change=1, destroy=3)


def test_a_plan_without_resources_and_outputs_counts_nothing() -> None:
    assert summary({}) == (Changes(), {})


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


def test_outputs_that_do_not_fit_are_left_out_by_name() -> None:
    kept, left_out = fitting({"a": "x" * 1000, "huge": "x" * MAX_OUTPUTS_BYTES, "b": 1})
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
