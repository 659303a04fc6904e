"""The smallest provider that Terraform takes: it has a schema, with nothing in it. A program of its own.

It speaks as much of gRPC as that takes, and answers whatever it is asked with its schema: the other calls expect fields
that are not in it, and ignore it. It ends with its connection.
"""

import os
import socket
import ssl
import struct
import tempfile

PEM = ""  # a key and its certificate: whoever makes the program puts it here

SCHEMA = b"\x0a\x02\x12\x00"  # provider: {block: {}}
SETTINGS, PING, HEADERS, DATA = 4, 6, 1, 0
ACK, END_STREAM, END_HEADERS = 1, 1, 4


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + content


def answer(stream: int) -> bytes:
    message = b"\x00" + struct.pack(">I", len(SCHEMA)) + SCHEMA
    return b"".join(
        (
            frame(HEADERS, END_HEADERS, stream, b"\x88\x0f\x10\x10application/grpc"),
            frame(DATA, 0, stream, message),
            frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\x00\x0bgrpc-status\x010"),
        )
    )


def serve(connection: socket.socket) -> None:
    connection.sendall(frame(SETTINGS, 0, 0))
    with connection.makefile("rb") as received:
        received.read(24)  # how every client begins
        while len(head := received.read(9)) == 9:
            length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            content = received.read(length)
            if kind in (SETTINGS, PING) and not flags & ACK:
                connection.sendall(frame(kind, ACK, 0, content if kind == PING else b""))
            elif kind == HEADERS:
                connection.sendall(answer(int.from_bytes(head[5:], "big")))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as server:
        pem = os.path.join(directory, "pem")
        with open(pem, "w") as file:
            file.write(PEM)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        context.set_alpn_protocols(["h2"])
        server.bind(os.path.join(directory, "s"))
        server.listen()
        certificate = PEM[PEM.index("-----BEGIN CERT") :].replace("\n", "").split("-----")[2].rstrip("=")
        print(f"1|5|unix|{server.getsockname()}|grpc|{certificate}", flush=True)  # noqa: T201 - how a plugin says where it listens
        with context.wrap_socket(server.accept()[0], server_side=True) as connection:
            serve(connection)
