"""Pods that are processes of this machine, behind the interface that Kubernetes pods have.

A pod is a directory ``HOME/pods/POOL/NAME`` and the process ``python -m agent`` that works in it, in a session of its
own, so that neither a terminal's Ctrl-C nor the end of the worker that started it reaches it. One file lock for each
pool, which the kernel releases when its holder dies, makes every call one step for all threads and processes. No call
waits for a process: deadlines are written to the pod's record, and the next call acts on them.

A pod exists as long as its agent, or anything that the agent started, lives. An agent that was killed while it applied
is started again, as a kubelet would: its terraform has gone on, and it reports how that ends. Anything else that a dead
agent left gets one SIGINT and time to end; reports that it could not send are kept for the pool's next cycle.
"""

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM

from workers.cluster import agent_files, kept_reports, pod_record, process_log, processes
from workers.cluster.backend import PodBackend, Pods
from workers.cluster.pod_record import LOG, WORK, PodRecord
from workers.cluster.processes import OrphanedGroup, Process, orphaned_groups
from workers.cluster.system_user import SystemUser
from workers.core.pods import Pod
from workers.protocol.agent_directory import CHILDREN
from workers.protocol.errors import Unavailable
from workers.protocol.pool_secret import SECRET_FILE
from workers.protocol.version import PROTOCOL
from workers.specs.pools import PoolSpec

_PREFIX = "TERRASLOT_"  # of all variables that are this system's
# Of those that the control plane reads: they hold the passwords of Flower's users, and the keys of a collector.
_WITHHELD = (_PREFIX, "FLOWER_", "OTEL_")
_CLOSED = "closed"
_CHILDREN = f"{WORK}/{CHILDREN}"
# The same for all agents that are started now; those of an earlier protocol version have another.
TEMPLATE = f"protocol-{PROTOCOL}"
AGENT = (sys.executable, "-P", "-m", "agent")
# Seconds. On a laptop, waiting for the longest apply would look like a hang: terraform is interrupted within these.
_GRACE = 60


