"""What an agent may do on Redis, and the users that may: one for each generation of a pool's credential.

A configuration that runs in a pool can read the pool's credential, so what it may do is what a hostile tenant may do.
Commands are listed one by one, each for the keys that an agent needs it for: selectors, since Redis 7. Nothing tells
of another pool, writes into one, or keeps the server busy: there is no ``EVAL``, no ``PUBLISH`` beyond the pool's own
channel, and of the pool's keys only the kinds of change that the agent's verbs make.

Needs a connection that may administer users.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import ResponseError

from workers.protocol.errors import Unavailable
from workers.slots.keys import PoolKeys

if TYPE_CHECKING:
    from redis import Redis

# What connecting takes, what kombu asks its queue in, and the clock that verbs read. ``AUTH`` and ``HELLO`` need none.
_CONNECTION = "+ping +select +client|setinfo +time +multi +exec"
# What servers answer that keep their users to themselves, or whose control plane has no right to them.
_NO_USERS = re.compile("unknown command|no permissions|not allowed|NOPERM", re.IGNORECASE)
_SLOT_MAP = "+evalsha +hget +hset +hmget +hexists +zadd +zrem +zscore"


def acl_rules(pool: str) -> list[str]:
    """Return what the agents of a pool may do on Redis, as arguments of ``ACL SETUSER``."""
    prefix = f"ts:{{{pool}}}:"
    return [
        "resetkeys", "resetchannels", "-@all", *_CONNECTION.split(),
        _selector(_SLOT_MAP, *_slot_map(pool)),
        _selector("+brpop +llen", f"{prefix}orders:*"),
        _selector("+evalsha +xadd +expire", f"{prefix}log:*"),
        _selector("+set +get +expire", f"{prefix}state:*"),
        _selector("+set", f"{prefix}progress:*"),
        _selector(f"+evalsha +llen +lpush +publish &{prefix}reports", f"{prefix}reports"),
    ]  # fmt: skip


def older_rules(pool: str) -> list[str]:
    """Return what agents before 0.2 need beside :func:`acl_rules`: until none is left, and no longer.

    They send their verbs' texts, report through a queue of all pools, and listen to Celery's remote control.
    """
    return [
        *acl_rules(pool),
        _selector("+eval", *_slot_map(pool)),
        _selector("+lpush", "%W~terraslot.reports"),
        _selector("+sadd +smembers +subscribe +psubscribe &/0.celery.pidbox", "_kombu.binding.celery.pidbox"),
    ]


def _slot_map(pool: str) -> list[str]:
    return [key.decode() for key in PoolKeys(pool).slot_map]


def _selector(rules: str, *keys: str) -> str:
    return f"({rules} {' '.join(key if key.startswith('%') else f'~{key}' for key in keys)})"


class Users:
    """The users of one server. All methods raise :class:`Unavailable` where it administers none."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def put(self, name: str, password: str, rules: list[str]) -> None:
        """Create a user, or make it what it should be. The password itself is not sent, only its hash."""
        digest = hashlib.sha256(password.encode()).hexdigest()
        self._call("ACL SETUSER", name, "reset", "on", f"#{digest}", *rules)

    def check(self) -> None:
        """Find out whether the server administers users for this client."""
        self._call("ACL USERS")

    def remove(self, name: str) -> None:
        """Remove a user, and close whatever it still has open."""
        self._call("ACL DELUSER", name)

    def in_use(self) -> set[str]:
        """Return the names of all users with a connection."""
        return {connection["user"] for connection in cast("list[dict[str, Any]]", self._call("CLIENT LIST"))}

    def disconnect(self, name: str) -> None:
        """Close every connection of a user; its clients connect again with the credential that they find then."""
        self._call("CLIENT KILL", "USER", name)

    def _call(self, *words: str) -> Any:
        try:
            return self._client.execute_command(*words)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            if not _NO_USERS.search(str(error)):
                raise
            raise Unavailable(
                f"The Redis server lets the control plane administer no users ({words[0]}: {error}): give its user ACL "
                "and CLIENT, or let the agents of all pools share a user of the server, and name it in "
                "TERRASLOT_SHARED_AGENT_USERNAME and TERRASLOT_SHARED_AGENT_PASSWORD."
            ) from error
