"""What is in an archive, one member after the other, no more of it than may be unpacked."""

import gzip
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

MAX_UNPACKED = 2**30  # bytes
SHOWN = 200  # characters of a name
_LONGEST_LINK = 4_096


class Refused(Exception):
    """The archive is not taken; the message goes on after its name."""


@dataclass(frozen=True, slots=True)
class Member:
    """An entry of an archive. ``content`` is what a file holds; ``target`` is where a link leads."""

    name: str
    kind: Literal["directory", "file", "link", "copy"]
    content: IO[bytes] | None = None
    target: str = ""
    executable: bool = False


def members(file: Path) -> Iterator[Member]:
    """Yield what is in an archive, each to be read before the next one."""
    with file.open("rb") as archive:
        magic = archive.read(2)
        archive.seek(0)
        match magic:
            case b"\x1f\x8b":
                yield from _of_tar(archive)
            case b"PK":
                yield from _of_zip(archive)
            case _:
                raise Refused("is neither a .tar.gz nor a .zip")


class _Bounded:
    """What a compressed stream holds, no more of it than may be unpacked: also of what is skipped."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream, self._left = stream, MAX_UNPACKED

    def read(self, size: int) -> bytes:
        found = self._stream.read(min(size, self._left + 1))
        self._left -= len(found)
        if self._left < 0:
            raise too_large()
        return found


def too_large() -> Refused:
    """Return the refusal of an archive that explodes."""
    return Refused(f"unpacks to more than {MAX_UNPACKED >> 20} MiB")


def _of_tar(archive: IO[bytes]) -> Iterator[Member]:
    with (
        gzip.open(archive) as stream,
        tarfile.open(fileobj=_Bounded(stream), mode="r|", errorlevel=2) as tar,  # type: ignore[call-overload]
    ):
        for entry in tar:
            executable = bool(entry.mode & stat.S_IXUSR)
            if entry.isdir():
                yield Member(entry.name, "directory")
            elif entry.isfile():
                yield Member(entry.name, "file", tar.extractfile(entry), executable=executable)
            elif entry.issym():
                yield Member(entry.name, "link", target=entry.linkname)
            elif entry.islnk():
                yield Member(entry.name, "copy", target=entry.linkname, executable=executable)
            else:
                raise Refused(f"holds a device or a pipe, {shown(entry.name)}")


def _of_zip(archive: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as unzipped:
        for entry in unzipped.infolist():
            mode = entry.external_attr >> 16
            if entry.is_dir():
                yield Member(entry.filename, "directory")
                continue
            if entry.flag_bits & 1:
                raise Refused("is encrypted")
            with unzipped.open(entry) as content:
                if stat.S_ISLNK(mode):
                    yield Member(entry.filename, "link", target=os.fsdecode(content.read(_LONGEST_LINK)))
                else:
                    yield Member(entry.filename, "file", content, executable=bool(mode & stat.S_IXUSR))


def shown(name: str) -> str:
    """Return a name as a message may hold it."""
    return ascii(name[:SHOWN])
