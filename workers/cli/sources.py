"""Options that say where the configuration of a workspace comes from."""

from pathlib import Path
from typing import Annotated, Any, assert_never

import typer

from workers.protocol.sources import ArchiveSource, DirectorySource, GitSource, Source

SOURCE: dict[str, Any] = {
    "path": Annotated[Path | None, typer.Option(help="A directory with Terraform configuration.")],
    "git": Annotated[str | None, typer.Option(metavar="URL", help="A git repository instead.")],
    "ref": Annotated[str | None, typer.Option(help="Its branch, tag or commit.")],
    "submodules": Annotated[
        bool | None, typer.Option("--submodules/--no-submodules", help="Fetch its submodules as well.")
    ],
    "archive": Annotated[
        str | None, typer.Option(metavar="FILE|URL", help="A .tar.gz or .zip instead; from a URL with --sha256.")
    ],
    "sha256": Annotated[str | None, typer.Option(metavar="DIGITS", help="The archive's checksum.")],
    "subdir": Annotated[str | None, typer.Option(help="Where Terraform runs inside of it.")],
}
# The options of each kind of source.
_KINDS: dict[str, tuple[str, ...]] = {"path": (), "git": ("ref", "submodules"), "archive": ("sha256",)}


def named(given: dict[str, Any], old: Source | None = None) -> Source | None:
    """Return the source that options name; None where they name none.

    Of an ``old`` one of the same kind, everything stays but its place, and what is that place's alone: a checksum.
    """
    named = [kind for kind in _KINDS if kind in given]
    if len(named) > 1:
        raise typer.BadParameter(f"A workspace has one source: --{named[0]} or --{named[1]}, not both.")
    if not named:
        return None
    settings = _kept(old, named[0]) | _settings(named[0], given)
    match named[0]:
        case "path":
            return DirectorySource(path=str(given["path"].absolute()), **settings)
        case "git":
            return GitSource(url=given["git"], **settings)
    return ArchiveSource(url=_address(given["archive"]), **settings)


def changed(old: Source, given: dict[str, Any]) -> dict[str, Any]:
    """Return a source as options change it."""
    return old.model_dump() | _settings(_kind(old), given)


def _kind(source: Source) -> str:
    match source:
        case DirectorySource():
            return "path"
        case GitSource():
            return "git"
        case ArchiveSource():
            return "archive"
        case _:
            assert_never(source)


def _kept(old: Source | None, kind: str) -> dict[str, Any]:
    if old is None or _kind(old) != kind:
        return {}
    return old.model_dump(exclude={"type", "path", "url", "sha256"})


def place(source: Source) -> str:
    """Return in one line where a configuration comes from."""
    match source:
        case DirectorySource(path=where) | ArchiveSource(url=where):
            pass
        case GitSource(url=url, ref=ref, submodules=submodules):
            where = f"{url} at {ref}{' with submodules' if submodules else ''}"
        case _:
            assert_never(source)
    return f"{where}, in {source.subdir}" if source.subdir else where


def _settings(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return what options say of a source of this kind beside its place; refuses those of another kind."""
    for owner, fields in _KINDS.items():
        for field in fields:
            if field in given and owner != kind:
                raise typer.BadParameter(f"--{field} belongs to --{owner}, and the source is another: --{kind}.")
    return {field: given[field] for field in (*_KINDS[kind], "subdir") if field in given}


def _address(archive: str) -> str:
    return archive if "://" in archive else str(Path(archive).absolute())
