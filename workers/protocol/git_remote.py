"""How git reaches a repository, where an agent fetches and a control plane asks: by which options and environment.

A password or a key reaches git alone: through its environment and a credential helper for one host, or in a file that
only its owner can read, for as long as it is needed. Command lines can be read by every process of the machine. Pure.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from urllib.parse import unquote, urlsplit

from workers.protocol.sources import KNOWN_HOSTS, SSH_KEY, without_credentials

# Variables of a workspace or pool, by which git is let in.
LOGIN = ("GIT_USERNAME", "GIT_PASSWORD", SSH_KEY, KNOWN_HOSTS)
# What decides which server answers to an address. Whoever names another one shares nothing that was fetched.
DECIDES_SERVER = re.compile(r"GIT_.*|SSH_.*|SSL_.*|CURL_.*|.*_proxy|HOME|XDG_CONFIG_HOME|PATH", re.IGNORECASE)
COMMIT, _ABBREVIATED = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?"), re.compile(r"[0-9a-f]{4,63}")
_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" "$AGENT_GIT_USERNAME" "$AGENT_GIT_PASSWORD"; }; f'
)
_ANY_USER = "git"  # beside a token most servers ignore the user's name, but want one
# A workspace names no other repository, and no directory with hooks, than those that are made for its run.
_OF_A_REPOSITORY = re.compile(
    r"GIT_(?:DIR|WORK_TREE|COMMON_DIR|INDEX_FILE|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|NAMESPACE|SHALLOW_FILE)"
)
_NETWORK, _ANY_PROTOCOL = "https:ssh:git", "https:ssh:git:file"


def meanings(ref: str) -> tuple[str, ...]:
    """Return what a ref may mean, in git's own order."""
    return (ref, f"refs/{ref}", f"refs/tags/{ref}", f"refs/heads/{ref}")


def may_be_commit(ref: str) -> bool:
    """Whether a ref that a server does not list may be a commit, or the beginning of its name."""
    return bool(COMMIT.fullmatch(ref) or _ABBREVIATED.fullmatch(ref))


@dataclass(frozen=True, slots=True)
class Remote:
    """Where git fetches from: a URL without a password; and with which options and environment it finds one."""

    url: str
    options: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)

    @property
    def of_the_network(self) -> Remote:
        """The same for what a repository names itself: nothing on the machine's disk may be reached by that."""
        return replace(self, environment={**self.environment, "GIT_ALLOW_PROTOCOL": _NETWORK})

    def with_files(self, directory: PurePath, files: Mapping[str, str]) -> Remote:
        """Return the same with the files of :func:`login_files`, which are in a directory."""
        if not files:
            return self
        ssh = {"GIT_SSH_COMMAND": _ssh(directory, files), "GIT_SSH_VARIANT": "ssh"}
        return replace(self, environment={**self.environment, **ssh})


def login_files(login: Mapping[str, str]) -> dict[str, str]:
    """Return what ssh has to read from files, by their names."""
    # ssh takes no key whose last line has no end.
    return {name: login[name].replace("\r\n", "\n").strip() + "\n" for name in (SSH_KEY, KNOWN_HOSTS) if name in login}


def remote(url: str, environment: Mapping[str, str], login: Mapping[str, str]) -> Remote:
    """Return how git reaches a URL, but for a key of the workspace.

    The password for https is ``GIT_PASSWORD`` of ``login``, with ``GIT_USERNAME``; or that of the URL, where workspaces
    of an earlier version have it.
    """
    bare = without_credentials(url)
    kept = {name: value for name, value in environment.items() if not _OF_A_REPOSITORY.fullmatch(name)}
    env = {**kept, "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": _ANY_PROTOCOL, "GIT_TEMPLATE_DIR": ""}
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


def _ssh(private: PurePath, given: Mapping[str, str]) -> str:
    """Return the command that git runs for ssh: with a key, neither an ssh agent nor the account's files are used."""
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=30"]
    if KNOWN_HOSTS in given:
        options += [f"UserKnownHostsFile={_quoted(private / KNOWN_HOSTS)}", "GlobalKnownHostsFile=/dev/null"]
    if SSH_KEY in given:
        options += ["IdentitiesOnly=yes", "IdentityAgent=none", f"IdentityFile={_quoted(private / SSH_KEY)}"]
    own = ["-F", "/dev/null"] if SSH_KEY in given else []
    return shlex.join(["ssh", *own, *(word for option in options for word in ("-o", option))])


def _quoted(path: PurePath) -> str:
    return '"{}"'.format(str(path).replace("%", "%%"))