@dataclass(frozen=True)
class LocalPods(PodBackend):
    """Local pods under ``home``; ``environment``: the variables ``TERRASLOT_*`` that all agents share.

    The supervisor and `down` give no environment: they start no agent again, as a cluster worker does.

    ``grace``: seconds from SIGTERM to SIGKILL. ``orphan_grace``: seconds from SIGINT to SIGKILL for what a dead agent
    left running. ``user``: as whom agents run, if not as this process.
    """

    on_this_machine = True
    moves_pods = False
    list_is_authoritative = True

    home: Path
    environment: Mapping[str, str] = field(repr=False)
    _: KW_ONLY
    grace: float = _GRACE
    orphan_grace: float = _GRACE
    command: Sequence[str] = AGENT
    user: SystemUser | None = None
    clock: Callable[[], float] = time.time

    @property
    def _root(self) -> Path:
        return self.home / "pods"

    def pools(self) -> list[str]:
        """Return the pools that have, or had, pods on this machine."""
        with _unavailable("list", str(self._root)):
            return sorted(entry.name for entry in self._root.iterdir() if entry.is_dir()) if self._root.exists() else []

    def list(self, pool: str) -> Pods:
        """See :meth:`PodBackend.list`; acts on deadlines."""
        with self._locked(pool) as directory:
            return [pod for path in sorted(directory.iterdir()) if (pod := self._act(path))]

    def orphaned_pods(self, pools: Collection[str]) -> Pods:
        """See :meth:`PodBackend.orphaned_pods`."""
        return [pod for pool in self.pools() if pool not in pools for pod in self.list(pool)]

    def template(self, spec: PoolSpec) -> str:  # noqa: ARG002 - the protocol's
        """See :meth:`PodBackend.template`: an order brings the pool's configuration; only versions differ."""
        return TEMPLATE

    def create(self, spec: PoolSpec, name: str) -> None:
        """See :meth:`PodBackend.create`."""
        with self._locked(spec.name) as directory:
            if (self._root / _CLOSED).exists():
                raise Unavailable(f"No agent is started in the pool '{spec.name}': the embedded system is stopping.")
            path = directory / name
            if self._record(path):
                return
            (path / WORK).mkdir(parents=True)
            if self.user:
                self._let_in(self.user, directory, path)
                self.user.own(path / WORK)
            process = self._start(path)
            PodRecord(pid=process.pid, started=process.started, created_at=self.clock(), template=TEMPLATE).write(path)

    def left_reports(self, pool: str) -> Iterator[bytes]:
        """See :meth:`PodBackend.left_reports`."""
        return kept_reports.take(self._reports(pool))

    def delete(self, pod: Pod, *, force: bool = False) -> Pod | None:
        """See :meth:`PodBackend.delete`."""
        return self._end(pod, 0 if force else self.grace, force=force)

    def expire_grace(self, pod: Pod) -> Pod | None:
        """End the grace period of a pod: its agent is killed now, and the agent's children get their SIGINT."""
        return self._end(pod, 0)

    def put_secret(self, spec: PoolSpec, content: str) -> None:
        """See :meth:`PodBackend.put_secret`."""
        directory = self._secret_dir(spec.name)
        path = directory / SECRET_FILE
        with _unavailable("write", str(path)):
            written = content.encode(), self.user.uid if self.user else os.geteuid()
            with suppress(OSError):  # agents may have written to it
                if agent_files.read(path, len(written[0])) == written:
                    return
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = path.with_suffix(".new")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(content)
            if self.user:
                directory.chmod(0o711)
                self.user.own(fresh)
            fresh.replace(path)

    def delete_secret(self, spec: PoolSpec) -> None:
        """See :meth:`PodBackend.delete_secret`."""
        directory = self._secret_dir(spec.name)
        with _unavailable("delete", str(directory)), suppress(FileNotFoundError):
            shutil.rmtree(directory)
        shutil.rmtree(self._reports(spec.name), ignore_errors=True)

    def check(self, spec: PoolSpec) -> None:
        """Do nothing: every configuration of a local pool is possible."""

    def close(self) -> None:
        """Refuse new pods from now on. A creation that is under way ends before any later call returns."""
        with _unavailable("close", str(self._root)):
            self._root.mkdir(parents=True, exist_ok=True)
            (self._root / _CLOSED).touch()

    def open(self) -> None:
        """Allow new pods again. Raises :class:`InvalidRequest` where agents can't run as their user."""
        with _unavailable("open", str(self._root)):
            self._root.mkdir(parents=True, exist_ok=True)
            (self._root / _CLOSED).unlink(missing_ok=True)
            if self.user is None:
                self.home.chmod(0o700)
            else:
                self._let_in(self.user)
                self.user.check(self._root)

    def _let_in(self, user: SystemUser, *directories: Path) -> None:
        """Let agents of this user reach what is theirs under ``home``, and nothing else."""
        secrets, state = self.home / "secrets", self.home / "state"
        secrets.mkdir(exist_ok=True)
        for entry in set(self.home.iterdir()) - {self._root, secrets, state}:
            with suppress(FileNotFoundError):  # other processes replace files meanwhile
                entry.chmod(entry.stat().st_mode & 0o700)
        for directory in (self.home, self._root, secrets, *directories):
            directory.chmod(0o711)
        user.adopt(state)

    @contextmanager
    def _locked(self, pool: str) -> Iterator[Path]:
        directory = self._root / pool
        with _unavailable("use", str(directory)):
            directory.mkdir(parents=True, exist_ok=True)
            with (self._root / f"{pool}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield directory

    def _record(self, path: Path) -> PodRecord | None:
        """Return the record of a pod's directory; None if there is no pod.

        A process without a record, whose creator died before it wrote one, is found by its environment. A directory
        without a process is removed.
        """
        if (record := pod_record.read(path)) or not path.exists():
            return record
        process = processes.with_environment(f"{_PREFIX}WORK_DIR", str(path / WORK))
        if process is None:
            shutil.rmtree(path)
            return None
        return PodRecord(pid=process.pid, started=process.started, created_at=self.clock()).write(path)

    def _act(self, path: Path) -> Pod | None:
        """Act on the deadlines of a pod, and return it as it is now; None if nothing of it is left."""
        record = self._record(path)
        if record is None:
            return None
        if record.process.alive:
            process_log.bound(path / LOG)
            if record.kill_at is not None and self.clock() >= record.kill_at:
                record.process.send(SIGKILL)
            return record.as_pod(path.parent.name, path.name, self.clock())
        if record.is_to_go_on(path):
            if self.environment and not (self._root / _CLOSED).exists():
                record = self._start_again(path, record)
            return record.as_pod(path.parent.name, path.name, self.clock())
        if record.ended is None:
            kept_reports.save(path / WORK, self._reports(path.parent.name), path.name)
            phase, ended = pod_record.how_it_ended(record.process.exit_code(), path / LOG)
            record = record.write(path, phase=phase, ended=ended)
        if orphans := orphaned_groups(path / _CHILDREN):
            record = self._end_orphans(path, record, orphans)
        elif record.kill_at is not None:
            pod_record.rescue(path, self.home / "rescued")
            shutil.rmtree(path)
            return None
        return record.as_pod(path.parent.name, path.name, self.clock())

    def _end(self, pod: Pod, grace: float, *, force: bool = False) -> Pod | None:
        """Send SIGTERM once, or kill everything of a pod; return it as it is then.

        The deadline is written first: after a crash the next call acts on it.
        """
        with self._locked(pod.pool) as directory:
            path = directory / pod.name
            record = self._record(path)
            if record is None or record.uid != pod.uid:
                return None
            kill_at = self.clock() + grace
            if record.kill_at is None or kill_at < record.kill_at:
                record.write(path, kill_at=kill_at)
            if force:
                record.process.send(SIGKILL)
                for orphan in orphaned_groups(path / _CHILDREN):
                    orphan.kill()
            elif record.kill_at is None:
                record.process.send(SIGTERM)
            return self._act(path)

    def _end_orphans(self, path: Path, record: PodRecord, orphans: Sequence[OrphanedGroup]) -> PodRecord:
        """Interrupt a dead agent's children once; kill them at their deadline, or when they have no leader any more."""
        due = record.orphans_kill_at is not None and self.clock() >= record.orphans_kill_at
        if record.orphans_kill_at is None:
            record = record.write(path, orphans_kill_at=self.clock() + self.orphan_grace)
            for orphan in orphans:
                orphan.interrupt()
        for orphan in orphans:
            if due or orphan.leader is None:
                orphan.kill()
        return record

    def _start(self, path: Path) -> Process:
        environment = self._environment_of(path.parent.name, path)
        return processes.start(self.command, environment=environment, directory=path, log=path / LOG, user=self.user)

    def _start_again(self, path: Path, record: PodRecord) -> PodRecord:
        record.process.exit_code()
        process = self._start(path)
        restarts = record.restarts + 1
        return record.write(path, pid=process.pid, started=process.started, restarts=restarts, first=record.uid)

    def _reports(self, pool: str) -> Path:
        return self.home / "reports" / pool

    def _secret_dir(self, pool: str) -> Path:
        return self.home / "secrets" / pool

    def _environment_of(self, pool: str, path: Path) -> dict[str, str]:
        """Return the agent's environment: this process's own, without the control plane's variables."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD)}
        return {
            **inherited,
            **(self.user.environment(path / WORK) if self.user else {}),
            **self.environment,
            f"{_PREFIX}POOL": pool,
            f"{_PREFIX}AGENT": path.name,
            f"{_PREFIX}WORK_DIR": str(path / WORK),
            f"{_PREFIX}SECRET_DIR": str(self._secret_dir(pool)),
            f"{_PREFIX}GRACE_SECONDS": str(self.grace),
        }


@contextmanager
def _unavailable(verb: str, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RecursionError) as error:
        problem = getattr(error, "strerror", None) or repr(error)
        raise Unavailable(f"Local pods: can't {verb} {what} ({problem}); check its owner and free space.") from error
