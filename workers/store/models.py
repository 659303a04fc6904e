"""The tables. Times are timezone-aware UTC on both databases, enums their text with a CHECK.

Runs and decisions outlive their workspace and pool: they name them by plain text, so that the history of a deleted
workspace can still be read. :mod:`workers.store.configurations` refuses to delete what a run needs, under the lock that
:func:`workers.store.runs.add` takes as well.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NotRequired, Self, TypedDict

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from workers.core.lifecycle import EXECUTING, EventDetail, RunStatus
from workers.protocol.kinds import FailureReason, RunKind
from workers.protocol.leases import CancelMode
from workers.protocol.names import trace_id


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A point in time. A naive one is refused; what is read is always UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Store UTC; SQLite stores text, which sorts by time only within one zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no timezone: times are timezone-aware here")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Return UTC, whatever the zone of the server's session."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class SanitizedText(sa.TypeDecorator[str]):
    """Text from agents, Terraform or the cluster: NUL, which PostgreSQL refuses in text, is replaced."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002 - the hook's
        """Replace NUL by U+FFFD, the replacement character."""
        return value.replace("\x00", "\ufffd") if value else value


def _enum(members: type[StrEnum], name: str) -> sa.Enum:
    return sa.Enum(
        members,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=32,
        values_callable=lambda enum: [member.value for member in enum],
    )


# Ids compare byte by byte on both databases, so that prefixes are found by index and orders agree.
_Id = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
_Json = sa.JSON(none_as_null=True)
# On SQLite only INTEGER counts up by itself, and it is as long as it needs to be.
_Serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")


