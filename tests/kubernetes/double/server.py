"""The API server's HTTP, on a socket of 127.0.0.1."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.kubernetes.double.access import Access
from tests.kubernetes.double.api import Api, wrapped
from tests.kubernetes.double.errors import ApiError
from tests.kubernetes.double.objects import KINDS, Objects

_PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/v1)"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<part>[^/]+))?"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True)
class Request:
    verb: str
    resource: str
    namespace: str
    name: str
    part: str
    query: dict[str, str]
    user: str


@dataclass
class Fault:
    """What happens to the next ``times`` requests of a verb and resource instead of an answer."""

    verb: str
    resource: str = "pods"
    times: int = 1
    status: int = 0
    reason: str = ""
    message: str = ""
    hang: bool = False
    cut: bool = False
    body: bytes | None = None
    after: bool = False  # the request is carried out first, only its answer is lost
    skip: int = 0  # requests that pass before
    first: Callable[[], None] | None = None  # done instead, before the request is carried out as usual

    def strikes(self, request: Request) -> bool:
        if self.times <= 0 or (request.verb, request.resource) != (self.verb, self.resource):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class Server:
    """Serves ``objects`` until it is closed; ``requests`` are all it got, ``faults`` what is to go wrong."""

    objects: Objects
    access: Access
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    port: int = 0
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.api = Api(self.objects)
        self.released = threading.Event()
        self._counting = threading.Lock()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        server = self

        class Handler(_Handler):
            double = server

        self._http = _Http(("127.0.0.1", self.port), Handler)
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True, name="api-server")
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections and cut those that are open."""
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._http.cut()
        self._thread.join()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Remember how many requests were carried out at the same time."""
        with self._counting:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        yield
        with self._counting:
            self.at_once -= 1

    def count(self, verb: str, resource: str = "pods") -> int:
        return sum(request.verb == verb and request.resource == resource for request in self.requests)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients that go away are no news."""

    def cut(self) -> None:
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    double: Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the time of the server's clock, for the header ``Date``."""
        return super().date_time_string((timestamp or time.time()) + self.double.objects.ahead)

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - names that http.server looks for

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        try:
            status, answer = self._answer(body)
        except ApiError as error:
            status, answer = error.status, json.dumps(error.body()).encode()
        if answer is not None:
            self._send(status, answer)

    def _send(self, status: int, answer: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _answer(self, body: dict[str, Any]) -> tuple[int, bytes | None]:
        request = self._request()
        fault = next((fault for fault in self.double.faults if fault.strikes(request)), None)
        if fault and fault.first:
            fault.first()
            fault = None
        elif fault and not fault.after:
            return self._fail(fault)
        with self.double.counted():
            done = self._carry_out(request, body)
        return self._fail(fault) if fault else done

    def _request(self) -> Request:
        parts = urlsplit(self.path)
        match = _PATH.fullmatch(parts.path)
        user = self.double.access.user(self.headers.get("Authorization") or "")
        if match is None or match["resource"] not in KINDS:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        query = dict(parse_qsl(parts.query))
        verb = _VERBS.get(self.command) or ("get" if match["name"] else "list")
        if self.command == "DELETE":
            verb = "delete" if match["name"] else "deletecollection"
        request = Request(
            verb,
            match["resource"],
            match["namespace"] or "",
            match["name"] or "",
            match["part"] or "",
            query,
            user,
        )
        self.double.requests.append(request)
        self.double.access.authorize(
            user,
            verb,
            request.resource,
            subresource=request.part,
            namespace=request.namespace,
            name="" if verb == "create" else request.name,
        )
        return request

    def _fail(self, fault: Fault) -> tuple[int, bytes | None]:
        if fault.hang:
            self.double.released.wait(60)
        if fault.hang or fault.cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return 0, None
        if fault.body is not None:
            return fault.status, fault.body
        raise ApiError(fault.status, fault.reason, fault.message)

    def _carry_out(self, request: Request, body: dict[str, Any]) -> tuple[int, bytes]:
        if request.verb == "list":
            namespace = request.namespace or None
            return 200, self.double.objects.list(request.resource, namespace, request.query)
        status = 201 if request.verb == "create" else 200
        return status, json.dumps(self._object(request, body)).encode()

    def _object(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:  # noqa: PLR0911 - one a verb
        api, where = self.double.api, (request.resource, request.namespace)
        match request.verb, request.part:
            case "get", _:
                return wrapped(request.resource, self.double.objects.get(*where, request.name))
            case "create", "eviction":
                return api.evict(request.namespace, request.name, body)
            case "create", "token":
                token = self.double.access.token_for(request.namespace, request.name)
                return {"kind": "TokenRequest", "status": {"token": token}}
            case "create", _:
                return wrapped(request.resource, api.create(*where, body, request.query))
            case "update", part:
                return wrapped(request.resource, api.update(*where, request.name, body, part))
            case "patch", part:
                kind = self.headers.get("Content-Type") or ""
                return wrapped(request.resource, api.patch(*where, request.name, body, part=part, kind=kind))
            case "delete", _:
                return api.delete(*where, request.name, {**body, **_delete_options(request.query)})
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def _delete_options(query: dict[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if "gracePeriodSeconds" in query:
        options["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
    if "propagationPolicy" in query:
        options["propagationPolicy"] = query["propagationPolicy"]
    return options
