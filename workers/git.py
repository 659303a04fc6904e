"""The control plane's only speaker of git: whether a server has a repository and a ref, asked without fetching.

Whoever may save a workspace names the server, and the server answers what it likes. So git gets nothing of this
process's environment that is the platform's, nothing of the workspace's but its login, a time limit, and bounds for
what it holds and writes. It runs no program of a repository, and asks for no password.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from workers.protocol.git_remote import LOGIN, Remote, login_files, may_be_commit, meanings, remote
from workers.protocol.settings import without_ours
from workers.protocol.sources import KNOWN_HOSTS, SSH_KEY

SECONDS = 5.0
_LONGEST_ANSWER = 1 << 20
_LONGEST_WORDS = 1_000
_MEMORY = 256 << 20
# Started as a program of its own: a thread of a worker can't set limits for its child alone.
_BOUNDED = f"""
import os, resource, sys
for what, most in (("FSIZE", {_LONGEST_ANSWER}), ("DATA", {_MEMORY}), ("CORE", 0)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + what), (most, most))
os.execvp(sys.argv[1], sys.argv[1:])
"""
# What a server says to a login. Whoever has no other one than that hears the same.
_TO_A_LOGIN = ("' not found", "Repository not found", "Authentication failed", "Permission denied (")
_OF_A_HOST_KEY = "Host key verification failed"


@dataclass(frozen=True, slots=True)
class Question:
    """Whether a repository has a ref. ``environment``: of the workspace, what :func:`heeds` names.

    ``here``: agents reach the server from this machine and as this user, so that they hear what is heard here.
    """

    url: str = field(repr=False)  # one of an earlier version may hold a password
    ref: str
    environment: frozenset[tuple[str, str]] = field(repr=False)
    here: bool

    @property
    def host(self) -> str:
        """The server's name, with its port; the whole address where it has another form."""
        return urlsplit(self.url).netloc.rpartition("@")[2] or self.url.partition(":")[0]

    @property
    def of_the_network(self) -> bool:
        """Whether the address names a server that is reached by https or ssh, and nothing on a disk."""
        return self.url.startswith(("https://", "ssh://")) or not ("://" in self.url or self.url.startswith("/"))


@dataclass(frozen=True, slots=True)
class Answer:
    """``wrong``: what is wrong with a source; ``unknown``: why that could not be found out. Neither: it is there."""

    wrong: str | None = None
    unknown: str | None = None
    timed_out: bool = False


def heeds(name: str, *, here: bool) -> bool:
    """Whether git is given a variable of a workspace here. Others could name programs or files of this machine."""
    return name in LOGIN or (here and name == "GIT_SSL_CAINFO")


def is_installed() -> bool:
    """Whether anything can be asked here: the control plane's image has no git, its agents' has."""
    return shutil.which("git") is not None


def ask(question: Question) -> Answer:
    """Ask a server for a ref. Raises ``OSError`` where nothing can be started or written here."""
    if not question.here and not question.of_the_network:
        return Answer(unknown="only its agents reach it")
    given = dict(question.environment)
    with tempfile.TemporaryDirectory(prefix="terraslot-git-") as name:
        private, files = Path(name), login_files(given)
        for file, content in files.items():
            (private / file).touch(mode=0o600)
            (private / file).write_text(content)
        others = {name: value for name, value in given.items() if name not in LOGIN}
        environment = {
            **without_ours(os.environ),
            **others,
            "LC_ALL": "C",
            "GIT_CEILING_DIRECTORIES": str(private.parent),
        }
        origin = remote(question.url, environment, given).with_files(private, files)
        code, printed, errors = _listed(origin, question, private)
    if code is None:
        return Answer(unknown=f"{question.host} has not answered within {SECONDS:g} s", timed_out=True)
    if code != 0:
        return _failed(question, origin, given, errors)
    found = {line.partition("\t")[2] for line in printed.splitlines()}
    if found.intersection(meanings(question.ref)) or may_be_commit(question.ref):
        return Answer()
    return Answer(wrong=f"{origin.url} has no branch, tag or commit '{question.ref}': correct the workspace's ref")


def _failed(question: Question, origin: Remote, given: Mapping[str, str], errors: str) -> Answer:
    has_login = SSH_KEY in given or "GIT_PASSWORD" in given
    is_final = has_login and any(words in errors for words in _TO_A_LOGIN)
    if question.here or is_final or (KNOWN_HOSTS in given and _OF_A_HOST_KEY in errors):
        shown = "".join(letter if letter.isprintable() else " " for letter in errors[:_LONGEST_WORDS]).strip(" .")
        return Answer(
            wrong=f"{origin.url} can't be read; check the workspace's URL and its access to it: {shown or 'git failed'}"
        )
    # In no more words: they would tell strangers what there is in the control plane's network.
    return Answer(unknown=f"{question.host} does not let the control plane in, or can't be reached by it")


def _listed(origin: Remote, question: Question, private: Path) -> tuple[int | None, str, str]:
    """List refs of a server; return git's exit code, None after a time limit, and what it printed."""
    settings = ("-c", "core.hooksPath=/dev/null", "-c", "protocol.version=2")
    names = ("HEAD", *meanings(question.ref))
    git = ["git", *settings, *origin.options, "ls-remote", "--quiet", "--", origin.url, *names]
    environment = dict(origin.environment)
    if not question.here:
        environment["GIT_ALLOW_PROTOCOL"] = "https:ssh"
    with (private / "refs").open("w+b") as printed, (private / "errors").open("w+b") as errors:
        child = subprocess.Popen(  # noqa: S603 - an argv of our own, no shell, and nothing of it is an option
            [sys.executable, "-I", "-S", "-c", _BOUNDED, *git], cwd=private, env=environment,
            stdin=subprocess.DEVNULL, stdout=printed, stderr=errors, start_new_session=True,
        )  # fmt: skip
        code = _ended(child)
        return code, _text(printed.name), _text(errors.name)


def _ended(child: subprocess.Popen[bytes]) -> int | None:
    try:
        return child.wait(SECONDS)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if child.returncode is None:  # it leads its group still, so that no other can have that number
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _text(file: str) -> str:
    return Path(file).read_bytes().decode(errors="replace")
