"""Pools, workspaces, runs and their events, scaling decisions, failures of pods.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_STATUSES = (
    "status IN ('pending', 'planning', 'apply_pending', 'applying', "
    "'succeeded', 'failed', 'discarded', 'expired', 'cancelled')"
)
_ACTIVE = "status IN ('planning', 'apply_pending', 'applying')"
_STATE_CHANGING = "kind = 'plan_and_apply'"


def upgrade() -> None:
    op.create_table(
        "pools",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("status_message", sa.Text()),
        _time("created_at", nullable=False),
        _time("updated_at", nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_pools"),
    )
    op.create_table(
        "workspaces",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("pool", sa.String(63), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        _time("created_at", nullable=False),
        _time("updated_at", nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_workspaces"),
        sa.ForeignKeyConstraint(["pool"], ["pools.name"], name="fk_workspaces_pool"),
    )
    op.create_index("ix_workspaces_pool", "workspaces", ["pool"])
    _create_runs()
    op.create_table(
        "run_events",
        _serial(),
        sa.Column("run", _run_id(), nullable=False),
        _time("at", nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("detail", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name="pk_run_events"),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name="fk_run_events_run"),
        sa.CheckConstraint(_STATUSES, name=op.f("ck_run_events_status")),
    )
    op.create_index("ix_run_events_run", "run_events", ["run"])
    op.create_table(
        "scaling_decisions",
        _serial(),
        sa.Column("pool", sa.String(63), nullable=False),
        _time("at", nullable=False),
        sa.Column("current", sa.Integer(), nullable=False),
        sa.Column("desired", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_scaling_decisions"),
    )
    op.create_index("ix_scaling_decisions_pool", "scaling_decisions", ["pool", "id"])
    op.create_table(
        "pod_failures",
        _serial(),
        sa.Column("pool", sa.String(63), nullable=False),
        _time("at", nullable=False),
        sa.Column("pod", sa.String(253), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pod_failures"),
    )
    op.create_index("ix_pod_failures_pool", "pod_failures", ["pool", "at"])


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", _run_id(), nullable=False),
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("pool", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("runnable", sa.Boolean(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("auto_apply", sa.Boolean(), nullable=False),
        sa.Column("destroy", sa.Boolean(), nullable=False),
        _time("created_at", nullable=False),
        _time("updated_at", nullable=False),
        _time("finished_at"),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("agent", sa.String(253)),
        sa.Column("slot", sa.Integer()),
        sa.Column("token", sa.String(128)),
        _time("started_at"),
        _time("deadline"),
        _time("confirm_until"),
        sa.Column("commit", sa.String(64), quote=True),
        sa.Column("changes_add", sa.Integer()),
        sa.Column("changes_change", sa.Integer()),
        sa.Column("changes_destroy", sa.Integer()),
        sa.Column("outputs", sa.JSON()),
        sa.Column("reason", sa.String(32)),
        sa.Column("error", sa.Text()),
        sa.Column("cancel_mode", sa.String(32)),
        sa.Column("task", sa.JSON(), nullable=False),
        _time("delivered_at"),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.CheckConstraint("NOT runnable OR status = 'pending'", name=op.f("ck_runs_runnable")),
        sa.CheckConstraint("kind IN ('plan', 'plan_and_apply')", name=op.f("ck_runs_kind")),
        sa.CheckConstraint(_STATUSES, name=op.f("ck_runs_status")),
        sa.CheckConstraint(
            "reason IN ('terraform_failed', 'timed_out', 'agent_lost', 'source_unavailable', 'agent_error')",
            name=op.f("ck_runs_reason"),
        ),
        sa.CheckConstraint("cancel_mode IN ('interrupt', 'kill')", name=op.f("ck_runs_cancel_mode")),
    )
    order: list[str | sa.TextClause] = [sa.text("priority DESC"), "created_at", "id"]
    _partial_index("uq_runs_active", ["workspace"], f"{_STATE_CHANGING} AND {_ACTIVE}", unique=True)
    _partial_index("uq_runs_next", ["workspace"], f"{_STATE_CHANGING} AND runnable", unique=True)
    _partial_index("ix_runs_waiting", ["workspace", *order], f"{_STATE_CHANGING} AND status = 'pending'")
    _partial_index("ix_runs_runnable", ["pool", "kind", *order], "runnable")
    _partial_index("ix_runs_active", ["pool"], _ACTIVE)
    _partial_index("ix_runs_undelivered", ["finished_at"], "finished_at IS NOT NULL AND delivered_at IS NULL")
    op.create_index("ix_runs_recent", "runs", ["created_at"])
    op.create_index("ix_runs_workspace", "runs", ["workspace", "created_at"])
    op.create_index("ix_runs_pool", "runs", ["pool", "created_at"])


def _partial_index(name: str, columns: list[str | sa.TextClause], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, "runs", columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


def _time(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _run_id() -> sa.String:
    return sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")


def _serial() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False, autoincrement=True)
