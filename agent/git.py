"""Fetching one commit of a git repository.

The repository is as hostile as the configuration in it: no hooks, no submodules, four transports, and no prompts. A
password reaches git alone, for one host, through its environment and a credential helper: command lines can be read by
every process of the machine.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent.execution import Execution, Finished, unavailable
from agent.files import read_regular
from workers.protocol.messages import MAX_ERROR
from workers.protocol.sources import GitSource, without_credentials

_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" "$AGENT_GIT_USERNAME" "$AGENT_GIT_PASSWORD"; }; f'
)
_LONGEST_ANSWER = 2**20
_ANY_USER = "git"  # beside a token most servers ignore the user's name, but want one
_FETCH = ("--no-tags", "--no-recurse-submodules", "--no-write-commit-graph", "--no-auto-maintenance")
_ALL = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")


@dataclass(frozen=True, slots=True)
class Remote:
    """Where git fetches from: a URL without a password; and with which options and environment it finds one."""

    url: str
    options: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)


def fetch_commit(
    execution: Execution, source: GitSource, tree: Path, environment: Mapping[str, str], login: Mapping[str, str]
) -> str:
    """Check out the order's commit, or the one that the source's ref means now, and return its full name.

    ``login`` is the environment that the workspace was given, where :func:`remote` looks for a password. Raises
    :class:`PhaseFailed` with ``source_unavailable`` and git's own words.
    """
    if shutil.which("git", path=environment.get("PATH")) is None:
        raise unavailable("git is not installed on the agent: install it, or use a directory as source.")
    origin = remote(source.url, environment, login)
    repository = _Repository(execution, tree, origin)
    wanted = execution.order.commit or source.ref
    execution.log.write(f"Fetching {origin.url} at {wanted}")
    tree.mkdir(parents=True)
    repository.git("init", "--quiet", "--template=")
    commit = repository.fetch(wanted)
    repository.git("checkout", "--quiet", "--force", "--detach", commit, "--")
    execution.log.write(f"Using commit {commit}")
    return commit


def remote(url: str, environment: Mapping[str, str], login: Mapping[str, str]) -> Remote:
    """Return how git reaches a URL.

    The password for https is ``GIT_PASSWORD`` of ``login``, with ``GIT_USERNAME``; or that of the URL, where workspaces
    of an earlier version have it.
    """
    bare = without_credentials(url)
    env = {**environment, "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "https:ssh:git:file"}
    env.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    found = _login(url, login) if url.startswith("https://") else None
    if found is None:
        return Remote(bare, (), env)
    env["AGENT_GIT_USERNAME"], env["AGENT_GIT_PASSWORD"] = found
    helper = f"credential.https://{urlsplit(bare).netloc}.helper"
    # The empty one first: it removes other helpers, which would be asked before this one and be told the password.
    return Remote(bare, ("-c", f"{helper}=", "-c", f"{helper}={_HELPER}"), env)


def _login(url: str, given: Mapping[str, str]) -> tuple[str, str] | None:
    """Return user and password for the host of a URL, if there are any."""
    credentials, at, _ = urlsplit(url).netloc.rpartition("@")
    username, _, password = (unquote(part) for part in credentials.partition(":"))
    if "GIT_PASSWORD" in given and not password:
        return username or given.get("GIT_USERNAME") or _ANY_USER, given["GIT_PASSWORD"]
    return (username, password) if at else None


@dataclass(frozen=True, slots=True)
class _Repository:
    execution: Execution
    tree: Path
    remote: Remote

    def fetch(self, wanted: str) -> str:
        """Fetch a ref or commit and return the commit's name."""
        names: tuple[str, ...] = ("FETCH_HEAD",)
        if self._run("fetch", "--quiet", *_FETCH, "--depth=1", "--", self.remote.url, wanted).code != 0:
            # A server may refuse a commit that no ref names, and every abbreviated one.
            self.execution.check()
            self.git("fetch", "--quiet", *_FETCH, "--", self.remote.url, *_ALL)
            names = (wanted, f"refs/remotes/origin/{wanted}")
        for name in names:
            if commit := self._resolve(name):
                return commit
        raise unavailable(f"{self.remote.url} has no branch, tag or commit '{wanted}': correct the workspace's ref.")

    def git(self, *arguments: str) -> None:
        finished = self._run(*arguments)
        if finished.code != 0:
            self.execution.check()
            words = "\n".join(finished.errors)[: MAX_ERROR // 2] or f"git exited with {finished.code}"
            raise unavailable(
                f"git {arguments[0]} of {self.remote.url} failed; check the workspace's URL, its ref and the agent's "
                f"access to it:\n{words}"
            )

    def _resolve(self, name: str) -> str:
        found = self._run("rev-parse", "--quiet", "--verify", f"{name}^{{commit}}")
        return read_regular(found.stdout).decode().strip()

    def _run(self, *arguments: str) -> Finished:
        argv = ["git", "-c", "core.hooksPath=/dev/null", "-c", "protocol.version=2", *self.remote.options, *arguments]
        return self.execution.run(argv, cwd=self.tree, env=self.remote.environment, keep_stdout=_LONGEST_ANSWER)
