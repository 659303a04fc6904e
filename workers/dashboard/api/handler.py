"""Answers the requests of the API: who asks and whether they may, what they ask for, and the answer or a problem."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

import structlog
from flower.views import BaseHandler
from pydantic import BaseModel, TypeAdapter, ValidationError
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, url

from workers.core.access import Caller, Scope
from workers.dashboard import access
from workers.dashboard.api.openapi import document
from workers.dashboard.api.operation import Answered, Asked, Given, Operation
from workers.dashboard.api.operations import OPERATIONS
from workers.dashboard.api.problems import MEDIA_TYPE, Refused, invalid, refused
from workers.dashboard.shared_pools import SharedPools
from workers.protocol.names import TRACE_HEADER
from workers.services.system import System

log = structlog.get_logger(__name__)

ROOT = "/api/v1"
_JSON, _LINES = "application/json", "application/x-ndjson"
_MOST_BYTES = 256_000  # of a body: four times what its largest field may have


def rules(system: System, pools: SharedPools, prefix: str) -> list[Any]:
    """Return Tornado's rules for the API below a prefix of the dashboard."""
    root = f"{prefix}{ROOT}"
    of: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        of.setdefault(operation.pattern, {})[operation.method] = operation
    answered = [
        url(f"{root}{pattern}", Api, {"system": system, "pools": pools, "operations": operations})
        for pattern, operations in of.items()
    ]
    nothing = url(f"{root}/.*", Api, {"system": system, "pools": pools, "operations": {}})
    return [url(rf"{root}/openapi\.json", Description), *answered, nothing]


class Description(BaseHandler):  # type: ignore[misc]
    """The OpenAPI document: the same for everybody."""

    def get(self) -> None:
        """Write it."""
        self.set_header("Content-Type", _JSON)
        self.finish(json.dumps(document()))


class ApiHandler(BaseHandler):  # type: ignore[misc]
    """What all answers of the API have in common: who asks, and a problem instead of an answer."""

    _system: System

    def check_xsrf_cookie(self) -> None:
        """Leave that to :meth:`caller_with`: a token needs no cookie, and what a page sends has to come from here."""

    async def answered(self, answer: Callable[[], Awaitable[None]]) -> None:
        """Answer, or write the problem that keeps this from being answered."""
        try:
            await answer()
        except StreamClosedError:
            return
        except HTTPError:
            raise
        except Exception as error:
            refusal = refused(error)
            if refusal is None:
                log.exception("request failed", path=self.request.path)
                refusal = Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "The log of the dashboard has more of it.")
            self._refuse(refusal)

    async def caller_with(self, scope: Scope) -> Caller:
        """Return who asks, if that suffices; raises :class:`Refused`."""
        if access.is_foreign(self):
            raise Refused(HTTPStatus.FORBIDDEN, "This came from a page of another site.")
        return access.granted(await asyncio.to_thread(access.caller, self, self._system), scope)

    def head(self, media_type: str) -> None:
        """Say what follows, and that nobody may keep it."""
        self.set_header("Content-Type", media_type)
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")

    def _refuse(self, refusal: Refused) -> None:
        if self._headers_written:
            self.request.connection.close()  # without its last chunk the answer is seen to be cut short
            return
        self.set_status(refusal.status)
        self.head(MEDIA_TYPE)
        if refusal.status is HTTPStatus.UNAUTHORIZED:
            self.add_header("WWW-Authenticate", 'Bearer realm="terraslot"')
            if self.application.options.basic_auth:
                # Of Flower's realm: a browser that was asked for its pages sends the same password here.
                self.add_header("WWW-Authenticate", 'Basic realm="flower"')
        if refusal.status is HTTPStatus.SERVICE_UNAVAILABLE:
            self.set_header("Retry-After", "5")
        self.finish(json.dumps(refusal.problem.document()))

    def write_error(self, status_code: int, **about: Any) -> None:  # noqa: ARG002 - the hook's signature is the library's
        """Write what Tornado or Flower refuses as a problem, too."""
        status = HTTPStatus(status_code)
        self._refuse(Refused(status, access.SIGN_IN if status is HTTPStatus.UNAUTHORIZED else f"{status.phrase}."))


