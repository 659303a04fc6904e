"""The errors that both halves raise, each with one sentence that names the thing and what to do.

An exception is made from its sentence alone, so that Celery's JSON results can carry it to the caller and build
it again there.
"""


class TerraslotError(Exception):
    """Base of all errors with a sentence meant for people."""


class InvalidRequest(TerraslotError):
    """A request, message or setting that is invalid."""


class Unavailable(TerraslotError):
    """A server that is needed does not answer: Redis, the database, a cluster."""


class Damaged(TerraslotError):
    """A key of a pool holds what this system does not write, but an agent of the pool may: that pool is concerned."""
