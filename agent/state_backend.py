"""Where state is kept: in the configuration's own backend, or outside of the run's directory, which is deleted."""

import json
import os
import re
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.execution import Execution, PhaseFailed, unavailable
from agent.files import create, read_inside
from agent.module import Module
from workers.protocol.kinds import FailureReason

OVERRIDE = "terraslot_override.tf.json"
ERRORED = "errored.tfstate"
_BACKEND = re.compile(rb"\b(?:backend|cloud)\b")
# A line of its own: inside a text or a longer comment it names no backend either. Within the line: over line ends,
# a file of empty lines would be looked through once for each of them.
_COMMENT = re.compile(rb"^[ \t]*(?:#|//).*$", re.MULTILINE)


def may_be_configured(module: Module) -> bool:
    """Whether the root module names a backend; without the word, outside of comments, it can't.

    A file that lies outside of the source is not read, and may name one. Raises :class:`PhaseFailed` for what is no
    file, or too large for one: Terraform would read it too.
    """
    # A file of the override's name is replaced before Terraform reads it.
    naming = [name for name in module.files if name != OVERRIDE and _may_name_one(module, name)]
    return bool(naming)


def _may_name_one(module: Module, name: str) -> bool:
    try:
        content = module.content(name)
    except OSError as error:
        raise _unreadable(name, error) from error
    return content is None or bool(_BACKEND.search(_COMMENT.sub(b"", content)))


def is_remote(module: Module) -> bool:
    """Whether the initialised module keeps its state in a place of its own that outlives the run.

    That includes a file that the configuration names by its absolute path. Raises :class:`PhaseFailed` where the
    source has put something else in the place of Terraform's own record.
    """
    record = module.path / ".terraform" / "terraform.tfstate"
    if not record.exists():
        return False
    try:
        content = read_inside(record, module.tree)
    except OSError as error:
        raise _unreadable(record.name, error) from error
    if content is None:
        raise unavailable(".terraform leads out of the source: remove that link from it.")
    try:
        backend: dict[str, Any] = json.loads(content)["backend"]
    except KeyError:
        return False
    if backend["type"] != "local":
        return True
    path: str | None = (backend.get("config") or {}).get("path")
    return path is not None and Path(path).is_absolute()


def use_local(module: Path, state_path: str | None, workspace: str) -> tuple[str, str]:
    """Let the module keep its state at ``state_path``, and return the flags that ``init`` needs for it.

    Raises :class:`PhaseFailed` if there is no such place.
    """
    if state_path is None:
        raise PhaseFailed(
            FailureReason.TERRAFORM_FAILED,
            "The configuration names no remote backend, and this pool's pods keep no state. Add a backend block to it.",
        )
    path = Path(state_path)
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _label(path.parent, workspace)
    # The path is given by flags: in the file, OpenTofu would interpret a "${" in it, and Terraform not.
    create(module / OVERRIDE, json.dumps({"terraform": {"backend": {"local": {}}}}))
    return f"-backend-config=path={path}", f"-backend-config=workspace_dir={path}.d"


def _label(directory: Path, workspace: str) -> None:
    """Let the name of the workspace lead to the directory of its state: control planes of 0.1 know it by that alone."""
    label = directory.with_name(workspace)
    with suppress(OSError):  # it is no link, or not there
        if os.readlink(label) == directory.name:
            return
    if directory.name.startswith(f"{workspace}.") and (label.is_symlink() or not label.exists()):
        draft = directory / f".{uuid.uuid4().hex}"  # of its own: other slots and agents label the same directory
        draft.symlink_to(directory.name)
        draft.replace(label)


def rescue_state(execution: Execution, module: Path, rescued: Path) -> Path | None:
    """Keep the state that Terraform could not write to its backend; return where, None where it has left none."""
    errored = module / ERRORED
    if errored.is_symlink() or not errored.is_file():
        return None
    state_path = execution.order.state_path
    directory = Path(state_path).parent if state_path else rescued
    kept = directory / f"{execution.order.workspace}-{execution.order.run}.{ERRORED}"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(errored, kept)
    kept.chmod(0o600)
    return kept


def _unreadable(name: str, error: OSError) -> PhaseFailed:
    return unavailable(f"{name} can't be read: {error.strerror}. Correct it in the source.")