class Base(DeclarativeBase):
    """Declares the tables, and the names that constraints get."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's declaration
        datetime: UtcDateTime,
        dict[str, Any]: _Json,
        RunKind: _enum(RunKind, "kind"),
        RunStatus: _enum(RunStatus, "status"),
        FailureReason: _enum(FailureReason, "reason"),
        CancelMode: _enum(CancelMode, "cancel_mode"),
    }


class Pool(Base):
    """A pool. ``spec`` is a :class:`PoolSpec`; ``status_message`` says what keeps the pool from its desired state.

    ``programs``: the :class:`PoolPrograms` of its agents; None where none has registered yet.
    ``starting_pods``, ``available_agents``, ``blocked``, ``cycle_due``: the :class:`Outlook` of its last cycle.
    """

    __tablename__ = "pools"

    name: Mapped[str] = mapped_column(sa.String(63), primary_key=True)
    spec: Mapped[dict[str, Any]]
    status_message: Mapped[str | None] = mapped_column(SanitizedText)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    programs: Mapped[dict[str, Any] | None]
    starting_pods: Mapped[int | None]
    available_agents: Mapped[int | None]
    blocked: Mapped[str | None] = mapped_column(SanitizedText)
    cycle_due: Mapped[datetime | None]


class Workspace(Base):
    """A workspace. ``spec`` is a :class:`WorkspaceSpec`, ``pool`` the one it names.

    ``state_directory``: its identity where local pools keep states; None for one of 0.1, whose name is its identity.
    ``locked_*`` and ``lock_message``: the :class:`MaintenanceLock` that somebody has set; None for none.
    """

    __tablename__ = "workspaces"

    name: Mapped[str] = mapped_column(sa.String(63), primary_key=True)
    pool: Mapped[str] = mapped_column(sa.ForeignKey("pools.name"), index=True)
    spec: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    state_directory: Mapped[str | None] = mapped_column(sa.String(128))
    locked_by: Mapped[str | None] = mapped_column(SanitizedText)
    locked_at: Mapped[datetime | None]
    lock_message: Mapped[str | None] = mapped_column(SanitizedText)


class TaskMessage(TypedDict):
    """The Celery message that a run was submitted by, as it is needed to send it again.

    ``node``: the worker that took it; a run of 0.1 has none.
    """

    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    node: NotRequired[str]


class Run(Base):
    """A run. Its id is that of the Celery task that submitted it.

    ``agent``, ``slot``, ``token``: its lease, or the last one it had. ``started_at``: when the current phase's token
    was redeemed; None while that is not known. ``deadline``: when the current phase has to be over. ``delivered_at``:
    when its outcome became a Celery result. ``delivery_claimed_until``: a worker makes it one until then.
    ``options``: :class:`OrderOptions`, None for none. ``message``: why its caller asked for it. ``encrypted``: its own
    sensitive variables, until it is over. ``actor``: who asked for it, None where that was not said.
    ``remind_at``: when people are reminded that its confirmation expires; None once they were. ``terraform``: the
    program that it requires, as its workspace or pool did when it was asked for. ``program``: what made its plan.
    ``start_error``: why its order could not be made, though a slot was free; None once it was. ``ordered_at``: when the
    current phase was ordered. ``trace``: the W3C traceparent of its caller, or of the trace that it has begun; None
    where it is not traced.

    ``runnable``: the run needs nothing but a slot. A pending plan always is runnable; a pending plan_and_apply is
    while no run of its workspace is active, the workspace is not locked, and it is the first of those that wait.
    ``round``: where it stands among the runnable runs of its priority; each workspace starts one run in a round.
    :mod:`workers.store.workspace_queue` keeps both, so that the next run is found at the same cost however many wait.
    """

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    workspace: Mapped[str] = mapped_column(sa.String(63))
    pool: Mapped[str] = mapped_column(sa.String(63))
    kind: Mapped[RunKind]
    status: Mapped[RunStatus]
    runnable: Mapped[bool]
    priority: Mapped[int]
    auto_apply: Mapped[bool]
    destroy: Mapped[bool]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    attempt: Mapped[int]
    agent: Mapped[str | None] = mapped_column(sa.String(253))
    slot: Mapped[int | None]
    token: Mapped[str | None] = mapped_column(sa.String(128))
    started_at: Mapped[datetime | None]
    deadline: Mapped[datetime | None]
    confirm_until: Mapped[datetime | None]
    commit: Mapped[str | None] = mapped_column("commit", sa.String(64), quote=True)
    changes_add: Mapped[int | None]
    changes_change: Mapped[int | None]
    changes_destroy: Mapped[int | None]
    outputs: Mapped[dict[str, Any] | None]
    reason: Mapped[FailureReason | None]
    error: Mapped[str | None] = mapped_column(SanitizedText)
    cancel_mode: Mapped[CancelMode | None]
    task: Mapped[TaskMessage] = mapped_column(_Json)
    delivered_at: Mapped[datetime | None]
    delivery_claimed_until: Mapped[datetime | None]
    options: Mapped[dict[str, Any] | None]
    message: Mapped[str | None] = mapped_column(SanitizedText)
    encrypted: Mapped[str | None] = mapped_column(sa.Text)
    actor: Mapped[str | None] = mapped_column(SanitizedText)
    remind_at: Mapped[datetime | None]
    round: Mapped[int] = mapped_column(server_default=sa.text("0"))
    terraform: Mapped[str | None] = mapped_column(sa.String(200))
    program: Mapped[str | None] = mapped_column(sa.String(100))
    start_error: Mapped[str | None] = mapped_column(SanitizedText)
    ordered_at: Mapped[datetime | None]
    trace: Mapped[str | None] = mapped_column(sa.String(55))

    __table_args__ = (sa.CheckConstraint("NOT runnable OR status = 'pending'", name="runnable"),)

    def __init__(self, **columns: Any) -> None:
        """Make a run of its columns, as a value: statements write runs, so nothing has to track its changes."""
        self.__dict__.update(columns)

    @classmethod
    def of(cls, row: sa.Row[Any]) -> Self:
        """Return the run of a row of the table; the ORM would take longer for it than the database."""
        return cls(**row._mapping)

    @property
    def about(self) -> dict[str, Any]:
        """What every log line of the run says; ``phase``: the one that an agent executes, None while none does."""
        phase = EXECUTING.get(self.status)
        return {
            "run": self.id, "workspace": self.workspace, "pool": self.pool, "agent": self.agent, "slot": self.slot,
            "phase": phase and phase.value, "attempt": self.attempt,
            **({"trace_id": trace_id(self.trace)} if self.trace else {}),
        }  # fmt: skip

    @property
    def changes(self) -> dict[str, int | None]:
        """What its plan would change, or its apply changed; None before it was planned."""
        return {"add": self.changes_add, "change": self.changes_change, "destroy": self.changes_destroy}


class RunEventRecord(Base):
    """What happened to a run, in order. ``event``: a :class:`RunEvent` or :class:`RunNote`; ``status``: since then."""

    __tablename__ = "run_events"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True)
    run: Mapped[str] = mapped_column(_Id, sa.ForeignKey("runs.id"), index=True)
    at: Mapped[datetime]
    event: Mapped[str] = mapped_column(SanitizedText)
    status: Mapped[RunStatus]
    detail: Mapped[EventDetail | None] = mapped_column(_Json)


class RunPlan(Base):
    """The resource changes of a run's latest plan: ``detail`` is a :class:`PlanDetail`, that of ``attempt``."""

    __tablename__ = "run_plans"

    run: Mapped[str] = mapped_column(_Id, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int]
    detail: Mapped[dict[str, Any]]


