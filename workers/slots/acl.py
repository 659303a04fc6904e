"""Users on Redis: one for each generation of a pool's credential. Needs a connection that may administer users."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, cast

from workers.core.credentials import acl_rules

if TYPE_CHECKING:
    from redis import Redis


def put_user(client: Redis, pool: str, username: str, password: str) -> None:
    """Create a pool's user, or make it what it should be. The password itself is not sent, only its hash."""
    digest = hashlib.sha256(password.encode()).hexdigest()
    client.execute_command("ACL SETUSER", username, "reset", "on", f"#{digest}", *acl_rules(pool))  # type: ignore[no-untyped-call]


def remove_user(client: Redis, username: str) -> None:
    """Remove a user, and close whatever it still has open."""
    client.execute_command("ACL DELUSER", username)  # type: ignore[no-untyped-call]


def users_in_use(client: Redis) -> set[str]:
    """Return the names of all users with a connection."""
    return {connection["user"] for connection in cast("list[dict[str, Any]]", client.client_list())}


def disconnect(client: Redis, username: str) -> None:
    """Close every connection of a user; its clients connect again with the credential that they find then."""
    client.execute_command("CLIENT KILL", "USER", username)  # type: ignore[no-untyped-call]
