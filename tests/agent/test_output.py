"""The way from a hostile stream of bytes to a bounded log."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import structlog

from agent import output
from agent.output import Excerpt, Lines, LogWriter, clean
from tests.agent.conftest import Lines as MemoryLog
from tests.waiting import eventually
from workers.protocol.log_lines import LogLine

LOGGER = structlog.get_logger()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, with ümlauts, 表 and a\ttab", "plain, with ümlauts, 表 and a\ttab"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;new title\x07after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPdevice control\x1b\\after", "after"),
        ("\x1b[2J\x1b[Hcleared", "cleared"),
        ("\x9b31mC1 is no terminal command here", "31mC1 is no terminal command here"),
        ("over\rwritten and back\b\b", "overwritten and back"),
        ("null\x00 bell\x07", "null bell"),
        ("user\u202egnp.exe", "usergnp.exe"),
        ("\x1b", ""),
    ],
)
def test_nothing_that_a_terminal_obeys_is_left(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_lines_do_not_depend_on_how_the_stream_was_cut() -> None:
    stream = "one\ntwo ü\n\nlast without an end".encode()
    for size in (1, 2, 3, 7, 100):
        found: list[str] = []
        lines = Lines(found.append)
        for start in range(0, len(stream), size):
            lines.feed(stream[start : start + size])
        lines.end()
        assert found == ["one", "two ü", "", "last without an end"]


def test_a_giant_line_is_cut_and_costs_no_memory() -> None:
    found: list[str] = []
    lines = Lines(found.append)
    for _ in range(200):
        lines.feed(b"x" * 100_000)
        assert len(lines._rest) <= output.MAX_LINE + 1
    lines.feed(b"\nnext\n")
    assert found == ["x" * output.MAX_LINE + output.CUT, "next"]


def test_an_excerpt_keeps_the_beginning_and_the_end() -> None:
    excerpt = Excerpt(1000)
    for number in range(10_000):
        excerpt.add(f"line {number}")
    assert excerpt.lines[0] == "line 0"
    assert excerpt.lines[-1] == "line 9999"
    assert sum(map(len, excerpt.lines)) < 1100
    assert any("lines left out" in line for line in excerpt.lines)


class GatedLog(MemoryLog):
    """A log that can be held, and can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.batches: list[int] = []
        self.broken = False

    def append(self, lines: Sequence[LogLine]) -> None:
        self.open.wait(10)
        if self.broken:
            raise ConnectionError("away")
        self.batches.append(len(lines))
        super().append(lines)


def test_lines_that_come_while_a_batch_is_written_go_together() -> None:
    log = GatedLog()
    writer = LogWriter(log.append, "plan", LOGGER)
    writer.write("first")
    eventually(lambda: not writer._buffer)
    for number in range(500):
        writer.write(f"line {number}")
    log.open.set()
    writer.close(5)
    assert log.batches == [1, 500]
    assert log.texts == ["first", *(f"line {number}" for number in range(500))]


def test_no_line_is_lost_while_the_log_is_only_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MAX_BUFFERED_LINES", 50)
    log = GatedLog()
    log.open.set()
    writer = LogWriter(log.append, "plan", LOGGER)
    for number in range(100_000):
        writer.write(str(number))
    writer.close(5)
    assert log.texts == [str(number) for number in range(100_000)]


def test_an_outage_costs_the_oldest_lines_and_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MAX_BUFFERED_LINES", 50)
    log = GatedLog()
    log.broken = True
    log.open.set()
    writer = LogWriter(log.append, "plan", LOGGER)
    writer.write("before")
    eventually(lambda: not writer._reachable)
    for number in range(1000):
        writer.write(str(number))
    log.broken = False
    writer.close(10)
    assert log.texts[0] == "before"
    assert "950 lines are missing" in log.texts[1]
    assert log.texts[2:] == [str(number) for number in range(950, 1000)]


def test_closing_gives_up_a_log_that_can_not_be_written() -> None:
    log = GatedLog()
    log.broken = True
    log.open.set()
    writer = LogWriter(log.append, "plan", LOGGER)
    writer.write("lost")
    eventually(lambda: not writer._reachable)
    writer.close(0.2)
    eventually(lambda: not writer._thread.is_alive(), 5)
    assert log.texts == []
