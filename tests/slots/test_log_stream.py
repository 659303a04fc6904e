"""Log streams are bounded in every direction, and harmless to read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from workers.protocol.errors import InvalidRequest
from workers.protocol.log_lines import LogLine
from workers.protocol.messages import LIVE_LOG_BYTES
from workers.slots.log_stream import KEEP_SECONDS, MAX_LINE_BYTES, MAX_LINES, RunLog

KEY = "ts:{pool}:log:run"


def line(text: str) -> LogLine:
    return LogLine("plan", text, 1_700_000_000.25)


@pytest.fixture
def log(client: redis.Redis) -> RunLog:
    return RunLog(client, "pool", "run")


def test_lines_come_back_in_order_and_reading_goes_on_where_it_ended(log: RunLog) -> None:
    log.append([line("one"), line("two")])
    log.append([LogLine("apply", "three", 1_700_000_001.0)])
    first = log.read(count=2)
    assert [(read.phase, read.text, read.at) for read in first] == [
        ("plan", "one", 1_700_000_000.25),
        ("plan", "two", 1_700_000_000.25),
    ]
    assert [(read.phase, read.text) for read in log.read(after=first[-1].id)] == [("apply", "three")]


def test_nothing_written_and_nothing_there_are_no_errors(log: RunLog, client: redis.Redis) -> None:
    log.append([])
    assert log.read() == []
    assert not client.exists(KEY)


def test_a_reader_waits_for_the_next_line_and_no_longer_than_it_said(log: RunLog) -> None:
    log.append([line("one")])
    (seen,) = log.read()
    assert log.read(after=seen.id, block=0.01) == []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(log.read, seen.id, 10)
        log.append([line("two")])
        assert [read.text for read in waiting.result(10)] == ["two"]


def test_the_oldest_lines_go_when_there_are_too_many(log: RunLog, client: redis.Redis) -> None:
    for start in range(0, MAX_LINES + 2_000, 2_000):
        log.append([line(str(number)) for number in range(start, start + 2_000)])
    assert MAX_LINES <= client.xlen(KEY) <= MAX_LINES + 100
    (last,) = client.xrevrange(KEY, count=1)
    assert last[1][b"text"] == str(MAX_LINES + 1_999).encode()


def test_a_line_is_cut_at_its_limit_and_stays_text(log: RunLog, client: redis.Redis) -> None:
    log.append([line("ü" * MAX_LINE_BYTES), line("x" * MAX_LINE_BYTES)])
    long, fits = log.read()
    assert len(long.text.encode()) <= MAX_LINE_BYTES
    assert long.text.endswith("ü [cut]")
    assert fits.text == "x" * MAX_LINE_BYTES


def test_a_log_expires(log: RunLog, client: redis.Redis) -> None:
    log.append([line("one")])
    assert 0 < client.ttl(KEY) <= KEEP_SECONDS


def test_what_a_terminal_would_obey_is_not_shown_to_it(log: RunLog) -> None:
    log.append([line("\x1b]0;title\x07 \x1b[2J red\ttab\r\nforged \u202eline \udcff")])
    (read,) = log.read()
    assert read.text == "\ufffd]0;title\ufffd \ufffd[2J red\ttab\ufffd\ufffdforged \ufffdline ?"


def test_entries_of_a_stranger_are_read_without_harm(log: RunLog, client: redis.Redis) -> None:
    client.xadd(KEY, {"at": "never", "junk": b"\xff"})
    client.xadd(KEY, {"phase": "p" * 99, "text": "x" * 99_999, "at": "nan", "number": "-1", "attempt": "9" * 99})
    first, second = log.read()
    assert first == LogLine("", "", 0.0, first.id)
    assert second == LogLine("p" * 20, "x" * MAX_LINE_BYTES, 0.0, second.id)


def test_a_run_is_named_so_that_its_key_is_its_own(client: redis.Redis) -> None:
    with pytest.raises(InvalidRequest, match="not a run's id"):
        RunLog(client, "pool", "../other:log")


@pytest.mark.parametrize("length", [7_990, 9_000])
def test_a_run_that_prints_160_mb_costs_its_budget_and_keeps_the_beginning_and_the_end(
    valkey: redis.Redis, length: int
) -> None:
    log = RunLog(valkey, "pool", "run")
    for start in range(0, 20_000, 500):
        log.append([line(f"{number} {'x' * length}") for number in range(start, start + 500)])
    keys = list(valkey.scan_iter("ts:{pool}:log:*"))
    assert sum(valkey.memory_usage(key) for key in keys) <= LIVE_LOG_BYTES
    read: list[LogLine] = []
    while more := log.read(after=read[-1].id if read else "0"):
        read += more
    numbers = [each.number for each in read]
    assert (numbers[0], numbers[-1]) == (1, 20_000)
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 0.7 * LIVE_LOG_BYTES / 8_000


@pytest.mark.parametrize("text", ["", "a line of forty characters or some more"])
def test_short_lines_cost_no_more_than_long_ones(valkey: redis.Redis, text: str) -> None:
    log = RunLog(valkey, "pool", "run", budget=200_000)
    for _ in range(20):
        log.append([line(text)] * 1_000)
    keys = list(valkey.scan_iter("ts:{pool}:log:*"))
    assert sum(valkey.memory_usage(key, samples=0) for key in keys) <= 200_000


def test_what_a_writer_before_wrote_stays_until_the_next_one_needs_the_space(client: redis.Redis) -> None:
    RunLog(client, "pool", "run", budget=64 << 10).append([line("x" * 1_000)] * 10)
    log = RunLog(client, "pool", "run", budget=64 << 10)
    log.append([line("y" * 1_000)] * 10)
    assert [read.text[0] for read in log.read()] == ["x"] * 10 + ["y"] * 10


def test_lines_that_are_stored_elsewhere_go_and_later_ones_come_after_them(client: redis.Redis) -> None:
    log = RunLog(client, "pool", "run")
    log.append([line("one"), line("two")])
    first, second = log.read()
    log.trim(first.id, over=True)
    assert log.read() == [second]
    log.trim(second.id, over=False)
    assert (log.read(), client.exists(KEY)) == ([], 1)
    log.trim(second.id, over=True)
    assert not client.keys("*log:run") + client.keys("*beginning")
