"""The only speaker of SQL: what was requested and decided, on SQLite and PostgreSQL.

A function takes the session of an open transaction first and never commits; ``Database.begin`` does. Writes state
what they expect, and one that comes too late changes nothing and says so by its return value. Locks are taken in
the order workspaces, runs, each by name; a transaction that changes several runs locks them all first.
"""

from workers.store.configurations import pools, workspaces

__all__ = ["pools", "workspaces"]
