"""What an agent may do on Redis, and the users that may: one for each generation of a pool's credential.

Needs a connection that may administer users.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from redis import Redis


def acl_rules(pool: str) -> list[str]:
    """Return what the agents of a pool may do on Redis, as arguments of ``ACL SETUSER``.

    Their own pool's keys and no other's; of the reports queue they may add to the end. Beyond that, only what
    Celery's remote control needs, so that Flower can see them. Reading and writing of these keys, scripts over them,
    and channels; no administration, and nothing that tells what other keys there are.
    """
    return [
        "resetkeys", "resetchannels", "nocommands",
        "~ts:{" + pool + "}:*", f"~{pool}@*", "~_kombu.binding*", "~*.reply.celery.pidbox*", "%W~terraslot.reports*",
        "&/0.celeryev/*", "&/0.celery.pidbox", "&/0.reply.celery.pidbox*",
        "+@read", "+@write", "+@scripting", "+@transaction", "+@pubsub", "+@connection", "+time",
        "-@admin", "-@dangerous", "+info",
        "-scan", "-randomkey", "-dbsize", "-script|flush", "-script|kill", "-function",
    ]  # fmt: skip


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
