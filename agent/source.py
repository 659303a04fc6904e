"""Where a configuration comes from: a directory is copied, an archive unpacked, of git exactly one commit is fetched.

Every run gets a copy of its own, and its apply uses the same files as its plan. Symbolic links are copied as links and
never followed, so that loops and links to large directories cost nothing.
"""

import os
import re
from collections.abc import Callable, Mapping
from fnmatch import translate
from pathlib import Path
from typing import assert_never

from agent.execution import Execution, unavailable
from agent.files import copy_file
from agent.git import fetch_commit
from agent.git_cache import GitCache
from agent.module import Module
from workers.protocol.sources import ArchiveSource, DirectorySource, GitSource

_LEFT_OUT = (".terraform", ".git", "terraform.tfstate.d", "*.tfstate", "*.tfstate.*")
_IS_LEFT_OUT = re.compile("|".join(map(translate, _LEFT_OUT)))


def fetch(
    execution: Execution, work_dir: Path, environment: Mapping[str, str], login: Mapping[str, str], cache: GitCache
) -> Module:
    """Put the configuration into the run's directory and return the module in which Terraform is to run.

    A git ref is resolved, and the execution told; ``login`` is the environment with passwords and keys for it. Raises
    :class:`PhaseFailed <agent.execution.PhaseFailed>` with ``source_unavailable``, and
    :class:`~agent.execution.Stopped`.
    """
    source = execution.order.source
    tree = execution.source_tree
    match source:
        case DirectorySource(path=path):
            states, where = _copy(execution, Path(path), tree, work_dir), path
        case ArchiveSource():
            from agent.archive import fetch_archive  # noqa: PLC0415 - most agents never see an archive

            states, where = fetch_archive(execution, source, tree, environment, login, without=_LEFT_OUT), "the archive"
        case GitSource():
            execution.resolved(fetch_commit(execution, source, environment, login, cache))
            states, where = [], f"commit {execution.commit}"
        case _:
            assert_never(source)
    for state in states:
        execution.log.write_text(f"Not copied: {state}. State is kept outside of the configuration's directory.")
    return root_module(tree, source.subdir, where)


def root_module(tree: Path, subdir: str, where: str) -> Module:
    """Return the root module. Raises :class:`PhaseFailed` if its directory holds no configuration."""
    module = Module(tree / subdir, tree)
    if not module.path.is_dir():
        raise unavailable(f"There is no directory '{subdir}' in {where}: correct the workspace's subdirectory.")
    if not module.is_inside:
        raise unavailable(f"'{subdir}' in {where} is a link that leads out of the source: name the directory itself.")
    if not module.files:
        place = f"'{subdir}' in {where}" if subdir else where
        raise unavailable(f"There is no Terraform configuration (*.tf) in {place}: correct the workspace's path.")
    return module


def _copy(execution: Execution, path: Path, tree: Path, work_dir: Path) -> list[str]:
    if not path.is_dir():
        raise unavailable(
            f"The directory {path} does not exist on agent {execution.agent}: correct the workspace's path, or put "
            "the configuration there."
        )
    try:
        return list(map(str, copy_tree(path, tree, execution.check, without=work_dir)))
    except OSError as error:
        raise unavailable(f"The directory {path} can't be copied: {error.strerror}: {error.filename}.") from error


def copy_tree(source: Path, target: Path, check: Callable[[], None], *, without: Path) -> list[Path]:
    """Copy a directory and return the state files that were left out.

    ``check`` is called before each file; ``without`` is a directory that is not entered. Sockets, devices and pipes
    are not copied. Raises ``OSError``.
    """
    states: list[Path] = []
    pending = [(source, target)]
    while pending:
        directory, copy = pending.pop()
        copy.mkdir(parents=True, exist_ok=True)
        with os.scandir(directory) as entries:
            for entry in entries:
                check()
                if _IS_LEFT_OUT.match(entry.name):
                    states += [Path(entry.path)] if entry.name.endswith(".tfstate") else []
                elif entry.is_symlink():
                    (copy / entry.name).symlink_to(_link_target(Path(entry.path), source))
                elif entry.is_dir():
                    if (path := Path(entry.path)) != without:
                        pending.append((path, copy / entry.name))
                elif entry.is_file():
                    copy_file(entry.path, copy / entry.name)
    return states


def _link_target(link: Path, root: Path) -> str:
    """Return where the copy of a link is to point: a relative one that leads out of the tree becomes absolute."""
    target = os.readlink(link)
    resolved = os.path.normpath(link.parent / target)
    inside = os.path.isabs(target) or Path(resolved).is_relative_to(root)
    return target if inside else resolved
