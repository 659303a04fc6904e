"""Inserting a row that may be there already, in one statement and without an error that ends the transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from workers.store.models import Base

_INSERT: Mapping[str, Callable[..., postgresql.Insert | sqlite.Insert]] = {
    "postgresql": postgresql.insert,
    "sqlite": sqlite.insert,
}


def insert_if_new(session: Session, model: type[Base], **values: Any) -> bool:
    """Insert a row; return False, having changed nothing, where one with its primary key is there.

    Where another transaction is about to insert the same key, waits for it to end.
    """
    key = inspect(model).primary_key
    insert = _INSERT[session.get_bind().dialect.name]
    statement = insert(model).values(values).on_conflict_do_nothing(index_elements=key).returning(*key)
    return session.execute(statement).first() is not None
