"""``python -m bench --check``: which figures are an error, and what is said of them."""

from __future__ import annotations

import pytest

from bench.__main__ import main, verdict
from bench.rows import Row, at_least, at_most, table


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (at_most("latency", 3.4, 3.4, "times"), 0),
        (at_most("latency", 3.73, 3.4, "times"), 0),
        (at_most("latency", 3.75, 3.4, "times"), 1),
        (at_least("runs a second", 110, 110, "1/s"), 0),
        (at_least("runs a second", 100, 110, "1/s"), 0),
        (at_least("runs a second", 98, 110, "1/s"), 1),
        (Row("plain Celery", 1e9, "ms"), 0),
    ],
    ids=lambda value: str(getattr(value, "value", value)),
)
def test_a_target_that_is_missed_by_more_than_a_tenth_is_an_error(row: Row, code: int) -> None:
    assert verdict([row]) == code


def test_what_has_failed_is_named_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        at_most("a slot", 1.5, 1.2, "times"),
        at_most("a start", 3.5, 3.4, "times"),
        at_least("runs", 55, 110, "1/s"),
    ]
    assert verdict(rows) == 1
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "Missed by 25%: a slot: 1.50 times, not <= 1.2.",
        "Missed by 50%: runs: 55.00 1/s, not >= 110.",
    ]


def test_the_table_marks_every_target_that_is_missed() -> None:
    rows = [at_most("a slot", 1.25, 1.2, "times"), at_most("a start", 3.4, 3.4, "times"), Row("hop", 3, "ms")]
    slot, start, hop = table(rows).splitlines()
    assert slot.endswith("<= 1.2  MISSED by 4%")
    assert start.endswith("<= 3.4  ok")
    assert hop.endswith("ms")


def test_a_benchmark_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--check", "speed"])
    assert refused.value.code == 2
    assert "No benchmark is called speed: there are slot_map, " in capsys.readouterr().err
