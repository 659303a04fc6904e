"""Pieces of logs: what goes in comes out, bounded, with what is missing said."""

from __future__ import annotations

import random

import pytest

from workers.core.logs import Packer, surplus, unpack, with_gaps
from workers.protocol.log_lines import LogLine


def lines(count: int, text: str = "text") -> list[LogLine]:
    return [LogLine("plan", f"{text} ü", 1.5, f"{number}-0", 1, number) for number in range(1, count + 1)]


def packed(given: list[LogLine], **bounds: int) -> bytes:
    packer = Packer(**bounds)
    for line in given:
        packer.add(line)
    assert (packer.lines, packer.last) == (len(given), given[-1].id if given else "")
    return packer.finish()


@pytest.mark.parametrize("count", [0, 1, 20_000])
def test_what_fits_comes_out_as_it_went_in(count: int) -> None:
    assert list(unpack(packed(lines(count)))) == lines(count)


@pytest.mark.parametrize("bounds", [{"budget": 300_000}, {"raw": 2_000_000}])
def test_of_what_does_not_fit_the_beginning_and_the_end_stay_and_the_gap_is_said(bounds: dict[str, int]) -> None:
    chance = random.Random(1)
    given = [LogLine("plan", chance.randbytes(500).hex(), 1.0, f"{number}-0", 1) for number in range(5_000)]
    piece = packed(given, **bounds)
    assert len(piece) <= bounds.get("budget", 2_000_000)
    shown = list(with_gaps(unpack(piece), None))
    assert (shown[0].id, shown[-1].id) == ("0-0", "4999-0")
    (gap,) = [line for line in shown if not line.number]
    assert gap.text == f"… {5_000 - len(shown) + 1} lines are missing here: the log was too long …"


def test_a_gap_is_counted_within_the_output_of_one_writer() -> None:
    one, two, five = (
        LogLine("plan", "", 0, "", 1, 1),
        LogLine("plan", "", 0, "", 1, 2),
        LogLine("plan", "", 0, "", 1, 5),
    )
    apply, unknown = LogLine("apply", "", 0, "", 1, 1), LogLine("plan", "", 0)

    def gaps(*given: LogLine, before: LogLine | None = None, missing: int = 0) -> list[str]:
        return [line.text.split()[1] for line in with_gaps(given, before, missing) if line.text]

    assert gaps(one, two, apply, one, unknown) == []
    assert gaps(one, five) == ["3"]
    assert gaps(five, before=two) == ["2"]
    assert gaps(five) == ["4"]
    assert gaps(one, before=two, missing=7) == ["7"]


def test_middle_pieces_go_until_the_others_fit() -> None:
    assert surplus([], 10) == 0
    assert surplus([5, 5], 10) == 0
    assert surplus([5, 1, 5], 10) == 1
    assert surplus([5, 0, 4, 1], 10) == 0
    assert surplus([9, 9], 10) == 0  # a piece is half of the budget at most
