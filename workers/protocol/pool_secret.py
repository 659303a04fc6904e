"""The Secret of a pool: what its agents need to know of their credential, written by the control plane."""

from pydantic import BaseModel, ConfigDict, Field

# One file is replaced as a whole, two are not.
SECRET_FILE = "pool.json"  # noqa: S105 - a file's name


class PoolSecret(BaseModel):
    """The content of a pool's Secret. Any of ``payload_keys`` may have encrypted an order.

    ``redis_tls`` and ``broker_tls``: what connecting to the two servers takes beside the credential, PEM by parameter
    of a :mod:`workers.protocol.redis_address`: an agent has no files of the control plane.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    username: str
    password: str = Field(repr=False)
    payload_keys: tuple[str, ...] = Field(repr=False)
    redis_tls: dict[str, str] = Field(default={}, repr=False)
    broker_tls: dict[str, str] = Field(default={}, repr=False)
