"""Prepared directories: what an ``init`` has made is kept for the next run that would be given the same by it.

A run gets a copy of it: it never writes into what is kept. Provider packages are links, for they are large. What was
changed since is not used again; neither are modules whose source may mean something else by now for longer than the
operator says. All of it is one process's: the next one begins anew.

The environment of Terraform, the workspace and the place of its state are inputs. What Terraform notes about a backend
may hold credentials: it passes to no other workspace, and is kept in memory. Modules whose address has a password are
not kept.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent import init_inputs, provider_packages
from agent.execution import Execution
from agent.files import copy_file, create, read_regular
from agent.init_inputs import DATA, LOCK_FILE, InitInputs, Unknown
from agent.kept_trees import KeptTree
from agent.module import Module
from agent.provider_packages import Package, ProviderPackages
from agent.terraform_environment import plugin_cache
from workers.protocol.agent_directory import RUNS

# Seconds. Which version of a provider or module is the newest one that suits is asked again after them.
NEWEST_SECONDS = 3600.0
_NOT_KEPT = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
_BACKEND = Path(DATA, "terraform.tfstate")
_PASSWORD = re.compile(r"://[^/]*@")
_COMMIT = re.compile(r"[?&]ref=[0-9a-f]{40}(?:&|$)")


@dataclass(eq=False)
class _Prepared(KeptTree):
    """What an ``init`` has made: the module's ``.terraform`` and lock file, and trees that it links to.

    ``backend``: what Terraform has noted about the backend.
    """

    backend: bytes = field(default=b"", repr=False)
    digest: str = ""
    seconds: float = 0
    linked: Sequence[KeptTree] = ()
    is_local: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.made_at = self.used_at

    def is_whole(self) -> bool:
        return self.is_intact() and all(tree.is_intact() for tree in self.linked)


class PreparedDirectories:
    """What one agent keeps, in at most ``most`` bytes; safe from any thread.

    ``seconds``: how long modules are used again whose source may change under its name.
    """

    def __init__(self, work_dir: Path, *, most: int, seconds: float) -> None:
        self._runs = work_dir / RUNS
        self._directory = work_dir / "prepared"
        self._most = most
        self._seconds = seconds
        self._lock = threading.Lock()
        self._prepared: dict[str, _Prepared] = {}
        self._packages = ProviderPackages(work_dir / "providers")
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(mode=0o700, parents=True)
        self._collect()

    def of(
        self, execution: Execution, module: Module, command: Sequence[str], environment: Mapping[str, str]
    ) -> Preparation | None:
        """Return what is kept for a run, before anything was initialised; None where nothing can be."""
        if not self._most:
            return None
        order = execution.order
        try:
            about = order.workspace, order.state_path
            inputs = init_inputs.read(module, command, environment, about)
        except Unknown:
            return None
        return Preparation(self, execution, module.path, inputs, environment)

    def give(self, execution: Execution, module: Path, inputs: InitInputs) -> bool | None:
        """Put what is kept into a module; return whether its state is a local one. None where nothing is kept."""
        with self._lock:
            found = self._prepared.get(inputs.digest)
            if found is None:
                return None
            if time.monotonic() - found.made_at <= found.seconds and self._given(execution, module, inputs, found):
                found.used_at = time.monotonic()
                return found.is_local
            self._remove(found)
            return None

    def cache(self, execution: Execution, inputs: InitInputs) -> Path:
        """Return the plugin cache of a run's ``init``."""
        with self._lock:
            return self._packages.offer(execution.directory, inputs)

    def keep(self, execution: Execution, module: Path, inputs: InitInputs, *, is_local: bool) -> None:
        """Keep what an ``init`` has made, if it may be used again."""
        with self._lock:
            linked = self._packages.take(execution.directory, module, inputs)
            try:
                if seconds := self._lasts(module, inputs, any_provider=bool(linked)):
                    self._keep(module, inputs, linked, seconds, is_local=is_local)
            except _NOT_KEPT as error:
                execution.logger.warning("what init has made is not kept", error=str(error))
            self._collect()

    def forget(self, inputs: InitInputs) -> None:
        """Keep what was prepared no longer."""
        with self._lock:
            if found := self._prepared.get(inputs.digest):
                self._remove(found)

    def _given(self, execution: Execution, module: Path, inputs: InitInputs, found: _Prepared) -> bool:
        if found.is_whole():
            self._packages.use(execution.directory, [tree.path for tree in found.linked])
            with suppress(OSError):  # a configuration may change it at this moment
                _copy(found.path, module)
                create(module / _BACKEND, found.backend)
                return True
            _take_back(module, inputs)
        execution.log.write("What an earlier init has made was changed since: it is not used again.")
        return False

    def _keep(
        self, module: Path, inputs: InitInputs, linked: Sequence[Path], seconds: float, *, is_local: bool
    ) -> None:
        trees = [self._packages.of(target) or KeptTree(target) for target in linked]
        path = self._directory / uuid.uuid4().hex
        backend = read_regular(module / _BACKEND)
        try:
            _copy(module, path)
            kept = _Prepared(
                path, backend=backend, digest=inputs.digest, seconds=seconds, linked=trees, is_local=is_local
            )
        except _NOT_KEPT:
            shutil.rmtree(path, ignore_errors=True)
            raise
        if another := self._prepared.get(inputs.digest):  # of a run in another slot
            self._remove(another)
        self._prepared[inputs.digest] = kept

    def _lasts(self, module: Path, inputs: InitInputs, *, any_provider: bool) -> float:
        """Return for how many seconds the same ``init`` may be expected to make the same."""
        lock = read_regular(module / LOCK_FILE) if (module / LOCK_FILE).exists() else None
        seconds = NEWEST_SECONDS if any_provider and lock != inputs.lock else math.inf
        record = module / DATA / "modules" / "modules.json"
        for called in json.loads(read_regular(record))["Modules"] if record.exists() else ():
            if called.get("Version"):
                seconds = min(seconds, NEWEST_SECONDS)
            elif _PASSWORD.search(called["Source"]):
                return 0
            elif not _is_fixed(called["Source"]):
                seconds = min(seconds, self._seconds)
        return seconds

    def _remove(self, found: _Prepared) -> None:
        self._prepared.pop(found.digest, None)
        shutil.rmtree(found.path, ignore_errors=True)

    def _collect(self) -> None:
        """Remove what nobody keeps, and the oldest of what is kept where that is too much."""
        in_use = provider_packages.used(self._runs)
        self._packages.remove_others(in_use)
        kept: list[_Prepared | Package] = [*self._prepared.values(), *self._packages.packages]
        size = sum(tree.size for tree in kept)
        for tree in sorted(kept, key=lambda each: each.used_at):
            if size <= self._most:
                return
            if isinstance(tree, _Prepared):
                self._remove(tree)
            elif tree.path.name in in_use:
                continue
            else:
                self._packages.remove(tree)
                for each in [each for each in self._prepared.values() if tree in each.linked]:
                    self._remove(each)
            size -= tree.size


