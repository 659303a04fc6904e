"""Where a Redis server is, as people have them: TCP, TLS, a Unix socket, or a primary that sentinels know.

One URL says it all; redis-py, Celery's broker and its result backend each want it in their own words:

    redis://[user:password@]host[:port][/db]        rediss://... is the same with TLS
    unix://[user:password@]/path[?db=N]
    sentinel://[user:password@]host[:port][,host[:port]...][/db]?master=NAME        rediss+sentinel://... with TLS

``ssl_ca_certs``, ``ssl_certfile`` and ``ssl_keyfile`` in the query name PEM files, as they do for redis-py.
``sentinel_username`` and ``sentinel_password`` are for the sentinels themselves. Celery's own way to name several
sentinels, ``sentinel://host;sentinel://host``, is read alike.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

_PORT, _SENTINEL_PORT = 6379, 26379
TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS = {"redis": False, "rediss": True, "unix": False, "sentinel": False, "rediss+sentinel": True}
_OF_SENTINELS = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A server, and who connects. ``hosts`` are sentinels where there is a ``master``, the name of their primary."""

    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    master: str | None = None
    sentinel: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def public(self) -> str:
        """The address as it may be shown: without credentials, and without names of files."""
        return replace(self, username=None, password=None, files={}, sentinel={}).url

    @property
    def url(self) -> str:
        """The whole address; :func:`parse` reads it."""
        names = ",".join(f"{_bracketed(host)}:{port}" for host, port in self.hosts)
        query: dict[str, str | int] = {**self.files, **self.sentinel}
        if self.path is not None:
            place = quote(self.path)
            query |= {"db": self.db} if self.db else {}
        else:
            place = f"{names}/{self.db}"
            query |= {"master": self.master} if self.master else {}
        return f"{self._scheme}://{self._userinfo}{place}{'?' if query else ''}{urlencode(query)}"

    def celery(self, provider: str | None = None) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """Return URL, TLS settings and transport options for Celery's broker or result backend.

        ``provider`` names a class that gives the credentials of the moment, in place of those in the address.
        """
        userinfo = "" if provider else self._userinfo
        query = {"credential_provider": provider} if provider else {}
        if self.path is not None:
            query |= {"virtual_host": str(self.db)}
            return f"redis+socket://{userinfo}{quote(self.path)}?{urlencode(query)}", {}, {}
        scheme = "sentinel" if self.master else "rediss" if self.tls else "redis"
        chunks = [f"{scheme}://{userinfo}{_bracketed(host)}:{port}/{self.db}" for host, port in self.hosts]
        url = ";".join(chunks) + (f"?{urlencode(query)}" if query else "")
        options: dict[str, Any] = {}
        if self.master:
            options = {"master_name": self.master, "sentinel_kwargs": self.sentinel_options}
        return url, ({"ssl_cert_reqs": "required", **self.files} if self.tls else {}), options

    def load_certificates(self) -> None:
        """Load what ``files`` name. Raises ``ValueError`` that names what can't be loaded."""
        loaded = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        files = {name: self.files.get(name) for name in TLS_FILES}
        try:
            if files["ssl_ca_certs"]:
                loaded.load_verify_locations(files["ssl_ca_certs"])
            if files["ssl_certfile"]:
                loaded.load_cert_chain(files["ssl_certfile"], files["ssl_keyfile"])
        except OSError as error:  # ssl.SSLError is one
            names = ", ".join(name for name in files.values() if name)
            raise ValueError(f"names certificates that can't be loaded ({names}): {error.strerror or error}") from error

    def contents(self) -> dict[str, str]:
        """Return what is in ``files``, by parameter."""
        return {name: Path(path).read_text() for name, path in self.files.items()}

    @property
    def sentinel_options(self) -> dict[str, str]:
        """What connecting to the sentinels takes, in redis-py's words."""
        return {name.removeprefix("sentinel_"): value for name, value in self.sentinel.items()}

    @property
    def _scheme(self) -> str:
        if self.path is not None:
            return "unix"
        if self.master:
            return "rediss+sentinel" if self.tls else "sentinel"
        return "rediss" if self.tls else "redis"

    @property
    def _userinfo(self) -> str:
        if self.username is None and self.password is None:
            return ""
        return f"{quote(self.username or '', safe='')}:{quote(self.password or '', safe='')}@"


def parse(url: str) -> RedisAddress:
    """Read a URL. Raises ``ValueError`` that says what is wrong, without the URL: it may hold a password."""
    first, *others = url.split(";")
    parts = urlsplit(first)
    if parts.scheme not in _TLS:
        raise ValueError(f"must start with {', '.join(f'{scheme}://' for scheme in _TLS)}")
    query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    userinfo, _, netloc = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    address = RedisAddress(
        username=unquote(username) or None,
        password=unquote(password) or None,
        tls=_TLS[parts.scheme],
        files={name: query.pop(name) for name in TLS_FILES if name in query},
        sentinel={name: query.pop(name) for name in _OF_SENTINELS if name in query},
    )
    if parts.scheme == "unix":
        found = replace(address, path=unquote(parts.path), db=_number(query.pop("db", "0")))
    else:
        sentinels = parts.scheme.endswith("sentinel")
        names = [*netloc.split(","), *(urlsplit(other).netloc.rpartition("@")[2] for other in others)]
        found = replace(
            address,
            hosts=tuple(_host(name, _SENTINEL_PORT if sentinels else _PORT) for name in names),
            db=_number(parts.path.strip("/") or query.pop("db", "0")),
            master=query.pop("master", None) if sentinels else None,
        )
    _refuse(found, parts.scheme, query)
    return found


def _refuse(address: RedisAddress, scheme: str, unknown: Mapping[str, str]) -> None:
    if unknown:
        raise ValueError(f"has a parameter that is not known: {', '.join(sorted(unknown))}")
    if scheme.endswith("sentinel") and not address.master:
        raise ValueError("names sentinels, but not their primary: add ?master=NAME")
    if not address.master and len(address.hosts) > 1:
        raise ValueError("names several hosts: only sentinel:// may")
    if (address.files or address.sentinel) and not (address.tls or address.master):
        raise ValueError("names certificates, but not TLS: use rediss://")
    if ("ssl_certfile" in address.files) != ("ssl_keyfile" in address.files):
        raise ValueError("needs both ssl_certfile and ssl_keyfile for a client certificate")
    if scheme == "unix" and not address.path:
        raise ValueError("names no socket: use unix:///path/of/the/socket")


def _host(name: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{name}")
    return parts.hostname or "127.0.0.1", parts.port or default


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"has {text!r} in place of a database's number")
    return int(text)
