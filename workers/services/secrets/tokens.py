"""Tokens that let programs use the HTTP API: made, listed, revoked, and asked about by whoever answers a request.

A token is 256 random bits and shown once. Its digest is stored: nothing can be guessed that is behind it, so that it
needs neither salt nor many rounds.
"""

import hashlib
import secrets
from collections.abc import Collection
from datetime import timedelta

from pydantic import TypeAdapter, ValidationError

from workers.core.access import Caller, Scope, Token, scopes
from workers.core.approval import Actor
from workers.protocol.errors import InvalidRequest
from workers.protocol.names import Name
from workers.protocol.validation import problems
from workers.services.system import System
from workers.store import tokens

_PREFIX = "terraslot_"  # lets scanners of repositories and logs know one
_BYTES = 32
LONGEST = timedelta(days=366)
_name = TypeAdapter[str](Name)


def create(
    system: System, name: str, wanted: Collection[Scope], lasts: timedelta, *, by: Actor | None = None
) -> tuple[str, Token]:
    """Make a token for the program ``name``; return it and what is stored of it.

    Raises :class:`InvalidRequest` for a name that can't be one, no scope or a time of more than :data:`LONGEST`, and
    :class:`NameTaken`.
    """
    try:
        _name.validate_python(name)
    except ValidationError as error:
        raise InvalidRequest(f"{name!r} can't be the name of a token: {problems(error)[0]}.") from None
    if not wanted:
        raise InvalidRequest(f"A token needs a scope: {', '.join(Scope)}.")
    if not timedelta(0) < lasts <= LONGEST:
        raise InvalidRequest(f"A token ends after up to {LONGEST.days} days.")
    now = system.now()
    token = Token(name, scopes(wanted), now, now + lasts, by.name if by else None)
    text = _PREFIX + secrets.token_urlsafe(_BYTES)
    with system.database.begin() as session:
        tokens.save(session, token, _digest(text))
    return text, token


def every(system: System) -> list[Token]:
    """Return what is known of all tokens, by name."""
    with system.database.read() as session:
        return tokens.every(session)


def revoke(system: System, name: str) -> None:
    """Let a token be good for nothing from now on. Raises :class:`InvalidRequest` where there is none."""
    with system.database.begin() as session:
        tokens.delete(session, name)


def caller(system: System, text: str) -> Caller | None:
    """Return who asks with a token; None for one that is none, was revoked, or has ended."""
    with system.database.read() as session:
        token = tokens.find(session, _digest(text))
    return token.caller(system.now()) if token else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
