"""A state that Terraform could not save, on its way out of the agent, and on the way back to be pushed."""

from pathlib import Path

from structlog.typing import FilteringBoundLogger

from agent.execution import Execution
from agent.files import write_atomically
from agent.masking import payload_keyring
from workers.protocol.errors import InvalidRequest
from workers.protocol.states import MAX_STATE, pack, unpack

_PUSHED = "pushed.tfstate"
_AT_ONCE = 1 << 20


def encrypted(state: Path, secret_dir: Path | None, logger: FilteringBoundLogger) -> str | None:
    """Return a state packed and encrypted for the control plane; None where that can't be: it stays here then."""
    try:
        keys = payload_keyring(secret_dir)
        with state.open("rb") as file:
            packed = pack(iter(lambda: file.read(_AT_ONCE), b"")) if state.stat().st_size <= MAX_STATE else None
        found = packed and keys.encrypt_bytes(packed)
    except (InvalidRequest, OSError) as error:
        logger.warning("state that was not saved stays on this agent", path=str(state), why=str(error))
        return None
    if found is None:
        logger.warning("state that was not saved stays on this agent: it is too large", path=str(state))
    return found or None


def advice(execution: Execution, kept: Path | None) -> str:
    """Say what to do about a state that was not saved; ``kept``: where it stays on this agent, if it stays there."""
    unsaved = "Terraform could not save the state. It is kept"
    again, run = "Once the backend works again,", execution.order.run
    if kept is None:
        return f"{unsaved} with the run. {again} `terraslot state push {run}` saves it."
    return (
        f"{unsaved} on agent {execution.agent} alone, as {kept}. {again} push it with 'terraform state push' in an "
        f"initialised copy of the configuration. Then `terraslot state give-up {run}` lets the workspace's runs go on."
    )


def decrypted(content: str | None, secret_dir: Path | None, directory: Path) -> Path:
    """Write a state that is to be pushed into a run's directory, for its owner alone; return where.

    Raises :class:`InvalidRequest` where there is none, or it can't be read.
    """
    if content is None:
        raise InvalidRequest("The state that is to be pushed has not arrived, or has expired: push it again.")
    state = directory / _PUSHED
    write_atomically(state, unpack(payload_keyring(secret_dir).decrypt_bytes(content)))
    return state