@dataclass
class Preparation:
    """One run's: it is given what is kept, or what its ``init`` makes is kept."""

    directories: PreparedDirectories
    execution: Execution
    module: Path
    inputs: InitInputs
    environment: Mapping[str, str]

    def give(self) -> bool | None:
        """See :meth:`PreparedDirectories.give`."""
        return self.directories.give(self.execution, self.module, self.inputs)

    def for_init(self) -> dict[str, str]:
        """Return what Terraform's ``init`` is given beside its environment: a plugin cache, unless it has one.

        Where the source has no lock file, nobody keeps the one that ``init`` makes: Terraform may lock what is there.
        """
        found = {}
        if self.inputs.lock is None:
            found["TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE"] = "1"
        if plugin_cache(self.environment, self.module) is None:
            found["TF_PLUGIN_CACHE_DIR"] = str(self.directories.cache(self.execution, self.inputs))
        return found

    def keep(self, *, is_local: bool) -> None:
        """See :meth:`PreparedDirectories.keep`."""
        self.directories.keep(self.execution, self.module, self.inputs, is_local=is_local)

    def undo(self) -> None:
        """Take away what was given, for an ``init`` of this run's own."""
        self.directories.forget(self.inputs)
        _take_back(self.module, self.inputs)


def _is_fixed(source: str) -> bool:
    """Whether a module's source means the same for ever: a part of the configuration, or a commit."""
    return source in ("", ".") or source.startswith(("./", "../")) or bool(_COMMIT.search(source))


def _take_back(module: Path, inputs: InitInputs) -> None:
    """Leave of what was put into a module what its source has."""
    shutil.rmtree(module / DATA, ignore_errors=True)
    (module / LOCK_FILE).unlink(missing_ok=True)
    if inputs.lock is not None:
        create(module / LOCK_FILE, inputs.lock)


def _copy(source: Path, target: Path) -> None:
    def without_backend(directory: str, _: Sequence[str]) -> Sequence[str]:
        return [_BACKEND.name] if directory == str(source / DATA) else ()

    shutil.copytree(source / DATA, target / DATA, symlinks=True, ignore=without_backend, copy_function=copy_file)
    if (source / LOCK_FILE).exists():
        (target / LOCK_FILE).unlink(missing_ok=True)
        copy_file(source / LOCK_FILE, target / LOCK_FILE)
