"""What an agent's credential may do on a real server: every command that the server knows, on every kind of key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from workers.slots import acl
from workers.slots.keys import PoolKeys

POOL, OTHER = "mine", "other"
USER, PASSWORD = "ts-mine-1", "a password"
_MINE, _OTHER = PoolKeys(POOL), PoolKeys(OTHER)

# Commands that a server answers to whoever is connected: it asks for no permission.
CONNECTION = {"auth", "hello", "quit", "reset"}
CONNECTING = CONNECTION | {"ping", "select", "client|setinfo", "time", "multi", "exec"}
SLOT_MAP = {"evalsha", "hget", "hset", "hmget", "hexists", "zadd", "zrem", "zscore"}
ALLOWED = {
    **{f"own slot map, {key.decode()}": (key, SLOT_MAP) for key in _MINE.slot_map},
    "own orders": (b"ts:{mine}:orders:mine-1", {"brpop", "llen"}),
    "own log": (_MINE.log("run-1"), {"evalsha", "xadd", "expire"}),
    "own state under way": (_MINE.state("run-1"), {"set", "get", "expire"}),
    "own progress": (_MINE.progress("run-1"), {"set"}),
    "own reports": (_MINE.reports, {"evalsha", "llen", "lpush", "publish"}),
    "own watch": (_MINE.watch, set()),
    "own lock": (_MINE.lock("cycle")[0], set()),
    "another pool's slot map": (_OTHER.slot_map[1], set()),
    "another pool's orders": (b"ts:{other}:orders:other-1", set()),
    "another pool's log": (_OTHER.log("run-1"), set()),
    "another pool's state under way": (_OTHER.state("run-1"), set()),
    "another pool's progress": (_OTHER.progress("run-1"), set()),
    "another pool's reports": (_OTHER.reports, set()),
    "the callers' queue": (b"celery", set()),
    "the control plane's queue": (b"terraslot.control", set()),
    "the queue of older agents' reports": (b"terraslot.reports", set()),
    "a result": (b"celery-task-meta-run-1", set()),
    "the bindings of remote control": (b"_kombu.binding.celery.pidbox", set()),
    "a reply of remote control": (b"1.reply.celery.pidbox", set()),
    "the channel of remote control": (b"/0.celery.pidbox", set()),
    "the channel of events": (b"/0.celeryev/worker.heartbeat", set()),
    "the channel of a result": (b"celery-task-meta-1", set()),
}


@pytest.fixture
def agent(valkey: redis.Redis) -> Iterator[redis.Connection]:
    acl.Users(valkey).put(USER, PASSWORD, acl.acl_rules(POOL))
    address = valkey.connection_pool.connection_kwargs
    connection = redis.Connection(
        host=address["host"], port=address["port"], username=USER, password=PASSWORD, socket_timeout=10
    )
    yield connection
    connection.disconnect()
    acl.Users(valkey).remove(USER)


def commands(client: redis.Redis) -> dict[str, int]:
    """Return every command of the server, subcommands included as ``command|subcommand``, with its arity."""
    connection = client.connection_pool.get_connection()  # redis-py would make something of its own of the reply
    connection.send_command("COMMAND")
    found = {entry[0].decode(): entry for entry in connection.read_response()}
    client.connection_pool.release(connection)
    # One with subcommands is none by itself.
    every = [each for entry in found.values() for each in (entry[9] or [entry])]
    return {entry[0].decode(): entry[1] for entry in every}


def allows(connection: redis.Connection, command: str, arity: int, key: bytes) -> bool:
    """Whether the server does not refuse the command for want of a permission."""
    words: list[Any] = command.split("|")
    words += [b"0" * 40, 1, key] if command == "evalsha" else [key] * (abs(arity) - len(words))
    connection.send_command(*words)
    try:
        connection.read_response()
    except redis.exceptions.NoPermissionError:
        return False
    except redis.RedisError as error:
        if "command not allowed. If the enable-" in str(error):  # DEBUG and MODULE LOAD, to everyone
            return False
    connection.disconnect()  # whatever the command has made of it
    return True


def test_every_command_that_a_server_knows_is_allowed_where_the_list_says_so_and_nowhere_else(
    agent: redis.Connection, valkey: redis.Redis
) -> None:
    known = commands(valkey)
    assert len(known) > 300
    allowed = {
        target: {command for command, arity in known.items() if allows(agent, command, arity, key)}
        for target, (key, _) in ALLOWED.items()
    }
    assert allowed == {target: commands | CONNECTING for target, (_, commands) in ALLOWED.items()}
