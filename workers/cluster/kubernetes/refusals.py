"""What a refusal of the API server means, as an error with its sentence.

A status code alone does not say it: 409 is a name that is taken or an object that changed, 403 a missing permission, a
quota or a policy. The sentence holds the server's own message.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum

from workers.core.errors import NotPermitted, PodRefused, QuotaExceeded
from workers.protocol.errors import TerraslotError, Unavailable

_MAX_WORDS = 600  # of the server's message: a pod's status and a log line hold it


class Kind(Enum):
    """What a refusal says of the object that the call is about; each with its status and, where it matters, reason."""

    ALREADY_EXISTS = (409, "AlreadyExists")
    CONFLICT = (409, "Conflict")  # the object is not the one, or not in the state, that the call expects
    NOT_FOUND = (404, None)  # no such object, or no such namespace
    EXPIRED = (410, None)  # the page to continue from is too old
    INVALID = (422, None)


@dataclass(frozen=True, slots=True)
class Call:
    """A call, as a message names it: ``create pods in the namespace ns``; of the whole cluster without namespace."""

    verb: str
    resource: str
    namespace: str
    name: str = ""

    def __str__(self) -> str:
        what = f"{self.resource} {self.name}" if self.name else self.resource
        return f"{self.verb} {what} in the namespace {self.namespace}" if self.namespace else f"{self.verb} {what}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is an error. ``reason`` is the API's word (``AlreadyExists``), ``message`` its sentence."""

    status: int
    reason: str
    message: str
    cause: str = ""

    @classmethod
    def of(cls, status: int, phrase: str | None, body: str | bytes | None) -> Refusal:
        """Read the body of an answer; where it is not the API's, as a proxy's page, the status line has to do."""
        try:
            said = json.loads(body or "")
            reason, message = said.get("reason") or "", said.get("message") or ""
            causes = (said.get("details") or {}).get("causes") or [{}]
            return cls(status, reason, message[:_MAX_WORDS], causes[0].get("reason") or "")
        except (ValueError, AttributeError):
            return cls(status, "", (phrase or "")[:_MAX_WORDS])

    @property
    def kind(self) -> Kind | None:
        """What it says of the object, if that is one of the known kinds."""
        return next((kind for kind in Kind if kind.value in ((self.status, self.reason), (self.status, None))), None)


def explain(refusal: Refusal, call: Call) -> TerraslotError:
    """Return the error for a refusal that the caller did not expect."""
    said = refusal.message or refusal.reason or f"status {refusal.status}"
    match refusal.status:
        case 401:
            return NotPermitted(
                f"The cluster refuses this control plane to {call}: its credentials are not valid ({said}). Renew them."
            )
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
