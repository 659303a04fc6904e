"""The lock that keeps a run from its state: whose it is, asked of Terraform, and its end.

What is known of a lock decides whether it may be ended. A configuration prints what it likes, and may give an error any
text. So Terraform is asked anew, as JSON, in a directory that holds nothing but the backend: nothing of the
configuration is there, and no provider is started. Some backends don't tell it who holds a lock; then it names its own
request, which is told by its time, and is not taken for a holder.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from agent import http_lock
from agent.execution import Execution, PhaseFailed, Stopped, locks_as
from agent.files import is_inside, read_regular
from agent.summary import SHORT
from agent.terraform import Terraform
from workers.protocol.kinds import FailureReason
from workers.protocol.states import StateLock, lock_of

R = TypeVar("R")
NOT_TOLD = (
    "Who holds the lock is not known: this backend does not tell. What Terraform names as the lock's is this run's own "
    "request."
)
_SUMMARY = "Error acquiring the state lock"
_RECORD = Path(".terraform", "terraform.tfstate")
_WORKSPACE = Path(".terraform", "environment")
_FIELDS = ("ID", "Who", "Operation", "Created")  # of a lock, as backends keep it


@contextmanager
def told(terraform: Terraform) -> Iterator[None]:
    """Let the phase's report say which lock a command has met."""
    try:
        yield
    except PhaseFailed as failure:
        if _SUMMARY in failure.text:
            _tell(terraform, failure)
        raise


def waited_for(terraform: Terraform, command: Callable[[int | None], R]) -> R:
    """Run a command that takes the state's lock, and waits for a holder that may live: the order names dead ones.

    ``command`` is told how many seconds it waits; None for as long as usual.
    """
    execution = terraform.execution
    if execution.order.dead_holders:
        try:
            with told(terraform):
                return command(0)
        except PhaseFailed as failure:
            if _SUMMARY not in failure.text or _is_of_a_dead_one(execution):
                raise
        execution.findings.pop("lock", None)
        execution.log.write("Its holder may live: the lock is waited for.")
    with told(terraform):
        return command(None)


def _is_of_a_dead_one(execution: Execution) -> bool:
    lock: StateLock | None = execution.findings.get("lock")
    return lock is not None and any(holder.holds(lock) for holder in execution.order.dead_holders)


def _tell(terraform: Terraform, failure: PhaseFailed) -> None:
    try:
        lock, is_held = held(terraform)
    except PhaseFailed as error:
        terraform.execution.logger.info("lock not looked for", why=error.text)
        return
    if lock is not None:
        terraform.execution.findings["lock"] = lock
    elif is_held:
        failure.text = f"{failure.text}\n\n{NOT_TOLD}"


def held(terraform: Terraform) -> tuple[StateLock | None, bool]:
    """Return the lock that is held on the state of an initialised module, and whether any is: not every one is told.

    Raises :class:`PhaseFailed` where that can't be found out.
    """
    try:
        bare, backend = _bare_module(terraform)
        began = time.time()
        detail = _detail(terraform.lock_probe(bare))
        if detail is None:
            return None, False
        if backend == "http":
            return _of_http(terraform, bare), True
        lock = StateLock.model_validate(lock_of(detail))
    except (Stopped, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise PhaseFailed(
            FailureReason.TERRAFORM_FAILED, f"The state's lock can't be looked at: {error!r:.200}"
        ) from error
    own = lock.who == locks_as() and (lock.at is None or lock.at >= began)
    return (None if own else lock), True


def end(terraform: Terraform, lock: str) -> None:
    """End the lock of this id; nothing where it is gone. Raises :class:`PhaseFailed` where another is held."""
    found, is_held = held(terraform)
    if found is not None and found.id == lock:
        terraform.end_lock(lock)
    elif is_held:
        whose = f"by {found.who} since {found.created}: {found.id}" if found else "by whom is not known"
        raise PhaseFailed(FailureReason.TERRAFORM_FAILED, f"Another lock than {lock} is held, {whose}.")
    else:
        terraform.execution.log.write(f"The lock {lock} is gone already.")


def _bare_module(terraform: Terraform) -> tuple[Path, str]:
    """Make a module of the backend alone, as ``init`` has entered it; return it, and the backend's type."""
    module, tree = terraform.module, terraform.execution.source_tree
    record = _own(module / _RECORD, tree)
    backend: dict[str, Any] = json.loads(record)["backend"]
    given = {name: value for name, value in (backend.get("config") or {}).items() if value is not None}
    bare = terraform.execution.directory / "backend"
    shutil.rmtree(bare, ignore_errors=True)
    (bare / _RECORD.parent).mkdir(mode=0o700, parents=True)
    (bare / _RECORD).write_bytes(record)
    if (module / _WORKSPACE).exists():
        (bare / _WORKSPACE).write_bytes(_own(module / _WORKSPACE, tree))
    (bare / "main.tf.json").write_text(json.dumps({"terraform": {"backend": {backend["type"]: given}}}))
    return bare, backend["type"]


def _own(path: Path, tree: Path) -> bytes:
    if not is_inside(path, tree):
        raise ValueError(f"{path.name} leads out of the source")
    return read_regular(path)


def _detail(printed: str) -> str | None:
    """Return what Terraform's first error says of a lock; None where it is another, or there is none."""
    for line in printed.splitlines():
        found = json.loads(line).get("diagnostic") or {}
        if found.get("severity") == "error":
            return str(found["detail"]) if found["summary"] == _SUMMARY else None
    return None


def _of_http(terraform: Terraform, bare: Path) -> StateLock | None:
    program = [sys.executable, "-I", http_lock.__file__, str(bare / _RECORD)]
    finished = terraform.execution.run(program, cwd=bare, env=terraform.environment, keep_stdout=SHORT)
    try:
        printed = json.loads(read_regular(finished.stdout) or "null")
        return None if printed is None else StateLock.model_validate({name.lower(): printed[name] for name in _FIELDS})
    finally:
        finished.stdout.unlink(missing_ok=True)
