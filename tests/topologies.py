"""Redis servers as people have them: databases, passwords, Unix sockets, TLS with client certificates, sentinels."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.valkey_server import running_valkey
from tests.waiting import eventually
from workers.embedded.valkey import free_port, server_binary

PASSWORD = "p@ss:w/ord?#[%20]"
QUOTED = "p%40ss%3Aw%2Ford%3F%23%5B%2520%5D"
MASTER = "main"
URL = "TERRASLOT_REDIS_URL"


@contextmanager
def server(directory: Path, *options: str) -> Iterator[int]:
    """Run a Valkey with a configuration of its own; yield its port."""
    directory.mkdir(parents=True, exist_ok=True)
    while True:
        port = free_port()
        lines = (f"port {port}", "bind 127.0.0.1", 'save ""', f"dir {directory}", *options)
        (directory / "valkey.conf").write_text("\n".join(lines) + "\n")
        process = subprocess.Popen([server_binary(), directory / "valkey.conf"], stdout=subprocess.DEVNULL)
        if eventually(lambda: _listens(port) or process.poll() is not None, 20) and process.poll() is None:  # noqa: B023
            break  # else another process took the port in between
    try:
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def broker_elsewhere(directory: Path) -> Iterator[dict[str, str]]:
    """The queues on a server of their own."""
    with special_password(directory) as urls, running_valkey() as broker:
        yield urls | {"TERRASLOT_BROKER_URL": broker}


@contextmanager
def special_password(directory: Path) -> Iterator[dict[str, str]]:
    with server(directory, f'requirepass "{PASSWORD}"') as port:
        yield {URL: f"redis://:{QUOTED}@127.0.0.1:{port}/0"}


@contextmanager
def unix_socket(directory: Path) -> Iterator[dict[str, str]]:
    short = tempfile.mkdtemp(prefix="ts-")  # a socket's path has about a hundred characters
    with server(directory, f"unixsocket {short}/redis.sock", f'requirepass "{PASSWORD}"'):
        yield {URL: f"unix://:{QUOTED}@{short}/redis.sock?db=2"}
    shutil.rmtree(short)


@contextmanager
def tls(directory: Path) -> Iterator[dict[str, str]]:
    """A server behind TLS with a private CA, which lets nobody in without a client certificate."""
    with ExitStack() as stack:
        port = stack.enter_context(server(directory / "server"))
        files = certificates(directory)
        front = stack.enter_context(tls_front(files, port))
        query = f"ssl_ca_certs={files['ca.pem']}&ssl_certfile={files['client.pem']}&ssl_keyfile={files['client.key']}"
        yield {URL: f"rediss://127.0.0.1:{front}/0?{query}"}


class Sentinels:
    """A primary with a replica, and three sentinels that watch them; database 3 of it is ours."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.sentinels = [free_port() for _ in range(3)]
        self.servers = [free_port() for _ in range(2)]

    def start(self) -> None:
        primary, replica = self.servers
        self._start("primary", f"port {primary}")
        self._start("replica", f"port {replica}", f"replicaof 127.0.0.1 {primary}")
        for port in self.sentinels:
            self._start(
                f"sentinel-{port}",
                f"port {port}",
                f"sentinel monitor {MASTER} 127.0.0.1 {primary} 2",
                f"sentinel down-after-milliseconds {MASTER} 1000",
                f"sentinel failover-timeout {MASTER} 5000",
                sentinel=True,
            )
        eventually(self._ready, 30)

    def fail_over(self) -> None:
        """Kill the primary, and wait until the sentinels name another."""
        before = self.primary()
        name = "primary" if before == self.servers[0] else "replica"
        self._processes[name].send_signal(signal.SIGKILL)
        self._processes[name].wait()
        eventually(lambda: self.primary() not in (None, before), 60)

    def primary(self) -> int | None:
        """Return the port of the primary as the first sentinel sees it."""
        with redis.Redis(port=self.sentinels[0]) as client, suppress(redis.RedisError):
            found = client.sentinel_get_master_addr_by_name(MASTER)
            return int(found[1]) if found else None
        return None

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return f"sentinel://{hosts}/3?master={MASTER}"

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def _ready(self) -> bool:
        """Whether each sentinel knows the two others and the replica."""
        for port in self.sentinels:
            with redis.Redis(port=port) as client, suppress(redis.RedisError):
                state = client.sentinel_master(MASTER)
                if state["num-other-sentinels"] == 2 and state["num-slaves"] == 1:
                    continue
            return False
        return True

    def _start(self, name: str, *lines: str, sentinel: bool = False) -> None:
        directory = self._directory / name
        directory.mkdir(parents=True)
        conf = directory / "server.conf"
        common = ("bind 127.0.0.1", f"dir {directory}", *(() if sentinel else ('save ""',)))
        conf.write_text("\n".join((*lines, *common)) + "\n")
        argv = [server_binary(), conf, *(["--sentinel"] if sentinel else [])]
        self._processes[name] = subprocess.Popen(argv, stdout=subprocess.DEVNULL)


@contextmanager
def sentinels(directory: Path) -> Iterator[Sentinels]:
    """A primary that sentinels know."""
    watched = Sentinels(directory)
    try:
        watched.start()
        yield watched
    finally:
        watched.stop()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


_LOCAL = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]


def certificates(directory: Path) -> dict[str, Path]:
    """Make a private CA with a certificate for a server and one for a client."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = _key(directory / "ca.key")
    ca = _certificate("Test CA", authority, None, authority)
    (directory / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    for name in ("server", "client"):
        key = _key(directory / f"{name}.key")
        signed = _certificate(name, key, ca, authority)
        (directory / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return {path.name: path for path in directory.iterdir() if path.suffix in (".pem", ".key")}


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*form))
    path.chmod(0o600)
    return key


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(_LOCAL), critical=False)
        .sign(signer, hashes.SHA256())
    )


@contextmanager
def tls_front(files: dict[str, Path], port: int) -> Iterator[int]:
    """Listen with TLS, ask for a client certificate, and pass everything on to a port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["server.pem"], files["server.key"])
    context.load_verify_locations(files["ca.pem"])
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, context, port), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with suppress(OSError):
        while True:
            plain, _ = listener.accept()
            threading.Thread(target=_serve, args=(plain, context, port), daemon=True).start()


def _serve(plain: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with (
        suppress(OSError),
        context.wrap_socket(plain, server_side=True) as secure,
        socket.create_connection(("127.0.0.1", port)) as server_side,
    ):
        back = threading.Thread(target=_copy, args=(server_side, secure), daemon=True)
        back.start()
        _copy(secure, server_side)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
