"""Tokens of the HTTP API by their digests; none can be made from what is stored."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from workers.core.access import Token, scopes
from workers.core.errors import NameTaken
from workers.protocol.errors import InvalidRequest
from workers.store.database import insert_if_new
from workers.store.models import ApiToken, Base


def save(session: Session, token: Token, digest: str) -> None:
    """Enter a token. Raises :class:`NameTaken`."""
    table = Base.metadata.tables["api_tokens"]
    new = insert_if_new(
        session, table, name=token.name, digest=digest, scopes=list(token.scopes), created_at=token.created_at,
        expires_at=token.expires_at, created_by=token.created_by,
    )  # fmt: skip
    if not new:
        raise NameTaken(f"There is a token {token.name!r} already: choose another name, or revoke that one.")


def find(session: Session, digest: str) -> Token | None:
    """Return what is known of the token with this digest."""
    row = session.scalar(sa.select(ApiToken).where(ApiToken.digest == digest))
    return None if row is None else _token(row)


def every(session: Session) -> list[Token]:
    """Return all tokens by name, those that have ended as well."""
    return [_token(row) for row in session.scalars(sa.select(ApiToken).order_by(ApiToken.name))]


def delete(session: Session, name: str) -> None:
    """Delete a token. Raises :class:`InvalidRequest` where there is none of that name."""
    if session.scalar(sa.delete(ApiToken).where(ApiToken.name == name).returning(ApiToken.name)) is None:
        raise InvalidRequest(f"No token has the name {name!r}: `terraslot token list` shows all.")


def _token(row: ApiToken) -> Token:
    return Token(row.name, scopes(row.scopes), row.created_at, row.expires_at, row.created_by)
