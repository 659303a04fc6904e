"""The record of an apply under way: what the agent's next process reads, and nothing else that stands in its place."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.apply_record import ApplyRecord
from agent.execution import StopCause, Stopped
from tests.agent.conftest import Bench, Configuration, of_apply
from workers.protocol.messages import Order

MakeOrder = Callable[..., Order]


def test_a_stop_is_on_record_until_the_apply_is_over(
    tmp_path: Path, bench: Bench, configuration: Configuration, make_order: MakeOrder
) -> None:
    record = ApplyRecord(tmp_path)
    execution = bench.execution(of_apply(make_order(configuration.source)))
    execution.changed = record.write
    execution.stop(StopCause.CANCELLED)
    found = record.read()
    assert found is not None
    assert (found.order, found.cause, found.ended) == (execution.order, StopCause.CANCELLED, False)
    record.remove(execution)
    execution.stop(StopCause.SHUTDOWN)
    assert record.read() is None
    assert list(tmp_path.glob("apply.json")) == []


def test_an_apply_that_was_begun_before_has_the_rest_of_its_time(
    bench: Bench, configuration: Configuration, make_order: MakeOrder
) -> None:
    execution = bench.execution(of_apply(make_order(configuration.source, timeout=60)), started_at=time.time() - 61)
    with pytest.raises(Stopped, match="timed_out"):
        execution.check()


@pytest.mark.parametrize("kind", ["plan", "text", "pipe", "directory"])
def test_what_is_no_apply_is_none(
    tmp_path: Path, configuration: Configuration, make_order: MakeOrder, kind: str
) -> None:
    """A configuration may have written it."""
    path = tmp_path / "apply.json"
    if kind == "plan":
        order = make_order(configuration.source).model_dump_json()
        path.write_text(f'{{"order": {order}, "started_at": 1}}')
    elif kind == "text":
        path.write_text("[" * 100_000)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    record = ApplyRecord(tmp_path)
    assert record.read() is None
    record.remove()
