"""Who asks the dashboard for something, and for what that suffices.

A token names a program and its scopes. Whoever Flower has signed in may do everything. Where Flower has no
authentication, everybody may look, and change something only on a server that no other machine reaches: then it is the
person who runs it. A page of another site can't use what a browser sends by itself: neither a password nor the way to
this machine.
"""

import ipaddress
from base64 import b64decode
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from flower.views import BaseHandler
from tornado.options import OptionParser

from workers.core.access import Caller, Scope
from workers.core.approval import Actor
from workers.dashboard.api.problems import Refused
from workers.protocol.errors import InvalidRequest
from workers.services.secrets import tokens
from workers.services.system import System

SIGN_IN = "Sign in, or send a token: `Authorization: Bearer TOKEN`."
_BEARER = "bearer "
_EVERYTHING, _LOOKING = frozenset(Scope), frozenset({Scope.READ})
_READ_ONLY = "this dashboard is read-only (TERRASLOT_DASHBOARD_READ_ONLY)"
_UNPROTECTED = (
    "this dashboard knows nobody: configure Flower's authentication (--basic-auth or --auth), or use a token "
    "(`terraslot token create`)"
)
_SAFE = ("GET", "HEAD", "OPTIONS")


def caller(handler: BaseHandler, system: System) -> Caller | None:
    """Return who asks; None where nobody is known, and somebody has to be."""
    found = _caller(handler, system)
    if found is not None and system.settings.dashboard_read_only:
        return Caller(found.actor, found.scopes & _LOOKING, _READ_ONLY)
    return found


def is_foreign(handler: BaseHandler) -> bool:
    """Whether a browser may have been made to send this by a page of another site."""
    request = handler.request
    if request.method in _SAFE or _token(handler) is not None:
        return False
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None and site != "same-origin":
        return True
    return origin is not None and urlsplit(origin).netloc != request.host


def _caller(handler: BaseHandler, system: System) -> Caller | None:
    options = handler.application.options
    if (token := _token(handler)) is not None:
        return tokens.caller(system, token)
    if not (options.basic_auth or options.auth):
        return _anybody(handler, system)
    user = handler.current_user  # Flower raises 401 for a wrong password
    if not user:
        return None
    name = user if isinstance(user, str) else _basic_name(handler)
    try:
        return Caller(Actor(name), _EVERYTHING)
    except InvalidRequest as error:
        return Caller(None, _LOOKING, str(error))


def _anybody(handler: BaseHandler, system: System) -> Caller:
    if not (_only_from_here(handler.application.options) and _is_loopback(handler.request.host_name)):
        return Caller(None, _LOOKING, _UNPROTECTED)
    return Caller(Actor(system.settings.person), _EVERYTHING)


def _only_from_here(options: OptionParser | Any) -> bool:
    return not options.unix_socket and _is_loopback(options.address or "")


def _is_loopback(host: str) -> bool:
    """Whether a host is this machine; a name that another site's DNS may lead here is not."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _token(handler: BaseHandler) -> str | None:
    header = handler.request.headers.get("Authorization", "")
    return header[len(_BEARER) :].strip() if header.lower().startswith(_BEARER) else None


def _basic_name(handler: BaseHandler) -> str:
    credentials = handler.request.headers["Authorization"].split()[1]
    return b64decode(credentials).decode().partition(":")[0]


def granted(found: Caller | None, needed: Scope) -> Caller:
    """Return who asks, if that suffices for a request that needs this scope; raises :class:`Refused`."""
    if found is None:
        raise Refused(HTTPStatus.UNAUTHORIZED, SIGN_IN)
    if needed not in found.scopes:
        raise Refused(HTTPStatus.FORBIDDEN, f"This needs the scope {needed}: {found.refusal}.")
    return found
