"""Inserting a row that may be there already, in one statement and without an error that ends the transaction."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningInsert

_INSERT: Mapping[str, Callable[..., postgresql.Insert | sqlite.Insert]] = {
    "postgresql": postgresql.insert,
    "sqlite": sqlite.insert,
}


def insert_if_new(session: Session, table: Table, **values: Any) -> bool:
    """Insert a row; return False, having changed nothing, where one with its primary key is there.

    Where another transaction is about to insert the same key, waits for it to end.
    """
    statement = _statement(session.get_bind().dialect.name, table)
    return session.execute(statement, values).first() is not None


@cache
def _statement(dialect: str, table: Table) -> ReturningInsert[Any]:
    keys = list(table.primary_key.columns)
    return _INSERT[dialect](table).on_conflict_do_nothing(index_elements=keys).returning(*keys)
