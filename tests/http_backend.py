"""Terraform's ``http`` backend as a server of its own: states and their locks, and what a test lets it refuse."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class HttpBackend:
    """A server of states, by path. ``full``: it takes no state. ``unlock_failures``: so often it ends no lock.

    ``locks``: who holds a state, as Terraform told it; ``held``: all locks that were taken. ``before_lock`` is called
    before an answer to whoever asks for a lock.
    """

    url: str = ""
    states: dict[str, Any] = field(default_factory=dict)
    locks: dict[str, Any] = field(default_factory=dict)
    full: bool = False
    held: list[Any] = field(default_factory=list)
    unlock_failures: int = 0
    before_lock: Callable[[], None] = lambda: None
    refusals: dict[str, int] = field(default_factory=dict)

    def block(self, name: str) -> str:
        """Return the block that lets a configuration keep its state here."""
        address = f"{self.url}/{name}"
        return f"""
terraform {{
  backend "http" {{
    address        = "{address}"
    lock_address   = "{address}"
    unlock_address = "{address}"
    retry_max      = 0
  }}
}}
"""

    def lock(self, name: str, lock_id: str, who: str, created: str) -> None:
        """Let somebody hold a state."""
        self.locks[f"/{name}"] = {"ID": lock_id, "Operation": "OperationTypeApply", "Who": who, "Created": created}

    def free_after(self, name: str, refusals: int) -> None:
        """Let the holder of a state give it up after so many others were refused."""
        self.refusals[f"/{name}"] = refusals

    def refused(self, path: str) -> None:
        if path in self.refusals:
            self.refusals[path] -= 1
            if self.refusals[path] == 0:
                del self.locks[path], self.refusals[path]


@contextmanager
def http_backend() -> Iterator[HttpBackend]:
    """Run a server on this machine."""
    backend = HttpBackend()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(backend)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        backend.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield backend
        finally:
            server.shutdown()
            thread.join()


def _handler(backend: HttpBackend) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a method for each verb
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state = backend.states.get(self.name)
            self.answer(404 if state is None else 200, state)

        def do_POST(self) -> None:
            state = self.content()
            if backend.full:
                self.answer(507)
            else:
                backend.states[self.name] = state
                self.answer(200)

        def do_LOCK(self) -> None:
            wanted = self.content()
            held = backend.locks.setdefault(self.name, wanted)
            if held is wanted:
                backend.held.append(wanted)
            backend.before_lock()
            self.answer(200 if held is wanted else 423, held)
            backend.refused(self.name)

        def do_UNLOCK(self) -> None:
            self.content()
            if backend.unlock_failures > 0:
                backend.unlock_failures -= 1
                self.answer(503)
                return
            backend.locks.pop(self.name, None)
            self.answer(200)

        @property
        def name(self) -> str:
            return self.path.partition("?")[0]

        def content(self) -> Any:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return json.loads(body) if body else None

        def answer(self, code: int, content: Any = None) -> None:
            body = b"" if content is None else json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
