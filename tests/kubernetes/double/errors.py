"""Answers that are no success, as the API server words them."""

from __future__ import annotations

from typing import Any

GROUPS = {
    "deployments": "apps",
    "replicasets": "apps",
    "roles": "rbac.authorization.k8s.io",
    "rolebindings": "rbac.authorization.k8s.io",
    "clusterroles": "rbac.authorization.k8s.io",
    "clusterrolebindings": "rbac.authorization.k8s.io",
    "poddisruptionbudgets": "policy",
}


class ApiError(Exception):
    def __init__(self, status: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.details = status, reason, message, details

    def body(self) -> dict[str, Any]:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.status,
        }


def qualified(resource: str) -> str:
    group = GROUPS.get(resource, "")
    return f"{resource}.{group}" if group else resource


def not_found(resource: str, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{qualified(resource)} "{name}" not found', name=name, kind=resource)


def already_exists(resource: str, name: str) -> ApiError:
    return ApiError(409, "AlreadyExists", f'{qualified(resource)} "{name}" already exists', name=name, kind=resource)


def conflict(resource: str, name: str, why: str) -> ApiError:
    message = f'Operation cannot be fulfilled on {qualified(resource)} "{name}": {why}'
    return ApiError(409, "Conflict", message, name=name, kind=resource)


def invalid(kind: str, name: str, *problems: str) -> ApiError:
    causes = [{"reason": "FieldValueInvalid", "message": problem} for problem in problems]
    said = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
    return ApiError(422, "Invalid", f'{kind} "{name}" is invalid: {said}', name=name, kind=kind, causes=causes)


def forbidden(resource: str, name: str, why: str, cause: str = "") -> ApiError:
    causes = [{"reason": cause, "message": why}] if cause else []
    return ApiError(
        403, "Forbidden", f'{qualified(resource)} "{name}" is forbidden: {why}', name=name, kind=resource, causes=causes
    )


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def expired() -> ApiError:
    return ApiError(
        410,
        "Expired",
        "The provided continue parameter is too old to display a consistent list result. You can start a new list "
        "without the continue parameter.",
    )
