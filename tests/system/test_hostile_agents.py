"""What a configuration can do with the credential that it finds in its pool; no other pool notices (F34 to F36).

Each attack is tried with a real credential on a running system; afterwards another pool plans and applies.
"""

from __future__ import annotations

import base64
import json
import secrets as tokens
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError, ResponseError

from tests.system.conftest import Cloud
from tests.waiting import eventually
from workers.protocol import names
from workers.services import health
from workers.services.pools import views
from workers.slots.report_queue import LONGEST


@pytest.fixture(scope="module")
def pool(cloud: Cloud) -> str:
    """The attacker's pool, with an agent."""
    pool = cloud.pool(min_agents=1, max_agents=1)
    eventually(lambda: cloud.slots(pool).stats().total, 30)
    return pool


@pytest.fixture(scope="module")
def other(cloud: Cloud) -> str:
    """Another tenant's pool."""
    pool = cloud.pool(min_agents=1, max_agents=1)
    eventually(lambda: cloud.slots(pool).stats().total, 30)
    return pool


class Credentials:
    """What a configuration finds in the pool's Secret."""

    def __init__(self, cloud: Cloud, pool: str) -> None:
        self._found = json.loads((cloud.system.settings.home / "secrets" / pool / "pool.json").read_text())

    def get_credentials(self) -> tuple[str, str]:
        return self._found["username"], self._found["password"]


@pytest.fixture(scope="module")
def attacker(cloud: Cloud, pool: str, other: str) -> Iterator[redis.Redis]:
    """A client with the pool's credential. When all is over, the other pool still plans and applies."""
    address = cloud.system.settings.redis
    user, password = Credentials(cloud, pool).get_credentials()
    host, port = address.hosts[0]
    with redis.Redis(host=host, port=port, username=user, password=password, protocol=2) as client:
        yield client
    goes_on(cloud, other)
    assert all(finding.verdict == "ok" for finding in (health.workers(cloud.system), health.redis(cloud.system)))


@pytest.fixture
def _others_go_on(cloud: Cloud, other: str) -> Iterator[None]:
    """After what was let through, the other pool plans and applies."""
    yield
    goes_on(cloud, other)


def goes_on(cloud: Cloud, pool: str) -> None:
    assert cloud.apply(cloud.workspace(pool=pool, auto_apply=True)).get(timeout=120)["status"] == "succeeded"


def refused(client: redis.Redis, *words: Any) -> bool:
    with suppress(NoPermissionError):
        client.execute_command(*words)
        return False
    return True


def celery_message(task: str, *args: Any, **options: Any) -> str:
    body = base64.b64encode(json.dumps([list(args), {}, options]).encode()).decode()
    headers = {"lang": "py", "task": task, "id": tokens.token_hex(8), "root_id": None, "parent_id": None, "group": None}
    properties = {
        "correlation_id": headers["id"], "delivery_mode": 2, "delivery_tag": tokens.token_hex(8), "priority": 0,
        "delivery_info": {"exchange": "", "routing_key": "terraslot.reports"}, "body_encoding": "base64",
    }  # fmt: skip
    content = {"content-encoding": "utf-8", "content-type": "application/json"}
    return json.dumps({"body": body, "headers": headers, "properties": properties, **content})


@pytest.mark.parametrize("method", ["add_consumer", "shutdown"])
def test_remote_control_takes_no_orders_from_a_pool(attacker: redis.Redis, pool: str, method: str) -> None:
    arguments = {"add_consumer": {"queue": f"ts:{{{pool}}}:orders:mine"}, "shutdown": {}}[method]
    order = json.dumps({"method": method, "arguments": arguments, "destination": None})
    assert refused(attacker, "PUBLISH", "/0.celery.pidbox", order)


def test_no_reply_of_remote_control_goes_to_a_key_of_an_attackers_choice(
    attacker: redis.Redis, cloud: Cloud, other: str
) -> None:
    assert refused(attacker, "SADD", "_kombu.binding.reply.celery.pidbox", f"x\x06\x16\x06\x16ts:{{{other}}}:leases")
    assert cloud.app.control.inspect(timeout=1).ping()


@pytest.mark.parametrize(
    "words", [("SET", "x"), ("DEL",), ("LTRIM", "0", "0"), ("LPUSH", "x")], ids=lambda words: words[0]
)
@pytest.mark.parametrize("queue", ["terraslot.reports", "celery", "terraslot.control", "ts:{default}:reports"])
def test_no_queue_beyond_the_pool_is_written(attacker: redis.Redis, queue: str, words: tuple[str, ...]) -> None:
    assert refused(attacker, words[0], queue, *words[1:])


def test_events_are_neither_read_nor_forged(attacker: redis.Redis) -> None:
    assert refused(attacker, "PSUBSCRIBE", "/0.celeryev/*")
    assert refused(attacker, "PUBLISH", "/0.celeryev/task.succeeded", "{}")


@pytest.mark.parametrize(
    "words",
    [
        ("EVAL", "while true do end", 0),
        ("EVAL_RO", "while true do end", 0),
        ("SCRIPT", "LOAD", "return 1"),
        ("FUNCTION", "LOAD", "#!lua name=x\n"),
        ("FCALL", "x", 0),
        ("SETRANGE", "ts:{POOL}:log:x", 300 * 1024 * 1024, "x"),
        ("CLIENT", "TRACKING", "ON", "BCAST"),
        ("CLIENT", "NO-EVICT", "ON"),
        ("MONITOR",),
    ],
    ids=lambda words: " ".join(map(str, words[:2])),
)
def test_no_command_keeps_the_server_busy_or_tells_of_others(
    attacker: redis.Redis, pool: str, words: tuple[Any, ...]
) -> None:
    assert refused(attacker, *(word.replace("POOL", pool) if isinstance(word, str) else word for word in words))


