"""Access control: tokens, and the Roles of a namespace."""

from __future__ import annotations

import secrets
from typing import Any

from tests.kubernetes.double.errors import GROUPS, ApiError, qualified
from tests.kubernetes.double.objects import Objects

ADMIN = "system:admin"


class Access:
    """``admin_token`` may do everything, a service account's what the Roles that are bound to it say."""

    def __init__(self, objects: Objects) -> None:
        self.admin_token = secrets.token_hex(16)
        self._objects = objects
        self._users = {self.admin_token: ADMIN}

    def token_for(self, namespace: str, account: str) -> str:
        self._objects.get("serviceaccounts", namespace, account)
        token = secrets.token_hex(16)
        self._users[token] = f"system:serviceaccount:{namespace}:{account}"
        return token

    def user(self, header: str) -> str:
        token = header.partition(" ")[2]
        user = self._users.get(token)
        if user is None or (user != ADMIN and not self._account_exists(user)):
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return user

    def authorize(self, user: str, verb: str, resource: str, *, subresource: str, namespace: str, name: str) -> None:
        if user == ADMIN or any(
            _allows(rule, verb, resource, subresource, name) for rule in self._rules(user, namespace)
        ):
            return
        what = f"{resource}/{subresource}" if subresource else resource
        where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
        named = f'{qualified(resource)} "{name}"' if name else qualified(resource)
        raise ApiError(
            403,
            "Forbidden",
            f'{named} is forbidden: User "{user}" cannot {verb} resource "{what}" in API group '
            f'"{GROUPS.get(resource, "")}"{where}',
            name=name,
            kind=resource,
        )

    def _rules(self, user: str, namespace: str) -> list[dict[str, Any]]:
        found = [("roles", namespace, each) for each in self._objects.all("rolebindings", namespace) if namespace]
        found += [("clusterroles", "", each) for each in self._objects.all("clusterrolebindings")]
        rules = []
        for roles, where, binding in found:
            if _binds(binding, user, namespace):
                role = self._objects.find(roles, where, binding["roleRef"]["name"])
                rules += (role or {}).get("rules") or []
        return rules

    def _account_exists(self, user: str) -> bool:
        _, _, namespace, account = user.split(":")
        return self._objects.find("serviceaccounts", namespace, account) is not None


def _binds(binding: dict[str, Any], user: str, namespace: str) -> bool:
    _, _, of, account = user.split(":")
    return any(
        (subject.get("kind"), subject.get("name"), subject.get("namespace", namespace))
        == ("ServiceAccount", account, of)
        for subject in binding.get("subjects") or ()
    )


def _allows(rule: dict[str, Any], verb: str, resource: str, subresource: str, name: str) -> bool:
    what = f"{resource}/{subresource}" if subresource else resource
    names = rule.get("resourceNames")
    return (
        (verb in rule["verbs"] or "*" in rule["verbs"])
        and (what in rule["resources"] or "*" in rule["resources"])
        and (GROUPS.get(resource, "") in rule["apiGroups"] or "*" in rule["apiGroups"])
        and (not names or name in names)
    )
