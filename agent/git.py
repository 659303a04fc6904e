"""Fetching one commit of a git repository, by way of the agent's cache.

The repository is as hostile as the configuration in it: no hooks, four transports, no prompts, and submodules only when
asked for. The server is asked first, whatever the cache has: it says what a ref means now, and whether this workspace
may have it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.execution import Execution, Finished, PhaseFailed, unavailable
from agent.files import read_regular
from agent.git_cache import GitCache
from agent.git_remote import reached
from workers.protocol.git_remote import COMMIT, Remote, may_be_commit, meanings, remote
from workers.protocol.messages import MAX_ERROR
from workers.protocol.sources import KNOWN_HOSTS, GitSource

_LONGEST_ANSWER = 2**20
_SAFE = (
    "core.hooksPath=/dev/null", "protocol.version=2", "submodule.recurse=false", "gc.autoDetach=false",
    "maintenance.autoDetach=false",
)  # fmt: skip
_FETCH = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-commit-graph")
_ALL = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
_EVERYTHING = "--depth=2147483647"  # as git itself says it, also of a shallow repository
# What a run may have left in the cached repository that names programs, other servers or other repositories.
_NOT_TRUSTED = ("config", "config.worktree", "commondir", "hooks", "info", "objects/info/alternates")
_TRIES = 3  # of a ref that moves while it is fetched


def fetch_commit(
    execution: Execution,
    source: GitSource,
    environment: Mapping[str, str],
    login: Mapping[str, str],
    cache: GitCache,
) -> str:
    """Check out the order's commit, or the one that the source's ref means now, and return its full name.

    ``login`` is the environment that the workspace was given, where :func:`~agent.git_remote.reached` looks for a
    password or a key. Raises :class:`PhaseFailed` with ``source_unavailable`` and git's own words.
    """
    if shutil.which("git", path=environment.get("PATH")) is None:
        raise unavailable("git is not installed on the agent: install it, or use a directory as source.")
    wanted = execution.order.commit or source.ref
    with reached(source.url, environment, login, execution.directory / "ssh") as origin:
        execution.log.write(f"Fetching {origin.url} at {wanted}")
        named = {**environment, KNOWN_HOSTS: login.get(KNOWN_HOSTS, "")}
        with cache.repository(origin.url, named, execution) as repository:
            commit = _check_out(execution, origin, repository, wanted, environment)
        execution.log.write(f"Using commit {commit}")
        if source.submodules:
            network = _Git(execution, origin.of_the_network, execution.source_tree)
            network.do("submodule", "--quiet", "update", "--init", "--recursive", "--checkout", "--depth=1")
    return commit


def _check_out(
    execution: Execution, origin: Remote, repository: Path, wanted: str, environment: Mapping[str, str]
) -> str:
    """Bring the commit into the cached repository and from there into the run's own; return its name."""
    tree = execution.source_tree
    cached = _Cached(execution, origin, repository)
    local = _Git(execution, remote(str(repository), environment, {}), tree)
    # Outside of the cache: a damaged one must not look like a server that does not answer.
    found = _Git(execution, origin, execution.directory).find(wanted)
    try:
        commit = _brought(cached, local, found, wanted)
    except (PhaseFailed, OSError):
        if not cached.was_there:
            raise
        execution.check()
        # The server has answered, so it may be the cache: a killed process, a full disk or a bad one leave it damaged.
        execution.log.write("The agent's copy of the repository can't be used, and is fetched anew.")
        _remove(repository)
        shutil.rmtree(tree, ignore_errors=True)
        commit = _brought(cached, local, found, wanted)
    if commit is None:
        raise cached.unknown(wanted)
    return commit


def _brought(cached: _Cached, local: _Git, found: _Ref | None, wanted: str) -> str | None:
    cached.make()
    commit = cached.commit(found, wanted)
    if commit is None:
        return None
    local.directory.mkdir(parents=True)
    local.do("init", "--quiet", "--template=")
    # The remote's name, so that submodules with relative URLs and the configuration's own git find it.
    local.do("config", "remote.origin.url", cached.remote.url)
    local.do(*_FETCH, "--depth=1", "--no-auto-maintenance", "--", local.remote.url, commit)
    local.do("checkout", "--quiet", "--force", "--detach", commit, "--")
    return commit


@dataclass(frozen=True, slots=True)
class _Ref:
    name: str
    object: str


