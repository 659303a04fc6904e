"""Which of a server's answers mean that it can't be used, and which are about one key or one script."""

from __future__ import annotations

import pytest
import redis
from redis.exceptions import RedisError

from workers.slots.redis_server import is_away

# The words of real servers; the last is how Redis 6.2 tells what a script of ours met.
AWAY = [
    "LOADING Redis is loading the dataset in memory",
    "READONLY You can't write against a read only replica.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOREPLICAS Not enough good replicas to write.",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "CLUSTERDOWN The cluster is down",
    "NOPERM this user has no permissions to run the 'evalsha' command",
    "NOAUTH Authentication required.",
    "ERR max number of clients reached",
    "ERR Error running script (call to f_1): @user_script:9: @user_script: 9: -OOM command not allowed when used "
    "memory > 'maxmemory'.",
]


def met(valkey: redis.Redis, script: str, *arguments: str) -> RedisError:
    with pytest.raises(RedisError) as caught:
        valkey.eval(script, 1, "ts:{p}:x", *arguments)
    return caught.value


@pytest.mark.parametrize("words", AWAY)
def test_a_server_that_refuses_whatever_is_asked_is_away(valkey: redis.Redis, words: str) -> None:
    assert is_away(met(valkey, "return redis.error_reply(ARGV[1])", words))


def test_a_server_that_does_not_answer_is_away() -> None:
    with redis.Redis(port=1, retry=None, socket_connect_timeout=1) as nobody, pytest.raises(RedisError) as caught:
        nobody.ping()
    assert is_away(caught.value)


@pytest.mark.parametrize(
    "script",
    ["local record = nil; return record.state", "return redis.call('HGET', KEYS[1], 'a')", "return redis.call('NO')"],
)
def test_a_script_of_ours_that_met_what_it_can_not_read_says_nothing_of_the_server(
    valkey: redis.Redis, script: str
) -> None:
    valkey.set("ts:{p}:x", "not a hash")
    assert not is_away(met(valkey, script))


def test_an_error_of_something_else_says_nothing_of_the_server() -> None:
    assert not is_away(ValueError("OOM "))