class RunProgress(Base):
    """What the apply of a run has done by its end: ``detail`` is a :class:`Progress`."""

    __tablename__ = "run_progress"

    run: Mapped[str] = mapped_column(_Id, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    detail: Mapped[dict[str, Any]]


class Delivery(Base):
    """The attempts to send an overdue outcome again. ``error``: why the last one failed; ``next_at``: not before."""

    __tablename__ = "deliveries"

    run: Mapped[str] = mapped_column(_Id, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    attempts: Mapped[int]
    next_at: Mapped[datetime]
    error: Mapped[str | None] = mapped_column(SanitizedText)


class RunLogPiece(Base):
    """A piece of a run's log, as :mod:`workers.core.logs` packs it: ``lines``, up to the one with the id ``last``.

    One that had to go for the run's budget has no content.
    """

    __tablename__ = "run_logs"

    run: Mapped[str] = mapped_column(_Id, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last: Mapped[str] = mapped_column(sa.String(64))
    lines: Mapped[int]
    content: Mapped[bytes]


class RescuedStateRecord(Base):
    """A state that Terraform could not save. While it is not settled, state-changing runs of its workspace wait.

    ``size``: bytes, as Terraform wrote it. ``content``: it, packed and encrypted; None where it stayed on its agent, or
    is in its backend again. ``in_transit``: encrypted with its pool's payload key yet, else with the platform's.
    ``settled_as``: ``pushed``, or ``given up``.
    """

    __tablename__ = "rescued_states"

    run: Mapped[str] = mapped_column(_Id, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    workspace: Mapped[str] = mapped_column(sa.String(63))
    size: Mapped[int] = mapped_column(sa.BigInteger)
    content: Mapped[str | None] = mapped_column(sa.Text, deferred=True)
    in_transit: Mapped[bool]
    settled_at: Mapped[datetime | None]
    settled_as: Mapped[str | None] = mapped_column(sa.String(16))


class StateLockRecord(Base):
    """The lock of a state that a run has met. ``lock``: a :class:`StateLock`; ``holder``: the run that has it, if any.

    ``ended_at``: when a run of this system has ended it.
    """

    __tablename__ = "state_locks"

    run: Mapped[str] = mapped_column(_Id, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    lock: Mapped[dict[str, Any]]
    met_at: Mapped[datetime]
    holder: Mapped[str | None] = mapped_column(_Id)
    ended_at: Mapped[datetime | None]


class ScalingDecision(Base):
    """A decision about a pool's size, its reason, and its ``facts``: a :class:`PoolFacts` as a dict."""

    __tablename__ = "scaling_decisions"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True)
    pool: Mapped[str] = mapped_column(sa.String(63))
    at: Mapped[datetime]
    current: Mapped[int]
    desired: Mapped[int]
    reason: Mapped[str] = mapped_column(SanitizedText)
    facts: Mapped[dict[str, Any]]

    __table_args__ = (sa.Index("ix_scaling_decisions_pool", "pool", "id"), sa.Index("ix_scaling_decisions_at", "at"))


class PoolSample(Base):
    """What a pool was from ``at`` on, for ``seconds``: of each number the largest that a cycle has seen.

    ``ready`` agents accept runs, ``starting`` pods have not registered; ``running`` and ``reserved`` are slots,
    ``waiting_*`` runs that lack nothing but a slot. Samples outlive their pool.
    """

    __tablename__ = "pool_samples"

    pool: Mapped[str] = mapped_column(sa.String(63), primary_key=True)
    seconds: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    ready: Mapped[int]
    starting: Mapped[int]
    running: Mapped[int]
    reserved: Mapped[int]
    waiting_plans: Mapped[int]
    waiting_applies: Mapped[int]

    __table_args__ = (sa.Index("ix_pool_samples_seconds", "seconds", "at"),)


class PodFailure(Base):
    """A pod that failed or never registered, or could not be created: ``pod`` is empty then.

    The creation of pods backs off after several.
    """

    __tablename__ = "pod_failures"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True)
    pool: Mapped[str] = mapped_column(sa.String(63))
    at: Mapped[datetime]
    pod: Mapped[str] = mapped_column(sa.String(253))
    reason: Mapped[str] = mapped_column(SanitizedText)

    __table_args__ = (sa.Index("ix_pod_failures_pool", "pool", "at"), sa.Index("ix_pod_failures_at", "at"))


class PoolCredential(Base):
    """One generation of a pool's credential: its password and payload key, encrypted with the platform's keys."""

    __tablename__ = "pool_credentials"

    pool: Mapped[str] = mapped_column(sa.String(63), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    encrypted: Mapped[str] = mapped_column("sealed", sa.Text)
    created_at: Mapped[datetime]
    disconnected_at: Mapped[datetime | None]


class EncryptedVariables(Base):
    """The sensitive variables of a workspace or a pool, encrypted with the platform's keys."""

    __tablename__ = "sealed_variables"

    owner_kind: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(63), primary_key=True)
    encrypted: Mapped[str] = mapped_column("sealed", sa.Text)
    updated_at: Mapped[datetime]

    __table_args__ = (sa.CheckConstraint("owner_kind IN ('workspace', 'pool')", name="owner_kind"),)


class ApiToken(Base):
    """A program's token for the HTTP API: the digest of it alone."""

    __tablename__ = "api_tokens"

    name: Mapped[str] = mapped_column(sa.String(63), primary_key=True)
    digest: Mapped[str] = mapped_column(sa.String(64))
    scopes: Mapped[list[str]] = mapped_column(_Json)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    created_by: Mapped[str | None] = mapped_column(SanitizedText)


# The conditions of partial indexes, which :mod:`workers.store.indexes` has. Queries repeat them to the letter: neither
# planner recognises a condition whose values arrive as parameters.
STATE_CHANGING = f"kind = '{RunKind.PLAN_AND_APPLY}'"
WAITING = f"status = '{RunStatus.PENDING}'"
ACTIVE = f"status IN ({', '.join(repr(status.value) for status in RunStatus if status.holds_slot)})"
RUNNABLE = "runnable"
UNFINISHED = "finished_at IS NULL"
UNSETTLED = "settled_at IS NULL"
UNDELIVERED = "finished_at IS NOT NULL AND delivered_at IS NULL"

_columns = Base.metadata.tables["runs"].c
# The order in which runs of one workspace start, and that of the runs of a pool.
OWN_ORDER = (_columns.priority.desc(), _columns.created_at, _columns.id)
START_ORDER = (_columns.priority.desc(), _columns.round, _columns.created_at, _columns.id)
