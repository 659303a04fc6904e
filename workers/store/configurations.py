"""The configurations of pools and workspaces, each under its name, and the status messages of pools.

One that can't be read, written by another version or a person, concerns itself alone: whoever looks at all reads their
names, and then one at a time.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session

from workers.core.errors import NameTaken, StillInUse, UnknownPool, UnknownWorkspace, Unreadable
from workers.core.programs import PoolPrograms
from workers.core.waiting import Outlook
from workers.protocol.kinds import RunKind
from workers.protocol.validation import problems
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store import secrets
from workers.store.database import insert_if_new
from workers.store.models import RUNNABLE, UNFINISHED, UNSETTLED, Base, Pool, RescuedStateRecord, Run, Workspace

Spec = TypeVar("Spec", PoolSpec, WorkspaceSpec)


@dataclass(eq=False)
class _Configurations(Generic[Spec]):
    """What pools and workspaces have in common. An unknown name raises ``not_found``."""

    kind: secrets.Owner
    spec: type[Spec]
    row: type[Pool | Workspace]
    of_run: InstrumentedAttribute[str]
    not_found: type[UnknownPool | UnknownWorkspace]

    def __post_init__(self) -> None:
        # Built once, and from the table: every submission, dispatch and start of a run reads it.
        columns = Base.metadata.tables[self.row.__tablename__].c
        self._named = sa.select(columns.spec).where(columns.name == sa.bindparam("name"))

    def save(self, session: Session, spec: Spec, now: datetime) -> None:
        """Create one. Raises :class:`NameTaken`."""
        table = Base.metadata.tables[self.row.__tablename__]
        if not insert_if_new(session, table, name=spec.name, created_at=now, **self._values(spec, now)):
            raise NameTaken(f"There is a {self.kind} {spec.name!r} already: choose another name, or change that one.")

    def update(self, session: Session, spec: Spec, now: datetime) -> None:
        """Replace one. Runs that were entered before stay in the pool that their workspace named then."""
        self._change(session, spec.name, **self._values(spec, now))

    def get(self, session: Session, name: str) -> Spec:
        """Return one by its name. Raises :class:`Unreadable`."""
        try:
            spec = session.scalar(self._named, {"name": name})
            if spec is None:
                raise self.unknown(name)
            return self.spec.model_validate(spec)
        except ValueError as error:  # of pydantic, or of the driver that decodes the column
            raise self._unreadable(name, error) from error

    def parse(self, name: str, stored: str) -> Spec:
        """Return the configuration that is stored under a name as this JSON. Raises :class:`Unreadable`."""
        try:
            return self.spec.model_validate_json(stored)
        except ValueError as error:
            raise self._unreadable(name, error) from error

    def names(self, session: Session) -> list[str]:
        """Return all names in order, also of those that can't be read."""
        return list(session.scalars(sa.select(self.row.name).order_by(self.row.name)))

    def delete(self, session: Session, name: str) -> None:
        """Delete one, and its secrets; its runs stay on record. Raises :class:`StillInUse` while anything needs it.

        The lock on its row keeps workspaces and runs from being added to it before this transaction ends.
        """
        named = self.row.name == name
        if session.scalar(sa.select(self.row.name).where(named).with_for_update()) is None:
            raise self.unknown(name)
        self.expect_unused(session, name)
        secrets.purge(session, self.kind, name)
        session.execute(sa.delete(self.row).where(named))

    def expect_unused(self, session: Session, name: str) -> None:
        """Raise :class:`StillInUse` while anything needs it."""
        self.expect_no_run(session, name)

    def expect_no_run(self, session: Session, name: str) -> None:
        """Raise :class:`StillInUse` while a run of it is not over."""
        run = session.scalar(sa.select(Run.id).where(self.of_run == name, sa.text(UNFINISHED)).limit(1))
        if run is not None:
            raise StillInUse(
                f"The {self.kind} {name!r} can't be deleted: its run {run} is not over. Wait for it, or cancel it."
            )

    def unknown(self, name: str) -> UnknownPool | UnknownWorkspace:
        """Return the error for one that does not exist."""
        return self.not_found(f"No {self.kind} has the name {name!r}: `terraslot {self.kind} list` shows all.")

    def _unreadable(self, name: str, error: ValueError) -> Unreadable:
        wrong = "; ".join(problems(error)) if isinstance(error, ValidationError) else str(error)
        return Unreadable(
            f"The stored configuration of the {self.kind} {name!r} can't be read: {wrong}. Another version of this "
            "control plane may have written it: use that one, or correct it in the database."
        )

    def _change(self, session: Session, name: str, **values: Any) -> None:
        changed = sa.update(self.row).where(self.row.name == name).values(values).returning(self.row.name)
        if session.scalar(changed) is None:
            raise self.unknown(name)

    def _values(self, spec: Spec, now: datetime) -> dict[str, Any]:
        return {"spec": spec.model_dump(mode="json", exclude_defaults=True), "updated_at": now}


