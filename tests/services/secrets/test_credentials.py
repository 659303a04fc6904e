"""Pools' Redis users on a real server: what an agent may do, what it may not, and rotation without a gap (F27)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr
from redis.exceptions import AuthenticationError, NoPermissionError

from tests.services.conftest import POOL, ControlPlane
from tests.topologies import server
from workers.core.rotation import OVERLAP, RECONNECT
from workers.protocol.encryption import Keyring
from workers.protocol.errors import InvalidRequest, Unavailable
from workers.protocol.kinds import RunKind
from workers.protocol.log_lines import LogLine
from workers.services import health, pool_state
from workers.services.pools import manage as pools
from workers.services.scaling import cycle
from workers.services.secrets import credentials
from workers.slots.log_stream import RunLog
from workers.slots.report_queue import ReportQueue
from workers.slots.slot_map import SlotMap
from workers.specs.pools import PoolSpec

Clock = Callable[[float], None]


@pytest.fixture(autouse=True)
def _no_users_are_left(control: ControlPlane) -> Iterator[None]:
    yield
    for user in control.redis.acl_users():
        if user != "default":
            control.redis.acl_deluser(user)


def as_agent(control: ControlPlane, pool: str = POOL, **secret: str) -> redis.Redis:
    """Return a client with what an agent of the pool finds in its Secret."""
    found = control.pods.secrets[pool] | secret
    return redis.Redis.from_url(
        control.system.settings.redis_url, username=found["username"], password=found["password"]
    )


def ensure(control: ControlPlane, **options: bool) -> list[str]:
    return credentials.check_and_rotate_secret(control.system, control.spec(), **options)


def payload_keyring(control: ControlPlane) -> Keyring:
    with control.system.database.read() as session:
        return credentials.payload_keyring(control.system, session, POOL)


def test_an_agents_credential_is_enough_for_its_slot_map(control: ControlPlane) -> None:
    ensure(control)
    with as_agent(control) as client:
        slots = SlotMap(client, POOL)
        slots.register("default-1", "life-1")
        lease = control.slots.acquire("run-1", RunKind.PLAN, "t" * 20)
        assert lease is not None
        assert slots.redeem("default-1", "run-1", lease.token)
        slots.heartbeat("default-1", "life-1", [lease.token], [])
        RunLog(client, POOL, "run-1").append([LogLine("plan", "a line", 1.0)])
        assert ReportQueue(client, POOL).put(b"a report")


@pytest.mark.parametrize(
    "forbidden",
    [
        ("GET", "ts:{other}:agents"),
        ("HSET", "ts:{other}:agents", "a", "b"),
        ("EVAL", "return redis.call('HGETALL', KEYS[1])", 1, "ts:{other}:leases"),
        ("BRPOP", "ts:{other}:orders:other-1", 1),
        ("LPUSH", "celery", "forged"),
        ("LPUSH", "terraslot.control", "forged"),
        ("RPOP", "terraslot.reports"),
        ("LRANGE", "terraslot.reports", "0", "-1"),
        ("GET", "celery-task-meta-1"),
        ("SET", "celery-task-meta-1", "forged"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("MONITOR",),
        ("CLIENT", "LIST"),
        ("MODULE", "LIST"),
        ("SHUTDOWN",),
        ("SCRIPT", "FLUSH"),
        ("FUNCTION", "LIST"),
        ("PUBLISH", "/0.celery.other", "x"),
    ],
    ids=lambda words: " ".join(map(str, words[:2])),
)
def test_an_agent_may_not(control: ControlPlane, forbidden: tuple[str, ...]) -> None:
    ensure(control)
    with as_agent(control) as client, pytest.raises(NoPermissionError):
        client.execute_command(*forbidden)


def test_pools_have_users_of_their_own(control: ControlPlane) -> None:
    pools.ensure(control.system, PoolSpec(name="other"))
    ensure(control)
    credentials.ensure_secret_for_pool(control.system, control.system.pool("other"))
    with as_agent(control, "other") as client, pytest.raises(NoPermissionError):
        SlotMap(client, POOL).register("forged", "life-1")


def test_a_server_that_lost_its_users_gets_them_again(control: ControlPlane) -> None:
    ensure(control)
    control.redis.acl_deluser("ts-default-1")
    ensure(control)
    with as_agent(control) as client:
        assert client.ping()


def test_rotation_leaves_no_moment_without_a_credential_that_works(control: ControlPlane, clock_ahead: Clock) -> None:
    """F27."""
    ensure(control)
    before = control.pods.secrets[POOL]
    assert ensure(control, requested=True) == ["generation 2 issued"]
    after = control.pods.secrets[POOL]
    assert after["username"] == "ts-default-2"
    assert after["payload_keys"][1:] == before["payload_keys"]
    encrypted = payload_keyring(control).encrypt("x")
    with as_agent(control, **before) as old, as_agent(control) as new:
        assert old.ping()
        assert new.ping()
        clock_ahead(OVERLAP + 1)
        assert ensure(control) == ["generation 1 disconnected"]
        assert old.ping()  # it connects again with the old one, which still works
        clock_ahead(OVERLAP + RECONNECT)
        assert ensure(control) == []
        assert old.ping()
    assert ensure(control) == []  # its agent may be between two connections
    clock_ahead(OVERLAP + 2 + RECONNECT)
    assert ensure(control) == ["generation 1 retired"]
    with as_agent(control, **before) as old, pytest.raises(AuthenticationError):
        old.ping()
    ensure(control)
    assert control.pods.secrets[POOL]["payload_keys"] == after["payload_keys"][:1]
    assert payload_keyring(control).encrypt("x") != encrypted


def test_an_old_credential_is_rotated_by_its_age(control: ControlPlane, clock_ahead: Clock) -> None:
    ensure(control)
    assert ensure(control) == []
    clock_ahead(31 * 86_400)
    assert ensure(control) == ["generation 2 issued"]


def test_no_password_is_stored_or_on_redis_in_clear(control: ControlPlane) -> None:
    ensure(control)
    password = control.pods.secrets[POOL]["password"]
    stored = (control.system.settings.home / "terraslot.db").read_bytes()
    stored += (control.system.settings.home / "terraslot.db-wal").read_bytes()
    assert b"pool_credentials" in stored
    assert password.encode() not in stored
    assert password not in str(control.redis.execute_command("ACL", "LIST"))


def test_without_a_key_nothing_is_stored_and_the_error_names_the_variable(control: ControlPlane) -> None:
    object.__setattr__(
        control.system, "settings", control.system.settings.model_copy(update={"encryption_keys": _Empty()})
    )
    with pytest.raises(InvalidRequest, match="TERRASLOT_ENCRYPTION_KEYS is not set"):
        ensure(control)


class _Empty:
    def get_secret_value(self) -> str:
        return ""


def test_a_deleted_pools_users_and_secret_are_gone(control: ControlPlane) -> None:
    ensure(control)
    with as_agent(control) as client:
        credentials.purge(control.system, control.spec())
        with pytest.raises(AuthenticationError):
            client.ping()
    assert control.pods.secrets == {}


class TestAnAgentOfAnOlderVersion:
    """F38: it needs more on Redis than later ones, and its credential keeps that for as long as it is there."""

    @pytest.fixture
    def _issued_by_the_older_version(self, control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as older:
            older.setattr(credentials, "RULES", 1)
            ensure(control)

    @pytest.mark.usefixtures("_issued_by_the_older_version")
    def test_keeps_its_rules_and_may_publish_nothing(self, control: ControlPlane) -> None:
        control.slots.register("older-1", "an-id-without-a-version")
        assert ensure(control) == []
        with as_agent(control) as client:
            assert client.eval("return redis.call('HGET', KEYS[1], 'x')", 1, "ts:{default}:agents") is None
            client.lpush("terraslot.reports", "a report")
            client.sadd("_kombu.binding.celery.pidbox", "a binding")
            for forbidden in (
                ("PUBLISH", "/0.celery.pidbox", "x"),
                ("LPUSH", "celery", "x"),
                ("RPOP", "terraslot.reports"),
            ):
                with pytest.raises(NoPermissionError):
                    client.execute_command(*forbidden)

    @pytest.mark.usefixtures("_issued_by_the_older_version")
    def test_is_followed_by_one_with_todays_rules_when_it_is_gone(self, control: ControlPlane) -> None:
        control.slots.register("older-1", "an-id-without-a-version")
        assert ensure(control) == []
        control.slots.deregister("older-1")
        control.agent()
        assert ensure(control) == ["generation 2 issued"]
        with as_agent(control) as client, pytest.raises(NoPermissionError):
            client.execute_command("EVAL", "return 1", 0)


class TestAServerThatAdministersNoUsers:
    @pytest.fixture
    def managed(self, control: ControlPlane, tmp_path: Path) -> Iterator[ControlPlane]:
        with server(tmp_path / "managed", 'rename-command ACL ""') as port, redis.Redis(port=port) as client:
            yield replace(control, system=replace(control.system, redis=client, broker=client))

    def test_is_told_to_the_operator_with_the_way_out(self, managed: ControlPlane) -> None:
        with pytest.raises(Unavailable, match=r"administer no users.*TERRASLOT_SHARED_AGENT_USERNAME"):
            ensure(managed)
        finding = health.agents_users(managed.system)
        assert (finding.verdict, finding.name) == ("wrong", "users")

    def test_serves_pools_that_share_a_user_which_is_said(self, managed: ControlPlane) -> None:
        shared = {"shared_agent_username": "agents", "shared_agent_password": SecretStr("a password")}
        system = replace(managed.system, settings=managed.system.settings.model_copy(update=shared))
        managed = replace(managed, system=system)
        assert ensure(managed) == ["generation 1 issued"]
        found = managed.pods.secrets[POOL]
        assert (found["username"], found["password"]) == ("agents", "a password")
        assert health.agents_users(system).says == "the agents of all pools share the Redis user agents"
        cycle.cycle(system, POOL)
        assert "share the Redis user agents" in (pool_state.status(system, POOL) or "")