class _Git:
    """Git in one directory, and the remote that its commands are about."""

    def __init__(self, execution: Execution, origin: Remote, directory: Path) -> None:
        self.execution = execution
        self.remote = origin
        self.directory = directory

    def do(self, *arguments: str) -> Finished:
        """Run a command. Raises :class:`PhaseFailed` where it fails."""
        finished = self.run(*arguments)
        if finished.code != 0:
            self.execution.check()
            words = "\n".join(finished.errors)[: MAX_ERROR // 2] or f"git exited with {finished.code}"
            raise unavailable(
                f"git {arguments[0]} of {self.remote.url} failed; check the workspace's URL, its ref and the agent's "
                f"access to it:\n{words}"
            )
        return finished

    def run(self, *arguments: str) -> Finished:
        settings = (word for setting in _SAFE for word in ("-c", setting))
        argv = ["git", *settings, *self.remote.options, *arguments]
        environment = {**self.remote.environment, "GIT_CEILING_DIRECTORIES": str(self.directory.parent)}
        return self.execution.run(argv, cwd=self.directory, env=environment, keep_stdout=_LONGEST_ANSWER)

    def find(self, wanted: str) -> _Ref | None:
        """Ask the server for a ref; return None for what may be a commit. Raises where there is neither."""
        names = () if COMMIT.fullmatch(wanted) else meanings(wanted)
        # HEAD, if for nothing else than that a server which refuses this workspace says so.
        answer = read_regular(self.do("ls-remote", "--quiet", "--", self.remote.url, "HEAD", *names).stdout).decode()
        lines = (line.partition("\t") for line in answer.splitlines())
        objects = {name: value for value, _, name in lines}
        for name in names:
            if name in objects:
                return _Ref(name, objects[name])
        if not may_be_commit(wanted):
            raise self.unknown(wanted)
        return None

    def unknown(self, wanted: str) -> PhaseFailed:
        """Return the failure of a ref that the remote does not have."""
        return unavailable(f"{self.remote.url} has no branch, tag or commit '{wanted}': correct the workspace's ref.")


class _Cached(_Git):
    """A bare repository of the cache."""

    was_there = False

    def make(self) -> None:
        """Make it, or give the one that is there git's own configuration again."""
        self.was_there = self.directory.exists()
        self.directory.mkdir(parents=True, exist_ok=True)
        for name in _NOT_TRUSTED:
            _remove(self.directory / name)
        self.do("init", "--quiet", "--bare", "--template=")

    def commit(self, found: _Ref | None, wanted: str) -> str | None:
        """Return the name of a commit that is here then, fetched unless it is here already; None for an unknown one."""
        known = found.object if found else wanted
        if COMMIT.fullmatch(known) and (commit := self._resolve(known)):
            return commit
        if found:
            return self._fetched(found)
        if COMMIT.fullmatch(wanted) and self.run(*self._fetch(wanted)).code == 0:
            return self._resolve(wanted) or self._damaged()
        # A server may refuse a commit that no ref names, and every abbreviated one.
        self.execution.check()
        self.do(*_FETCH, _EVERYTHING, "--", self.remote.url, *_ALL)
        return self._resolve(wanted) or None

    def _fetched(self, found: _Ref) -> str:
        """Return the commit that the server has named, once it is here."""
        for _ in range(_TRIES):
            self.do(*self._fetch(found.name))
            if commit := self._resolve(found.object):
                return commit
            found = self.find(found.name) or found
        return self._damaged()

    def _fetch(self, name: str) -> tuple[str, ...]:
        complete = (self.directory / "FETCH_HEAD").exists() and not (self.directory / "shallow").exists()
        depth = () if complete else ("--depth=1",)
        return (*_FETCH, *depth, "--", self.remote.url, f"+{name}:{_kept_as(name)}")

    def _resolve(self, name: str) -> str:
        found = self.run("rev-parse", "--quiet", "--verify", f"{name}^{{commit}}")
        return read_regular(found.stdout).decode().strip() if found.code == 0 else ""

    def _damaged(self) -> str:
        raise unavailable(f"What was fetched from {self.remote.url} can't be read: check the agent's disk.")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _kept_as(name: str) -> str:
    """Return the name by which the cache keeps what a ref means: git tells the server that it has those."""
    return f"refs/fetched/{hashlib.sha256(name.encode()).hexdigest()}"