_pools = Base.metadata.tables["pools"].c
_runs = Base.metadata.tables["runs"].c
_POOL_WITH_PROGRAMS = sa.select(_pools.spec, _pools.programs).where(_pools.name == sa.bindparam("name"))
_POOL_TO_JOIN = _POOL_WITH_PROGRAMS.add_columns(
    *(
        sa.exists().where(_runs.pool == sa.bindparam("name"), _runs.kind == kind, sa.text(RUNNABLE)).label(kind)
        for kind in RunKind
    )
).with_for_update(read=True, key_share=True, of=Base.metadata.tables["pools"])
_POOL_PROGRAMS = sa.select(Pool.programs).where(Pool.name == sa.bindparam("name")).with_for_update()
# The columns of an :class:`Outlook`, in the order of its fields.
OUTLOOK = (Pool.starting_pods, Pool.available_agents, Pool.blocked, Pool.cycle_due)


def outlook(columns: Sequence[Any]) -> Outlook | None:
    """Return the outlook that a pool's columns say; None where no cycle has stored one."""
    starting, available, blocked, due = columns
    return None if due is None else Outlook(starting or 0, available or 0, blocked, due)


class PoolToJoin(NamedTuple):
    """A pool, what its agents have, and of which kinds runs of it wait for nothing but a slot."""

    spec: PoolSpec
    programs: PoolPrograms
    waiting: set[RunKind]


class _Pools(_Configurations[PoolSpec]):
    def set_status(self, session: Session, name: str, message: str | None, now: datetime) -> None:
        """Store what keeps the pool from its desired state; None where nothing does."""
        self._change(session, name, status_message=message, updated_at=now)

    def observed(self, session: Session, name: str, message: str | None, outlook: Outlook) -> None:
        """Store what a cycle has found: what keeps the pool from its desired state, and what runs can expect."""
        columns = {column.key: value for column, value in zip(OUTLOOK, astuple(outlook), strict=True)}
        self._change(session, name, status_message=message, **columns)

    def outlook(self, session: Session, name: str) -> Outlook | None:
        """Return what the last cycle says of agents to come; None where none has ended yet."""
        found = self.outlooks(session, (name,))
        if name not in found:
            raise self.unknown(name)
        return found[name][1]

    def outlooks(self, session: Session, names: Collection[str]) -> dict[str, tuple[str, Outlook | None]]:
        """Return configurations, as JSON, and outlooks of those of these pools that there are, by name."""
        chosen = sa.select(Pool.name, sa.cast(Pool.spec, sa.Text), *OUTLOOK).where(Pool.name.in_(names))
        return {name: (spec, outlook(columns)) for name, spec, *columns in session.execute(chosen)}

    def status(self, session: Session, name: str) -> str | None:
        """Return what keeps the pool from its desired state."""
        row = session.execute(sa.select(Pool.status_message).where(Pool.name == name)).one_or_none()
        if row is None:
            raise self.unknown(name)
        message: str | None = row.status_message
        return message

    def with_programs(self, session: Session, name: str) -> tuple[PoolSpec, PoolPrograms]:
        """Return a pool with what its agents have. Raises as :meth:`get`."""
        spec, programs, _ = self._with_programs(session, name, _POOL_WITH_PROGRAMS)
        return spec, programs

    def to_join(self, session: Session, name: str) -> PoolToJoin:
        """Lock a pool for a run that is added to it, until the transaction ends. Raises as :meth:`get`."""
        spec, programs, waits = self._with_programs(session, name, _POOL_TO_JOIN)
        return PoolToJoin(spec, programs, {kind for kind, waits in zip(RunKind, waits, strict=True) if waits})

    def _with_programs(
        self, session: Session, name: str, wanted: sa.Select[Any]
    ) -> tuple[PoolSpec, PoolPrograms, Sequence[Any]]:
        try:
            row = session.execute(wanted, {"name": name}).one_or_none()
            if row is None:
                raise self.unknown(name)
            spec, programs, *others = row
            return self.spec.model_validate(spec), PoolPrograms.stored(programs), others
        except ValueError as error:
            raise self._unreadable(name, error) from error

    def change_programs(
        self, session: Session, name: str, change: Callable[[PoolPrograms], PoolPrograms], now: datetime
    ) -> None:
        """Store what agents have as ``change`` makes it of what is stored."""
        row = session.execute(_POOL_PROGRAMS, {"name": name}).one_or_none()
        if row is None:
            raise self.unknown(name)
        self._change(session, name, programs=change(PoolPrograms.stored(row.programs)).row, updated_at=now)

    def expect_unused(self, session: Session, name: str) -> None:
        self.expect_no_workspace(session, name)
        self.expect_no_run(session, name)

    def expect_no_workspace(self, session: Session, name: str) -> None:
        """Raise :class:`StillInUse` while a workspace names the pool."""
        workspace = session.scalar(sa.select(Workspace.name).where(Workspace.pool == name).limit(1))
        if workspace is not None:
            raise StillInUse(f"The pool {name!r} can't be deleted: the workspace {workspace!r} uses it. Move it first.")


