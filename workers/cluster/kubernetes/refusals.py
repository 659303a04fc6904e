"""What an answer of the API server that is no success means, as an error with its sentence.

A status code alone does not say it: 409 is a name that is taken or an object that changed, 403 a missing permission, a
quota or a policy. What the server says is kept in the sentence; it knows best.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from http import HTTPStatus

from workers.core.errors import NotPermitted, PodRefused, QuotaExceeded
from workers.protocol.errors import TerraslotError, Unavailable

_MAX_WORDS = 600


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked for: ``create pods in the namespace ns``."""

    verb: str
    resource: str
    namespace: str
    name: str = ""

    def __str__(self) -> str:
        what = f"{self.resource} {self.name}" if self.name else self.resource
        return f"{self.verb} {what} in the namespace {self.namespace}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no success. ``reason`` is the API's word (``AlreadyExists``), ``message`` its sentence."""

    status: int
    reason: str
    message: str
    cause: str = ""

    @classmethod
    def of(cls, status: int | None, phrase: str | None, body: str | bytes | None) -> Refusal:
        """Read the body of an answer; a proxy's page or an empty one leaves the status line."""
        try:
            said = json.loads(body or "")
            reason, message = said.get("reason") or "", said.get("message") or ""
            causes = (said.get("details") or {}).get("causes") or [{}]
            return cls(status or 0, reason, message[:_MAX_WORDS], causes[0].get("reason") or "")
        except (ValueError, AttributeError):
            return cls(status or 0, "", (phrase or "")[:_MAX_WORDS])

    @property
    def already_exists(self) -> bool:
        """An object of that name is there."""
        return self.status == HTTPStatus.CONFLICT and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """The object is not the one, or not as, it was expected to be."""
        return self.status == HTTPStatus.CONFLICT and self.reason == "Conflict"

    @property
    def not_found(self) -> bool:
        """There is no such object, or no such namespace."""
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def invalid(self) -> bool:
        """The object would not make sense."""
        return self.status == HTTPStatus.UNPROCESSABLE_ENTITY

    @property
    def forbidden(self) -> bool:
        """Not permitted, by whatever rule."""
        return self.status == HTTPStatus.FORBIDDEN

    @property
    def expired(self) -> bool:
        """The page to continue from is too old."""
        return self.status == HTTPStatus.GONE


class Refused(Exception):
    """The API server refused a call; most callers know what one refusal or other means to them."""

    def __init__(self, refusal: Refusal, call: Call) -> None:
        super().__init__(refusal, call)
        self.refusal = refusal
        self.call = call


def explain(refusal: Refusal, call: Call) -> TerraslotError:
    """Return what a refusal means where nobody knew what to do about it."""
    said = refusal.message or refusal.reason or f"status {refusal.status}"
    match refusal.status:
        case 401:
            return NotPermitted(f"The cluster does not know who we are: it refuses to {call} ({said}).")
        case 403:
            return _forbidden(refusal, call, said)
        case 404 if "namespaces" in said:
            return Unavailable(
                f"The namespace {call.namespace} does not exist: create it, or set TERRASLOT_NAMESPACE. ({said})"
            )
        case 400 | 422:
            return PodRefused(f"The cluster refuses to {call}: {said}")
        case 429:
            return Unavailable(f"The cluster is asked for too much at once and refuses to {call} for now ({said}).")
    return Unavailable(f"The cluster could not {call}: {said} (status {refusal.status}).")


def _forbidden(refusal: Refusal, call: Call, said: str) -> TerraslotError:
    if "exceeded quota" in said or "failed quota" in said or "status unknown for quota" in said:
        return QuotaExceeded(f"The quota of the namespace {call.namespace} refuses another pod: {said}")
    if refusal.cause == "NamespaceTerminating" or "is being terminated" in said:
        return Unavailable(f"The namespace {call.namespace} is being deleted: nothing can be created in it.")
    if re.search(r"cannot \S+ resource", said):
        return NotPermitted(
            f"This control plane has no permission to {call}: give its service account the verb '{call.verb}' on "
            f"'{call.resource}' there. ({said})"
        )
    return PodRefused(f"The cluster refuses to {call}: {said}")