class Api(ApiHandler):
    """One path of the API, with an operation for each of its methods."""

    def initialize(self, system: System, pools: SharedPools, operations: Mapping[str, Operation]) -> None:
        """Take what the path's operations work on."""
        self._system = system
        self._pools = pools
        self._operations = operations

    async def get(self, **named: str) -> None:
        """Answer GET."""
        await self._answer("GET", named)

    async def post(self, **named: str) -> None:
        """Answer POST."""
        await self._answer("POST", named)

    async def _answer(self, method: str, named: Mapping[str, str]) -> None:
        async def answer() -> None:
            operation = self._operation(method)
            asked = Asked(
                self._system, self._pools, await self.caller_with(operation.scope), dict(named), self._query(operation),
                self._body(operation), self.request.headers.get("Idempotency-Key") if operation.takes_key else None,
                self.request.headers.get(TRACE_HEADER),
            )  # fmt: skip
            if operation.streams:
                await self._stream(operation, asked)
            else:
                self._write(operation, await asyncio.to_thread(operation.do, asked))

        await self.answered(answer)

    def _operation(self, method: str) -> Operation:
        if not self._operations:
            raise Refused(HTTPStatus.NOT_FOUND, f"There is no {self.request.path}: see openapi.json.")
        if method not in self._operations:
            allowed = ", ".join(self._operations)
            self.set_header("Allow", allowed)
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"{self.request.path} takes {allowed}.")
        return self._operations[method]

    def _query(self, operation: Operation) -> Given:
        given: dict[str, Any] = {}
        for name in self.request.query_arguments:
            first, *others = self.get_query_arguments(name)
            given[name] = [first, *others] if others else first
        try:
            return operation.query.model_validate(given)
        except ValidationError as error:
            raise invalid(error, "query") from None

    def _body(self, operation: Operation) -> BaseModel | None:
        if operation.body is None:
            return None
        body = self.request.body or b"{}"
        if len(body) > _MOST_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body has more than {_MOST_BYTES:,} bytes.")
        if self.request.body and self.request.headers.get("Content-Type", "").partition(";")[0].strip() != _JSON:
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"The body must be {_JSON}.")
        try:
            return operation.body.model_validate_json(body)
        except ValidationError as error:
            if error.errors()[0]["type"] == "json_invalid":
                raise Refused(HTTPStatus.BAD_REQUEST, "The body is no JSON.") from None
            raise invalid(error, "body") from None

    def _write(self, operation: Operation, value: Any) -> None:
        answered = value if isinstance(value, Answered) else Answered(value, operation.status)
        self.set_status(answered.status)
        if answered.location is not None:
            self.set_header("Location", f"{self._root}/{answered.location}")
        self.head(_JSON)
        kind: Any = type(value.value) if isinstance(value, Answered) else operation.answer
        self.finish(_adapter(kind).dump_json(answered.value))

    async def _stream(self, operation: Operation, asked: Asked) -> None:
        adapter = _adapter(operation.answer)
        self.head(_LINES)
        async for values in operation.do(asked):
            # A piece of a log may have megabytes: what else is asked meanwhile is answered.
            self.write(await asyncio.to_thread(_lines, adapter, values))
            await self.flush()
        await self.finish()

    @property
    def _root(self) -> str:
        path: str = self.request.path
        return path[: path.index(ROOT) + len(ROOT)]


def _lines(adapter: TypeAdapter[Any], values: Iterable[Any]) -> bytes:
    return b"".join(adapter.dump_json(value) + b"\n" for value in values)


@cache
def _adapter(answer: Any) -> TypeAdapter[Any]:
    return TypeAdapter(answer)