_state_directory = sa.func.coalesce(Workspace.state_directory, Workspace.name)
_workspaces = Base.metadata.tables["workspaces"].c
_STATE = sa.func.coalesce(_workspaces.state_directory, _workspaces.name).label("state")
_STATE_OF = sa.select(_STATE).where(_workspaces.name == sa.bindparam("name"))
_TO_RUN = sa.select(_workspaces.name, _workspaces.spec, _STATE)
_NAMED_TO_RUN = _TO_RUN.where(_workspaces.name == sa.bindparam("name"))
_LOCKED_TO_RUN = _NAMED_TO_RUN.with_for_update(key_share=True)
_THESE_TO_RUN = _TO_RUN.where(_workspaces.name.in_(sa.bindparam("names", expanding=True)))


class WorkspaceToRun(NamedTuple):
    """A workspace, and the directory in which local pools keep its state; one of 0.1 has its name."""

    spec: WorkspaceSpec
    state_directory: str


class _Workspaces(_Configurations[WorkspaceSpec]):
    def save(self, session: Session, spec: WorkspaceSpec, now: datetime, state_directory: str | None = None) -> None:
        """Create one. Raises :class:`NameTaken`, and :class:`StillInUse` where another has this state."""
        with _existing_pool(spec):
            super().save(session, spec, now)
        if state_directory is not None:
            self._give_state(session, spec.name, state_directory)

    def state_directory(self, session: Session, name: str) -> str:
        """Return the directory in which local pools keep the state of a workspace, also of one that can't be read."""
        found: str | None = session.scalar(_STATE_OF, {"name": name})
        if found is None:
            raise self.unknown(name)
        return found

    def to_run(self, session: Session, name: str, *, lock: bool = False) -> WorkspaceToRun:
        """Return a workspace with what its orders need. Raises as :meth:`get`.

        ``lock`` its queue until the transaction ends, as :mod:`workers.store.workspace_queue` does.
        """
        try:
            row = session.execute(_LOCKED_TO_RUN if lock else _NAMED_TO_RUN, {"name": name}).one_or_none()
            if row is None:
                raise self.unknown(name)
            return self._to_run(row)
        except ValueError as error:
            raise self._unreadable(name, error) from error

    def these_to_run(self, session: Session, names: Collection[str]) -> dict[str, WorkspaceToRun]:
        """Return those of these workspaces that can be read, by name; where the driver fails at one, none."""
        found = dict[str, WorkspaceToRun]()
        with suppress(ValueError):
            for row in session.execute(_THESE_TO_RUN, {"names": sorted(names)}).all():
                with suppress(ValueError):
                    found[row.name] = self._to_run(row)
        return found

    def _to_run(self, row: Any) -> WorkspaceToRun:
        return WorkspaceToRun(self.spec.model_validate(row.spec), row.state)

    def _give_state(self, session: Session, name: str, directory: str) -> None:
        others = sa.select(Workspace.name).where(_state_directory == directory, Workspace.name != name)
        owner = session.scalar(others.limit(1))
        if owner is not None:
            raise StillInUse(f"The state {directory!r} is that of the workspace {owner!r}: a state has one workspace.")
        try:
            self._change(session, name, state_directory=directory)
        except IntegrityError as error:
            raise StillInUse(f"Another workspace takes the state {directory!r} at this moment.") from error

    def expect_unused(self, session: Session, name: str) -> None:
        self.expect_no_run(session, name)
        unsaved = sa.select(RescuedStateRecord.run).where(RescuedStateRecord.workspace == name, sa.text(UNSETTLED))
        if (run := session.scalar(unsaved.limit(1))) is not None:
            raise StillInUse(
                f"The workspace {name!r} can't be deleted: its run {run} could not save its state. "
                f"`terraslot state push {run}` does, `terraslot state give-up {run}` lets it go."
            )

    def update(self, session: Session, spec: WorkspaceSpec, now: datetime) -> None:
        with _existing_pool(spec):
            super().update(session, spec, now)

    def _values(self, spec: WorkspaceSpec, now: datetime) -> dict[str, Any]:
        return {"pool": spec.pool, **super()._values(spec, now)}


@contextmanager
def _existing_pool(spec: WorkspaceSpec) -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise UnknownPool(
            f"There is no pool {spec.pool!r}, which the workspace {spec.name!r} names: create it first."
        ) from error


pools = _Pools(secrets.Owner.POOL, PoolSpec, Pool, Run.pool, UnknownPool)
workspaces = _Workspaces(secrets.Owner.WORKSPACE, WorkspaceSpec, Workspace, Run.workspace, UnknownWorkspace)
