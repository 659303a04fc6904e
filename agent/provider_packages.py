"""Provider packages that inits of this agent have unpacked, kept for the inits that follow.

Every ``init`` has a plugin cache of its own in its run's directory: links to those packages here that it may use. What
it adds there is moved here, and the run's links lead here. In one cache for all, Terraform would write over a program
that another run executes, and parallel inits would have to wait for one another.

A package is used again where the lock file has its checksum. Without a lock file it is used for the same sources of
providers: Terraform would lock whatever it finds there, for this run alone.
"""

import json
import os
import re
import shutil
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.files import fresh_directory, read_regular, write_atomically
from agent.init_inputs import DATA, LOCK_FILE, InitInputs
from agent.kept_trees import KeptTree

IN_USE = "packages.json"  # in a run's directory: the names of packages that its links lead to
_CACHE = "plugins"  # in a run's directory
_PACKAGES = "*/*/*/*/*"  # HOST/NAMESPACE/TYPE/VERSION/PLATFORM
_LOCKED = re.compile(r'^provider "([^"]+)"|^\s*version\s*=\s*"([^"]+)"|"(h1:[^"]+)"')

Locks = dict[str, set[str]]  # checksums by HOST/NAMESPACE/TYPE/VERSION


@dataclass(eq=False)
class Package(KeptTree):
    """A package: its place in a plugin cache, where it came from, and the checksums of which one is its own."""

    address: str = ""
    origin: str = ""
    checksums: frozenset[str] = frozenset()

    def suits(self, inputs: InitInputs, locks: Locks | None) -> bool:
        """Whether Terraform would take it as it is."""
        if locks is None:
            return self.origin == inputs.origin
        return bool(self.checksums) and self.checksums <= locks.get(os.path.dirname(self.address), set())


class ProviderPackages:
    """The packages in a directory. Not safe from several threads: see :mod:`agent.prepared`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.packages: list[Package] = []
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def offer(self, run_directory: Path, inputs: InitInputs) -> Path:
        """Return the plugin cache of a run's ``init``."""
        cache = run_directory / _CACHE
        fresh_directory(cache)
        locks = None if inputs.lock is None else locked(inputs.lock)
        suiting = {each.address: each for each in self.packages if each.suits(inputs, locks) and self._intact(each)}
        self.use(run_directory, [package.path for package in suiting.values()])
        for address, package in suiting.items():
            (cache / address).parent.mkdir(parents=True, exist_ok=True)
            (cache / address).symlink_to(package.path)
        return cache

    def take(self, run_directory: Path, module: Path, inputs: InitInputs) -> list[Path]:
        """Keep what an ``init`` has added to its plugin cache; return all packages that its module links to."""
        cache = run_directory / _CACHE
        checksums = locked(read_regular(module / LOCK_FILE)) if (module / LOCK_FILE).exists() else {}
        targets = []
        for link in _links(module):
            target = Path(os.path.normpath(link.parent / os.readlink(link)))
            if target.is_relative_to(cache):
                address = str(target.relative_to(cache))
                target = self._taken(target, address, inputs.origin, checksums.get(os.path.dirname(address), set()))
                link.unlink()
                link.symlink_to(target)
            targets.append(target)
        self.use(run_directory, targets)
        return targets

    def use(self, run_directory: Path, targets: list[Path]) -> None:
        """Note which packages a run needs, if any: they are kept while its directory is there."""
        if names := [target.name for target in targets if target.parent == self.directory]:
            write_atomically(run_directory / IN_USE, json.dumps(names))
        for package in self.packages:
            if package.path in targets:
                package.used_at = time.monotonic()

    def of(self, path: Path) -> Package | None:
        """Return the package of a directory; None for another's."""
        return next((package for package in self.packages if package.path == path), None)

    def remove_others(self, in_use: set[str]) -> None:
        """Remove what is not kept, and no run needs."""
        kept = {package.path.name for package in self.packages} | in_use
        for path in self.directory.iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def remove(self, package: Package) -> None:
        """Keep it no longer; what still links to it is told by Terraform that it lacks it."""
        self.packages.remove(package)
        shutil.rmtree(package.path, ignore_errors=True)

    def _intact(self, package: Package) -> bool:
        if intact := package.is_intact():
            return intact
        self.packages.remove(package)  # a run may use it: it goes when none does
        return False

    def _taken(self, found: Path, address: str, origin: str, checksums: set[str]) -> Path:
        """Return where a package is that stands in a plugin cache: a link, or a new one, which is kept."""
        if found.is_symlink():
            return Path(os.path.normpath(found.parent / os.readlink(found)))
        path = self.directory / uuid.uuid4().hex
        found.rename(path)
        self.packages.append(Package(path, address=address, origin=origin, checksums=frozenset(checksums)))
        return path


def _links(module: Path) -> list[Path]:
    return [path for path in (module / DATA / "providers").glob(_PACKAGES) if path.is_symlink()]


def used(runs: Path) -> set[str]:
    """Return the names of the packages that runs need."""
    names: set[str] = set()
    for path in runs.glob(f"*/{IN_USE}"):
        with suppress(OSError, ValueError, TypeError):  # a configuration may have written it
            names.update(map(str, json.loads(read_regular(path))))
    return names


def locked(lock_file: bytes) -> Locks:
    """Return the checksums of unpacked packages in a lock file."""
    found: Locks = {}
    provider = version = ""
    for line in lock_file.decode(errors="replace").split("\n"):
        for named, chosen, checksum in _LOCKED.findall(line):
            provider, version = named or provider, "" if named else chosen or version
            if checksum:
                found.setdefault(f"{provider}/{version}", set()).add(checksum)
    return found
