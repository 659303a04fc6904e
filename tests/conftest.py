"""What all tests share: a real Valkey, empty for each test that asks for it; and the order of the files."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import redis
import structlog

from tests.valkey_server import running_valkey

# Files are divided among processes in their order: those that take longest come first, so that all end together. Those
# that share a running system come last, so that it does not run beside all others.
FIRST = ("tests/packaging", "tests/contract", "tests/embedded", "tests/system/test_topologies")
LAST = ("tests/cli/test_following", "tests/system")

# A job in the background of a script ignores SIGINT, and so would every program that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (not item.nodeid.startswith(FIRST), item.nodeid.startswith(LAST)))


@pytest.fixture(autouse=True)
def _log_of_this_test() -> None:
    """Log to where this test's output goes: the command line logs to what captured an earlier one's, closed by now."""
    structlog.reset_defaults()


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
