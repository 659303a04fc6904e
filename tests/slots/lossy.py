"""A way to a Redis server that loses replies: the server has acted, and its client is not told."""

from __future__ import annotations

import re
import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_CHANGES = re.compile(rb"\r\n(?:EVAL|EVALSHA|SET)\r\n")


@dataclass
class Way:
    """``url`` leads to the server; ``losing`` replies to changes are lost from now on, and their connections end."""

    url: str = ""
    losing: int = 0
    lost: int = 0
    _deciding: threading.Lock = field(default_factory=threading.Lock)

    def loses(self, reply: bytes) -> bool:
        """Whether the reply to a change is to be lost."""
        with self._deciding:
            if not self.losing or reply.startswith(b"-NOSCRIPT"):
                return False
            self.losing -= 1
            self.lost += 1
            return True


@contextmanager
def lossy(url: str) -> Iterator[Way]:
    """Yield a way to the server at ``url``."""
    server_port, way = urlsplit(url).port, Way()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", server_port or 0)) as server, suppress(OSError):
                _carry(self.request, server, way)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as proxy:
        proxy.daemon_threads = True
        proxy.block_on_close = False
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True, name="lossy").start()
        way.url = f"redis://127.0.0.1:{proxy.server_address[1]}/0"
        yield way
        proxy.shutdown()


def _carry(client: socket.socket, server: socket.socket, way: Way) -> None:
    request = b""
    while True:
        ready, _, _ = select.select([client, server], [], [])
        if client in ready:
            request = client.recv(1 << 16)
            server.sendall(request)
            if not request:
                return
        if server in ready:
            reply = server.recv(1 << 16)
            if not reply or (_CHANGES.search(request) and way.loses(reply)):
                return
            client.sendall(reply)
