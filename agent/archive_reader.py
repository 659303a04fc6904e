"""A program: fetches one archive and unpacks it. ``python -sP -m agent.archive_reader FILE TREE PATTERN…``.

An archive is as hostile as the configuration in it, so it is read by a process whose memory is bounded. What is wrong
with it is told as JSON on stdout. Nothing is unpacked before its checksum is known to be right. Links are made last,
when there is nothing more to be written through them, and each has to stay inside wherever the others lead.
"""

import gzip
import hashlib
import json
import lzma
import os
import resource
import signal
import stat
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatch
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any

from agent.archive_members import MAX_UNPACKED, SHOWN, Member, Refused, members, shown, too_large

GIVEN = "AGENT_ARCHIVE"  # its environment: command lines can be read by every process of the machine
MAX_ARCHIVE = 256 * 2**20  # bytes
MAX_MEMBERS = 100_000
MEMORY = 2**30  # bytes of address space
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 2**16
_MOST_NAMES = 100


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(  # noqa: PLR0917 - the library's signature
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith(("https://", f"{req.type}://")):
            raise Refused("is redirected to where it can't be fetched from safely: name its last address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(given: dict[str, Any], file: Path) -> None:
    """Copy the archive into a file. Raises :class:`Refused` for one that is too large, or has another checksum."""
    digest, size = hashlib.sha256(), 0
    with _opened(given) as found, file.open("wb") as copy:
        while chunk := found.read(_CHUNK):
            size += len(chunk)
            if size > MAX_ARCHIVE:
                raise Refused(f"is larger than {MAX_ARCHIVE >> 20} MiB: use git, or a smaller one")
            digest.update(chunk)
            copy.write(chunk)
    if given["sha256"] not in (None, digest.hexdigest()):
        raise Refused(f"has the SHA-256 checksum {digest.hexdigest()}, and {given['sha256']} is expected")


def _opened(given: dict[str, Any]) -> IO[bytes]:
    url: str = given["url"]
    if url.startswith("/"):
        if not stat.S_ISREG(os.stat(url).st_mode):  # a pipe would be waited for
            raise Refused("is no regular file")
        return open(url, "rb")
    request = urllib.request.Request(url, headers={"User-Agent": "terraslot"})  # noqa: S310 - no other handlers
    if given["password"] is not None:
        login = b64encode(f"{given['username']}:{given['password']}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {login}")
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler, _Redirects,
        urllib.request.HTTPErrorProcessor, urllib.request.HTTPDefaultErrorHandler,
    ):  # fmt: skip
        opener.add_handler(handler())
    answer: IO[bytes] = opener.open(request, timeout=_TIMEOUT)
    return answer


class Tree:
    """The directory that an archive is unpacked into, which nothing else writes to.

    What has a name of ``patterns`` is left out.
    """

    def __init__(self, root: Path, patterns: Sequence[str]) -> None:
        self._root = root
        self._patterns = patterns
        self._room, self._entries = MAX_UNPACKED, 0
        self._made: set[Path] = set()
        self._links: dict[Path, str] = {}
        self.left_out: list[str] = []
        root.mkdir()

    def add(self, member: Member) -> None:
        """Unpack one member. Raises :class:`Refused` for one that does not belong inside."""
        parts = self._parts(member.name)
        self._count()
        if not parts or any(fnmatch(part, pattern) for part in parts for pattern in self._patterns):
            self.left_out += [member.name] if member.name.endswith(".tfstate") else []
            return
        path = self._root.joinpath(*parts)
        self._links.pop(path, None)  # of two members with one name, the later one counts
        self._directory(path if member.kind == "directory" else path.parent)
        match member.kind:
            case "directory":
                pass
            case "link":
                self._links[path] = member.target
            case "file":
                self._write(path, member.content, executable=member.executable)
            case "copy":
                self._copy(path, member)

    def link(self) -> None:
        """Make the links. Raises :class:`Refused` for one that leads out."""
        for path, target in self._links.items():
            if path.exists():
                raise Refused(f"holds {shown(self._name(path))} twice, as a link and as something else")
            path.symlink_to(target)
        root = os.path.realpath(self._root)
        for path, target in self._links.items():
            if os.path.isabs(target) or not Path(os.path.realpath(path)).is_relative_to(root):
                raise Refused(f"holds a link that leads out of it, {shown(self._name(path))} to {shown(target)}")

    def _parts(self, name: str) -> list[str]:
        if name.startswith("/") or "\x00" in name or ".." in name.split("/"):
            raise Refused(f"holds a file outside of it, {shown(name)}")
        return [part for part in name.split("/") if part not in ("", ".")]

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._root))

    def _count(self) -> None:
        self._entries += 1
        if self._entries > MAX_MEMBERS:
            raise Refused(f"holds more than {MAX_MEMBERS:,} files and directories")

    def _directory(self, path: Path) -> None:
        missing = []
        while path != self._root and path not in self._made:
            missing.append(path)
            path = path.parent
        for each in reversed(missing):
            self._count()
            each.mkdir()
            self._made.add(each)

    def _write(self, path: Path, content: IO[bytes] | None, *, executable: bool) -> None:
        with path.open("wb") as file:
            while content and (chunk := content.read(_CHUNK)):
                self._room -= len(chunk)
                if self._room < 0:
                    raise too_large()
                file.write(chunk)
        path.chmod(0o755 if executable else 0o644)

    def _copy(self, path: Path, member: Member) -> None:
        """Write what a hard link names again: two files with one content could be told apart by nobody."""
        source = self._root.joinpath(*self._parts(member.target))
        if source in self._links or not source.is_file():
            raise Refused(f"holds a link to what it does not hold, {shown(member.name)} to {shown(member.target)}")
        if source != path:
            with source.open("rb") as content:
                self._write(path, content, executable=member.executable)


def _fetched(file: Path) -> None:
    try:
        fetch(json.loads(os.environ[GIVEN]), file)
    except urllib.error.HTTPError as error:
        raise Refused(f"can't be fetched: the server answers {error.code} {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise Refused(f"can't be fetched: {why}") from None


def unpack(file: Path, root: Path, patterns: Sequence[str]) -> list[str]:
    """Unpack an archive into a new directory; return the state files that were left out. Raises :class:`Refused`."""
    try:
        tree = Tree(root, patterns)
        for member in members(file):
            tree.add(member)
        tree.link()
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise Refused(f"is damaged: {error}") from None
    except (OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise Refused(f"can't be unpacked: {getattr(error, 'strerror', None) or error}") from None
    return [os.fsencode(name[:SHOWN]).decode(errors="replace") for name in tree.left_out[:_MOST_NAMES]]


def main(file: str, root: str, *patterns: str) -> None:
    """Print as JSON why the archive is ``refused``, or which state files were ``left_out``."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # it has nothing to tidy up
    with suppress(OSError, ValueError):  # not everywhere
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        _fetched(Path(file))
        answer: dict[str, Any] = {"left_out": unpack(Path(file), Path(root), patterns)}
    except Refused as refusal:
        answer = {"refused": str(refusal)[: 10 * SHOWN]}
    except MemoryError:
        answer = {"refused": "takes more memory to read than there is"}
    print(json.dumps(answer))  # noqa: T201 - the agent reads it


if __name__ == "__main__":
    main(*sys.argv[1:])
