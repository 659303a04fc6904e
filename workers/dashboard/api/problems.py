"""Errors as problem documents. Source: RFC 9457."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ValidationError

from workers.core import errors
from workers.protocol.errors import InvalidRequest, TerraslotError, Unavailable
from workers.protocol.validation import problems
from workers.services.errors import is_outage, user_message

MEDIA_TYPE = "application/problem+json"
_STATUSES: dict[type[TerraslotError], HTTPStatus] = {
    errors.UnknownRun: HTTPStatus.NOT_FOUND,
    errors.UnknownWorkspace: HTTPStatus.NOT_FOUND,
    errors.UnknownPool: HTTPStatus.NOT_FOUND,
    errors.UnknownAgent: HTTPStatus.NOT_FOUND,
    errors.ApprovalRefused: HTTPStatus.FORBIDDEN,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
}


class Problem(BaseModel):
    """What went wrong: ``title`` in general, ``detail`` in this case and what to do; ``errors``: each wrong field."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[str] = []

    def document(self) -> dict[str, Any]:
        """Return the document; an empty list of errors is left out."""
        return self.model_dump(mode="json", exclude_defaults=True) | {"type": self.type}


class Refused(Exception):
    """A request that is answered with a problem."""

    def __init__(self, status: HTTPStatus, detail: str, wrong: list[str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.problem = Problem(title=status.phrase, status=status, detail=detail, errors=wrong or [])


def invalid(error: ValidationError, what: str) -> Refused:
    """Return the refusal of a query or body that is invalid."""
    wrong = problems(error, values=True)
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, f"The {what} is invalid: {'; '.join(wrong)}.", wrong)


def refused(error: Exception) -> Refused | None:
    """Return an error that a person can do something about as a refusal; None for a fault of this program."""
    if isinstance(error, Refused):
        return error
    words = user_message(error)
    if words is None:
        return None
    return Refused(_status(error), words)


def _status(error: Exception) -> HTTPStatus:
    if is_outage(error):
        return HTTPStatus.SERVICE_UNAVAILABLE
    for kind, status in _STATUSES.items():
        if isinstance(error, kind):
            return status
    return HTTPStatus.CONFLICT if isinstance(error, TerraslotError) else HTTPStatus.INTERNAL_SERVER_ERROR
