"""Fetching one commit of a git repository.

The repository is as hostile as the configuration in it: no hooks, no submodules, no transport but the usual four,
nothing asked of a terminal. A password reaches git through its environment and a credential helper,
never through a command line that every process of the machine can read.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent.execution import Execution, Finished, PhaseFailed
from workers.core.messages import MAX_ERROR
from workers.core.runs import FailureReason
from workers.core.workspaces import GitSource, without_credentials

_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" "$AGENT_GIT_USERNAME" "$AGENT_GIT_PASSWORD"; }; f'
)
_ANYBODY = "git"  # with a token, the user's name means nothing to most servers, and must not be empty
_FETCH = ("--no-tags", "--no-recurse-submodules", "--no-write-commit-graph", "--no-auto-maintenance")
_ALL = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")


def fetch_commit(execution: Execution, source: GitSource, tree: Path, environment: dict[str, str]) -> str:
    """Check out the order's commit, or the one that the source's ref means now, and return its full name.

    Raises :class:`PhaseFailed` with ``source_unavailable`` and git's own words.
    """
    if shutil.which("git", path=environment.get("PATH")) is None:
        raise _unavailable("git is not installed on the agent: install it, or use a directory as source.")
    url, env = authenticated(source.url, environment)
    repository = _Repository(execution, tree, url, env)
    wanted = execution.order.commit or source.ref
    execution.log.write(f"Fetching {url} at {wanted}")
    repository.git("init", "--quiet", "--template=")
    commit = repository.fetch(wanted)
    repository.git("checkout", "--quiet", "--force", "--detach", commit, "--")
    execution.log.write(f"Using commit {commit}")
    return commit


def authenticated(url: str, environment: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Return the URL without a password, and the environment in which git finds one nevertheless.

    The password for https is ``GIT_PASSWORD`` of the workspace's environment, with ``GIT_USERNAME``; or that of the
    URL, where workspaces of an earlier version have it.
    """
    env = {
        **environment,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "https:ssh:git:file",
    }
    env.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    bare = without_credentials(url)
    if url.startswith("https://") and (login := _login(url, environment)):
        count = int(env.get("GIT_CONFIG_COUNT") or 0)
        env |= {
            "GIT_CONFIG_COUNT": str(count + 1),
            f"GIT_CONFIG_KEY_{count}": f"credential.https://{urlsplit(bare).netloc}.helper",
            f"GIT_CONFIG_VALUE_{count}": _HELPER,
            "AGENT_GIT_USERNAME": login[0],
            "AGENT_GIT_PASSWORD": login[1],
        }
    return bare, env


def _login(url: str, environment: dict[str, str]) -> tuple[str, str] | None:
    """Return user and password for the host of a URL, if there are any."""
    credentials, at, _ = urlsplit(url).netloc.rpartition("@")
    username, _, password = (unquote(part) for part in credentials.partition(":"))
    if at:
        return username, password
    if "GIT_PASSWORD" in environment:
        return environment.get("GIT_USERNAME") or _ANYBODY, environment["GIT_PASSWORD"]
    return None


class _Repository:
    def __init__(self, execution: Execution, tree: Path, url: str, env: dict[str, str]) -> None:
        self._execution = execution
        self._tree = tree
        self._url = url
        self._env = env
        tree.mkdir(parents=True)

    def fetch(self, wanted: str) -> str:
        """Fetch a ref or commit and return the commit's name."""
        if self._run("fetch", "--quiet", *_FETCH, "--depth=1", "--", self._url, wanted).code == 0:
            return self._resolve("FETCH_HEAD")
        # A server may refuse to hand out a commit that no ref names, and knows no abbreviated ones.
        self._execution.check()
        self.git("fetch", "--quiet", *_FETCH, "--", self._url, *_ALL)
        for name in (wanted, f"refs/remotes/origin/{wanted}"):
            if self._run("rev-parse", "--quiet", "--verify", f"{name}^{{commit}}").code == 0:
                return self._resolve(name)
        raise _unavailable(f"{self._url} has no branch, tag or commit '{wanted}': correct the workspace's ref.")

    def git(self, *arguments: str) -> None:
        finished = self._run(*arguments)
        if finished.code != 0:
            self._execution.check()
            words = "\n".join(finished.errors)[: MAX_ERROR // 2] or f"git exited with {finished.code}"
            raise _unavailable(
                f"git {arguments[0]} of {self._url} failed; check the workspace's URL, its ref and the agent's "
                f"access to it:\n{words}"
            )

    def _resolve(self, name: str) -> str:
        found = bytearray()
        self._run("rev-parse", "--verify", f"{name}^{{commit}}", stdout=found)
        return found.decode().strip()

    def _run(self, *arguments: str, stdout: bytearray | None = None) -> Finished:
        argv = ["git", "-c", "core.hooksPath=/dev/null", "-c", "protocol.version=2", *arguments]
        sink = bytearray().extend if stdout is None else stdout.extend
        return self._execution.run(argv, cwd=self._tree, env=self._env, stdout=sink)


def _unavailable(sentence: str) -> PhaseFailed:
    return PhaseFailed(FailureReason.SOURCE_UNAVAILABLE, sentence)
