"""The connection to Redis or Valkey, and the Lua verbs that are called over it.

A verb is read once and called by its digest; its text is sent only to a server that does not know it yet.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, NoScriptError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel

from workers.protocol.errors import Damaged
from workers.protocol.names import one_line
from workers.protocol.redis_address import RedisAddress
from workers.slots.redis_server import is_away

_LUA = Path(__file__).parent / "lua"
_TOGETHER = "together"  # the name under which several verbs in one round trip are observed
# Told how long each verb took, where this process measures that.
_observers: list[Callable[[str, float], None]] = []

# Seconds. A server that hangs for longer counts as unreachable.
CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 10.0
# A call whose connection broke is repeated once, on another one: every verb is answered alike when it is repeated. A
# server that hangs is not asked again.
RETRY = Retry(NoBackoff(), 1, (redis.ConnectionError,))


def connect(address: RedisAddress, credentials: redis.CredentialProvider | None = None) -> redis.Redis:
    """Return a client for threads; it connects when it is first used, and again after a failure.

    ``credentials`` are asked for at each connection, in place of those in the address. Behind sentinels, each
    connection goes to the server that is the primary then.
    """
    who: dict[str, Any] = {"username": address.username, "password": address.password}
    options: dict[str, Any] = {
        **({"credential_provider": credentials} if credentials else who),
        "db": address.db,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": ANSWER_TIMEOUT,
        "health_check_interval": 30,
        "retry": RETRY,
    }
    if address.path is not None:
        return redis.Redis(unix_socket_path=address.path, **options)
    options |= {"ssl": True, **address.files} if address.tls else {}
    if address.master is None:
        host, port = address.hosts[0]
        return redis.Redis(host=host, port=port, **options)
    of_sentinels = {"socket_timeout": CONNECT_TIMEOUT, **address.sentinel_options}
    sentinels = Sentinel(address.hosts, sentinel_kwargs=of_sentinels)  # type: ignore[no-untyped-call]
    client: redis.Redis = sentinels.master_for(address.master, **options)  # type: ignore[no-untyped-call]
    return client


def observe(observer: Callable[[str, float], None]) -> None:
    """Let ``observer`` be told the name of each verb that is called from now on, and the seconds that it took."""
    _observers[:] = [observer]


def _observed(name: str, began: float) -> None:
    for each in _observers:
        each(name, time.perf_counter() - began)


class Script:
    """One verb. ``redis-py``'s own Script does the same, for 2 us more a call."""

    __slots__ = ("_digest", "_text", "name")

    def __init__(self, text: str, name: str = "") -> None:
        self.name = name
        self._text = text
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().encode()

    @classmethod
    def load(cls, *names: str) -> Self:
        """Read a verb from its file. Several files become one text, in this order: the shared part first."""
        return cls("".join((_LUA / f"{name}.lua").read_text("utf-8") for name in names), names[-1])

    def load_into(self, pipeline: redis.client.Pipeline) -> None:
        """Let a server know the verb, for clients that may not send its text."""
        pipeline.execute_command("SCRIPT LOAD", self._text)  # type: ignore[no-untyped-call]

    def __call__(self, client: Any, keys: Sequence[bytes], *arguments: str | bytes | float) -> Any:
        """Run the verb in one step and return the server's reply.

        Raises :class:`Damaged` where a key holds what no verb writes, else redis-py's errors.
        """
        began = time.perf_counter() if _observers else 0.0
        try:
            return self._call(client, keys, *arguments)
        except ResponseError as error:
            raise _refused(keys, error) from error
        finally:
            if _observers:
                _observed(self.name, began)

    def step(self, keys: Sequence[bytes], *arguments: str | bytes | float) -> Step:
        """Return a call of the verb, for :func:`run_together`."""
        return Step(self, keys, arguments)

    def add_to(self, pipeline: redis.client.Pipeline, keys: Sequence[bytes], *arguments: str | bytes | float) -> None:
        """Let a pipeline run the verb on a server that knows it."""
        pipeline.execute_command("EVALSHA", self._digest, len(keys), *keys, *arguments)  # type: ignore[no-untyped-call]

    def _call(self, client: Any, keys: Sequence[bytes], *arguments: str | bytes | float) -> Any:
        try:
            return client.execute_command("EVALSHA", self._digest, len(keys), *keys, *arguments)
        except NoScriptError:  # the server is new, or was restarted
            pass
        try:
            return client.execute_command("EVAL", self._text, len(keys), *keys, *arguments)
        except NoPermissionError as error:
            message = "the server does not know this verb yet, and an agent may not send it: the next cycle loads it"
            raise NoPermissionError(message) from error


class Step(NamedTuple):
    """One call of a verb, to be run together with others."""

    script: Script
    keys: Sequence[bytes]
    arguments: tuple[str | bytes | float, ...]

    def settled(self, client: Any, reply: Any) -> Any:
        """Return the reply, or the error with which the server refuses this step; run it where that is yet to be."""
        try:
            if isinstance(reply, NoScriptError):  # the server is new, or was restarted
                return self.script(client, self.keys, *self.arguments)
        except Damaged as damaged:
            return damaged
        if isinstance(reply, ResponseError):
            return _refused(self.keys, reply)
        if isinstance(reply, Exception):
            raise reply
        return reply


def run_together(client: redis.Redis, steps: Sequence[Step]) -> list[Any]:
    """Run steps in one round trip; return the reply to each, or the :class:`Damaged` that it met.

    They are no transaction, and those that a new server does not know come last: none may depend on another. Raises
    redis-py's errors where the server is away; each of them may have been run then, or not.
    """
    if not steps:
        return []
    began = time.perf_counter() if _observers else 0.0
    with client.pipeline(transaction=False) as pipeline:
        for step in steps:
            step.script.add_to(pipeline, step.keys, *step.arguments)
        replies = pipeline.execute(raise_on_error=False)
    if _observers:
        _observed(_TOGETHER, began)
    return [step.settled(client, reply) for step, reply in zip(steps, replies, strict=True)]


def _refused(keys: Sequence[bytes], error: ResponseError) -> Damaged:
    if is_away(error):
        raise error
    return Damaged(f"The server refuses a step on {keys[0].decode()}: {one_line(str(error))}")
