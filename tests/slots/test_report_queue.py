"""The queue of a pool's reports: what is put is taken, and what an agent puts there beside it is bounded."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from celery import Celery

from tests.slots.invariants import POOL
from workers.protocol import names
from workers.slots import report_queue
from workers.slots.report_queue import LONGEST, Found, ReportQueue, WakeUps, older_reports


@pytest.fixture
def queue(client: redis.Redis) -> ReportQueue:
    return ReportQueue(client, POOL)


def test_reports_are_taken_once_and_the_oldest_first(queue: ReportQueue) -> None:
    for content in (b"first", b"second", b"third"):
        assert queue.put(content)
    assert [found.content for found in queue.take(2)] == [b"first", b"second"]
    assert queue.take(2) == [Found(POOL, b"third", 5)]
    assert queue.take(2) == []


def test_no_more_than_the_beginning_of_a_long_one_is_read(queue: ReportQueue) -> None:
    queue.put(b"x" * (LONGEST + 1))
    (found,) = queue.take(1)
    assert (len(found.content), found.length) == (LONGEST, LONGEST + 1)


def test_a_full_queue_takes_none(queue: ReportQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_queue, "MAX_WAITING", 2)
    assert [queue.put(b"x") for _ in range(3)] == [True, True, False]
    queue.take(1)
    assert queue.put(b"x")


def test_a_report_wakes_the_reader_and_says_of_which_pool(queue: ReportQueue, client: redis.Redis) -> None:
    with ThreadPoolExecutor() as agents, WakeUps(client) as wake_ups:
        wake_ups.wait(0)  # subscribed from here on
        put = agents.submit(queue.put, b"x")
        while not (woken := wake_ups.wait(10)):
            pass
        assert woken == {POOL}
        assert put.result()  # may come after the wake-up


def wait_often(wake_ups: WakeUps) -> None:
    for _ in range(100):
        wake_ups.wait(0.1)


def test_wake_ups_go_on_after_the_connection_was_lost(queue: ReportQueue, valkey: redis.Redis) -> None:
    with WakeUps(valkey) as wake_ups:
        wake_ups.wait(0)
        valkey.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        with pytest.raises(redis.ConnectionError):
            wait_often(wake_ups)
        wake_ups.wait(0)
        ReportQueue(valkey, POOL).put(b"x")
        while not (woken := wake_ups.wait(10)):
            pass
        assert woken == {POOL}


def test_of_a_celery_message_nothing_but_the_report_is_read(valkey: redis.Redis, redis_url: str) -> None:
    with Celery("older", broker=redis_url, set_as_current=False) as older:
        older.conf.broker_transport_options = {"priority_steps": [0]}
        evil = older.signature("evil")
        older.send_task(names.REPORT, args=[{"type": "a report"}], queue=names.REPORTS_QUEUE, link=evil)
    assert [json.loads(found.content) for found in older_reports(valkey, 10)] == [{"type": "a report"}]


@pytest.mark.parametrize(
    "message",
    ["no JSON", "{}", "[]", '{"body": 1}', {"body": "bm8gSlNPTg=="}, {"body": "W10="}, 100_000 * "["],
    ids=lambda message: str(message)[:20],
)
def test_a_message_that_is_none_of_celerys_is_dropped(valkey: redis.Redis, message: Any) -> None:
    valkey.lpush(names.REPORTS_QUEUE, message if isinstance(message, str) else json.dumps(message))
    body = base64.b64encode(json.dumps([[{"type": "a report"}], {}, {}]).encode()).decode()
    valkey.lpush(names.REPORTS_QUEUE, json.dumps({"body": body}))
    assert [json.loads(found.content) for found in older_reports(valkey, 10)] == [{"type": "a report"}]
