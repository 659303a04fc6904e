"""The indexes of more than a column or of a part of the rows: for migrations, which make them.

Whoever only reads and writes rows does without: to check their conditions, SQLAlchemy loads both dialects.
"""

from typing import Any

import sqlalchemy as sa

from workers.store.models import (
    ACTIVE,
    OWN_ORDER,
    RUNNABLE,
    START_ORDER,
    STATE_CHANGING,
    UNDELIVERED,
    UNFINISHED,
    UNSETTLED,
    WAITING,
    ApiToken,
    Base,
    RescuedStateRecord,
    Run,
    Workspace,
)

__all__ = ["Base"]


def _partial(name: str, *columns: Any, where: str, unique: bool = False) -> sa.Index:
    condition = sa.text(where)
    return sa.Index(name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


# The two rules of a workspace, each enforced by a unique index.
_partial("uq_runs_active", Run.workspace, where=f"{STATE_CHANGING} AND {ACTIVE}", unique=True)
_partial("uq_runs_next", Run.workspace, where=f"{STATE_CHANGING} AND {RUNNABLE}", unique=True)
_partial("ix_runs_waiting", Run.workspace, *OWN_ORDER, where=f"{STATE_CHANGING} AND {WAITING}")
_partial("ix_runs_runnable", Run.pool, Run.kind, *OWN_ORDER, where=RUNNABLE)  # 0.1 starts runs in this order
_partial("ix_runs_start", Run.pool, Run.kind, *START_ORDER, where=RUNNABLE)
_partial("ix_runs_own_round", Run.workspace, Run.pool, Run.kind, Run.priority, Run.round, where=RUNNABLE)
_partial("ix_runs_active", Run.pool, where=ACTIVE)
_partial("ix_rescued_states_unsettled", RescuedStateRecord.workspace, where=UNSETTLED)
_partial("ix_runs_unfinished", Run.created_at, where=UNFINISHED)
_partial("ix_runs_undelivered", Run.finished_at, where=UNDELIVERED)
sa.Index("uq_workspaces_state_directory", Workspace.state_directory, unique=True)
sa.Index("uq_api_tokens_digest", ApiToken.digest, unique=True)
sa.Index("ix_runs_recent", Run.created_at)
sa.Index("ix_runs_workspace", Run.workspace, Run.created_at)
sa.Index("ix_runs_pool", Run.pool, Run.created_at)