@pytest.mark.usefixtures("_others_go_on")
def test_a_report_of_70_mb_ends_its_run_and_no_other(attacker: redis.Redis, cloud: Cloud, pool: str) -> None:
    gate = cloud.gate()
    held = cloud.apply(cloud.workspace(pool=pool, environment={"HOLD_PLAN": str(gate)}))
    run = cloud.started(held)
    report = {
        "type": "phase_finished", "pool": pool, "agent": run.agent, "run": run.id, "token": run.token,
        "phase": "plan", "outcome": "succeeded", "outputs": {"x": "x" * 70_000_000},
    }  # fmt: skip
    attacker.lpush(f"ts:{{{pool}}}:reports", json.dumps(report))
    with pytest.raises(Exception, match=f"70,000,.* bytes.*{LONGEST:,}") as error:
        held.get(timeout=120)
    assert run.id in str(error.value)
    gate.touch()
    eventually(lambda: cloud.quiet(pool), 30)


@pytest.mark.usefixtures("_others_go_on")
def test_a_forged_message_starts_no_task(attacker: redis.Redis, cloud: Cloud, pool: str, other: str) -> None:
    victim = cloud.workspace(pool=other)
    chained = {
        "task": names.PLAN_AND_APPLY,
        "args": [victim],
        "kwargs": {"auto_apply": True},
        "options": {"task_id": "forged"},
    }
    message = celery_message(names.REPORT, {"type": "x"}, chain=[chained], callbacks=[chained], errbacks=[chained])
    assert refused(attacker, "LPUSH", "terraslot.reports", message)
    attacker.lpush(f"ts:{{{pool}}}:reports", message)
    eventually(lambda: not cloud.system.redis.exists(f"ts:{{{pool}}}:reports"), 10)
    assert cloud.app.AsyncResult("forged").state == "PENDING"


@pytest.mark.usefixtures("_others_go_on")
def test_what_is_no_report_is_dropped(attacker: redis.Redis, cloud: Cloud, pool: str) -> None:
    nothing = [b"no JSON", b"\xff\xfe", b"[]", b"1", b'{"type": "phase_finished"}', b'"' + b"[" * 100_000]
    attacker.lpush(f"ts:{{{pool}}}:reports", *nothing)
    eventually(lambda: not cloud.system.redis.exists(f"ts:{{{pool}}}:reports"), 10)


def test_a_flood_of_reports_delays_its_own_pool_only(
    attacker: redis.Redis, cloud: Cloud, pool: str, other: str
) -> None:
    flood = json.dumps({"type": "phase_finished", "pool": pool, "agent": "x", "run": "x", "token": "x" * 32})
    for _ in range(50):
        attacker.lpush(f"ts:{{{pool}}}:reports", *[flood] * 1_000)
    goes_on(cloud, other)
    cloud.system.redis.delete(f"ts:{{{pool}}}:reports")


FORGED = {b"run-x", b"agent-x", b"\x1b[2J\n"}


def written(client: redis.Redis, pool: str) -> set[bytes]:
    """Return whatever the slot map of a pool names."""
    hashes = [client.hkeys(f"ts:{{{pool}}}:{name}") for name in ("leases", "agents")]
    indexes = [client.zrange(f"ts:{{{pool}}}:{name}", 0, -1) for name in ("room", "heartbeats", "reserved")]
    return {member for members in (*hashes, *indexes) for member in members}


@pytest.mark.usefixtures("_others_go_on")
def test_malformed_records_concern_their_pool_alone_and_are_removed(
    attacker: redis.Redis, cloud: Cloud, pool: str
) -> None:
    for record in (b"malformed", b"\xff\xfe plan", b"plan no-agent 9 t running nan - - - -", b"i 0 0 inf -"):
        attacker.hset(f"ts:{{{pool}}}:leases", "run-x", record)
        attacker.hset(f"ts:{{{pool}}}:agents", mapping={"agent-x": record, "\x1b[2J\n": record})
        attacker.zadd(f"ts:{{{pool}}}:room", {"agent-x": float("inf")})
        attacker.zadd(f"ts:{{{pool}}}:heartbeats", {"agent-x": float("-inf")})
        attacker.zadd(f"ts:{{{pool}}}:reserved", {"run-x": 1})
        assert {view.name for view in views.every(cloud.system)} > {"default", pool}
        eventually(lambda: not written(cloud.system.redis, pool) & FORGED, 20)
    assert cloud.plan(cloud.workspace(pool=pool)).get(timeout=120)["status"] == "succeeded"


@pytest.mark.usefixtures("_others_go_on")
def test_a_key_of_another_type_concerns_its_pool_alone_and_is_removed(
    attacker: redis.Redis, cloud: Cloud, pool: str
) -> None:
    with suppress(ResponseError):
        attacker.zadd(f"ts:{{{pool}}}:leases", {"x": 1})
    assert cloud.plan(cloud.workspace(pool=pool)).get(timeout=120)["status"] == "succeeded"
