"""What a task's arguments ask for, and what is said of arguments that are invalid."""

from __future__ import annotations

from typing import Any

import pytest

from workers.protocol.errors import InvalidRequest
from workers.services.runs.submit import RunRequest

EARLIER_RESULTS = [{"run_id": "run-0", "status": "succeeded"}, ["a", "list"], "net-2", 7, None]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (["net"], {"priority": 3}),
        ([], {"workspace": "net", "priority": 3}),
    ],
    ids=["by position", "by name"],
)
def test_a_workspace_is_given_by_position_or_by_name_and_options_by_name(
    args: list[Any], kwargs: dict[str, Any]
) -> None:
    assert RunRequest.of_task(args, kwargs) == RunRequest(workspace="net", priority=3)
    assert RunRequest.of_task(args, kwargs, follows=True) == RunRequest(workspace="net", priority=3)


@pytest.mark.parametrize("earlier", EARLIER_RESULTS)
def test_what_stands_in_front_of_the_arguments_in_a_chain_is_ignored_whatever_it_is(earlier: Any) -> None:
    asked = RunRequest(workspace="net", priority=3)
    assert RunRequest.of_task([earlier], {"workspace": "net", "priority": 3}, follows=True) == asked
    assert RunRequest.of_task([earlier, "net"], {"priority": 3}, follows=True) == asked


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ([], {}, "workspace is not set"),
        (["a", "b"], {}, "One workspace is expected"),
        (["a"], {"workspace": "b"}, "One workspace is expected"),
        (["net"], {"priority": "high"}, "The request is invalid: priority='high': must be a whole number"),
        (["Net"], {}, "workspace='Net': a name has lower-case letters"),
        (["net"], {"password": "hunter2"}, r"password: there is no such field\.$"),
    ],
)
def test_what_is_invalid_is_named_with_what_is_allowed(args: list[Any], kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        RunRequest.of_task(args, kwargs)
    assert "hunter2" not in str(refused.value)
