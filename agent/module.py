"""A module of a configuration, as the agent looks at it before Terraform does: its files are listed and read once.

Whoever writes a configuration chooses what its files are. One that lies outside of the run's source is not read. What
was read is kept up to the size of real modules, so that a hostile one takes no memory from the agent's other slots;
what is more is read again.
"""

from collections.abc import Collection
from functools import cached_property
from os import scandir
from pathlib import Path

from agent.files import is_inside, read_inside, read_regular
from workers.protocol.sources import is_configuration

_KEPT_BYTES = 2**20


class Module:
    """The module in a directory ``path`` of the source ``tree``."""

    def __init__(self, path: Path, tree: Path) -> None:
        self.path = path
        self.tree = tree
        self._contents: dict[str, bytes | None] = {}
        self._room = _KEPT_BYTES

    @cached_property
    def is_inside(self) -> bool:
        """Whether the directory is in the source, wherever its links lead."""
        return is_inside(self.path, self.tree)

    @property
    def files(self) -> Collection[str]:
        """The names of its own files, not of those of modules that it calls. Raises ``OSError`` without a directory.

        As to Terraform, a directory is none whatever its name.
        """
        return self._links.keys()

    @cached_property
    def _links(self) -> dict[str, bool]:
        """Whether each of the files is a link."""
        with scandir(self.path) as entries:
            named = (entry for entry in entries if is_configuration(entry.name))
            return {entry.name: entry.is_symlink() for entry in named if not entry.is_dir(follow_symlinks=False)}

    def content(self, name: str) -> bytes | None:
        """Return what one of the files holds; None for one outside of the source.

        Raises ``OSError`` for what is no regular file, wherever it lies, and for one that is too large.
        """
        if name in self._contents:
            return self._contents[name]
        path = self.path / name
        may_lead_out = self._links[name] or not self.is_inside
        content = read_inside(path, self.tree) if may_lead_out else read_regular(path)
        if content is None or len(content) <= self._room:
            self._contents[name] = content
            self._room -= len(content or b"")
        return content
