"""What all tests share: a real Valkey, empty for each test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.valkey_server import running_valkey


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """The URL of the session's Valkey, as earlier tests left it."""
    with running_valkey() as url:
        yield url


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """The URL of an empty Valkey."""
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    return valkey_url


@pytest.fixture
def valkey(redis_url: str) -> Iterator[redis.Redis]:
    """A client of an empty Valkey."""
    with redis.Redis.from_url(redis_url) as client:
        yield client
