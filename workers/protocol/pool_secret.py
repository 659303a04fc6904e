"""The Secret of a pool: what its agents need to know of their credential, written by the control plane."""

from pydantic import BaseModel, ConfigDict, Field

# One file is replaced as a whole, two are not.
SECRET_FILE = "pool.json"  # noqa: S105 - a file's name


class PoolSecret(BaseModel):
    """The content of a pool's Secret. Any of ``payload_keys`` may have encrypted an order."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    username: str
    password: str = Field(repr=False)
    payload_keys: tuple[str, ...] = Field(repr=False)
