"""Git servers on loopback: over ssh with host keys and deploy keys, over https with a private CA and a password."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from urllib.parse import urlsplit

import asyncssh


class SshServer:
    """``git-upload-pack`` for whoever has the deploy key."""

    def __init__(self) -> None:
        host, deploy, other = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(3))
        self.key, self.wrong_key = (key.export_private_key().decode() for key in (deploy, other))
        self._public = deploy.export_public_key().decode()
        self._host = host
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listener = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(20)
        self.port = self._listener.get_port()
        self.known_hosts = f"[127.0.0.1]:{self.port} {host.export_public_key().decode().strip()}\n"
        self.other_hosts = f"[127.0.0.1]:{self.port} {other.export_public_key().decode().strip()}\n"

    def url(self, path: Path) -> str:
        return f"ssh://git@127.0.0.1:{self.port}{path}"

    async def _listen(self) -> asyncssh.SSHAcceptor:
        keys = asyncssh.import_authorized_keys(self._public)
        return await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[self._host], authorized_client_keys=keys, process_factory=self._serve,
            encoding=None,
        )  # fmt: skip

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        self.connections += 1
        program, _, path = (process.command or "").partition(" ")
        assert program == "git-upload-pack"
        environment = {**os.environ, "GIT_PROTOCOL": process.env.get("GIT_PROTOCOL", "")}
        child = subprocess.Popen(
            ["git", "upload-pack", path.strip("'")], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
        code = await self._loop.run_in_executor(None, child.wait)
        await process.stdout.drain()
        process.exit(code)

    def close(self) -> None:
        async def end() -> None:
            self._listener.close()
            await self._listener.wait_closed()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


class HttpsServer:
    """``git http-backend`` for whoever has the password, of all repositories below a directory."""

    def __init__(self, root: Path, certificate: tuple[Path, Path], password: str) -> None:
        expected = f"Basic {b64encode(f'git:{password}'.encode()).decode()}"
        self.received = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.headers["Authorization"] != expected:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", "Basic")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = self._body()
                url = urlsplit(self.path)
                answer = subprocess.run(
                    ["git", "http-backend"], input=body, capture_output=True, check=True,
                    env={
                        "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1",
                        "REQUEST_METHOD": self.command, "PATH_INFO": url.path, "QUERY_STRING": url.query,
                        "CONTENT_TYPE": self.headers["Content-Type"] or "", "CONTENT_LENGTH": str(len(body)),
                        "HTTP_CONTENT_ENCODING": self.headers["Content-Encoding"] or "",
                        "GIT_PROTOCOL": self.headers["Git-Protocol"] or "", "REMOTE_ADDR": "127.0.0.1",
                    },
                ).stdout  # fmt: skip
                head, _, content = answer.partition(b"\r\n\r\n")
                headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
                outer.received += len(content)
                self.send_response(int(headers.pop("Status", "200").split()[0]))
                headers["Content-Length"] = str(len(content))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET  # noqa: N815 - the library's name

            def _body(self) -> bytes:
                if self.headers["Transfer-Encoding"] != "chunked":
                    return self.rfile.read(int(self.headers["Content-Length"] or 0))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                return body

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = SSLContext(PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def over_ssh() -> Iterator[SshServer]:
    server = SshServer()
    try:
        yield server
    finally:
        server.close()


@contextmanager
def over_https(root: Path, certificate: tuple[Path, Path], password: str) -> Iterator[HttpsServer]:
    server = HttpsServer(root, certificate, password)
    try:
        yield server
    finally:
        server.close()
