"""Archives: unpacked in a child, refused with a sentence where they are hostile, and only after their checksum."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import ssl
import struct
import tarfile
import threading
import zipfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent import archive_members, archive_reader
from agent.archive_members import Member, Refused
from agent.execution import StopCause, Stopped
from tests.agent.conftest import Bench, unavailable
from tests.topologies import certificates
from tests.waiting import eventually
from workers.protocol.messages import Order

SIMPLE = 'output "version" { value = "one" }\n'


def tar(path: Path, *entries: tarfile.TarInfo | tuple[str, str]) -> Path:
    """Write a .tar.gz of files with their content, and of entries without."""
    with tarfile.open(path, "w:gz") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry, io.BytesIO(b"x" * entry.size))
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            archive.addfile(info, io.BytesIO(entry[1].encode()))
    return path


def entry(name: str, kind: bytes, target: str = "", **facts: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info


def link(name: str, target: str) -> tarfile.TarInfo:
    return entry(name, tarfile.SYMTYPE, target)


def zipped(path: Path, *entries: tuple[str, str, int]) -> Path:
    """Write a .zip of names, contents and modes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, mode in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(Refused) as refusal:
        archive_reader.unpack(path, path.parent / "tree", ("*.tfstate",))
    return str(refusal.value)


def of(path: Path | str, content: bytes | None = None, **facts: str) -> dict[str, str]:
    checksum = {"sha256": hashlib.sha256(content).hexdigest()} if content is not None else {}
    return {"type": "archive", "url": str(path), **checksum, **facts}


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


class TestAnArchiveAtAPath:
    @pytest.mark.parametrize("kind", ["tar", "zip"])
    def test_is_planned_and_applied(
        self, bench: Bench, make_order: Callable[..., Order], tmp_path: Path, kind: str
    ) -> None:
        files = ("net/envs/main.tf", SIMPLE), ("net/envs/run.sh", "#!/bin/sh\n")
        if kind == "tar":
            path = tar(
                tmp_path / "a.tar.gz", entry("net", tarfile.DIRTYPE, mode=0o755), files[0], link("net/a", "envs")
            )
        else:
            path = zipped(
                tmp_path / "a.zip", ("net/", "", 0o755), (*files[0], 0o100644), (*files[1], 0o100755),
                ("net/a", "envs", 0o120777),
            )  # fmt: skip
        order = make_order(of(path, path.read_bytes(), subdir="net/envs"))
        assert bench.execute(order).outputs == {"version": "one"}
        source = bench.work_dir / "runs" / "run-1" / "source"
        assert os.readlink(source / "net/a") == "envs"
        assert os.access(source / "net/envs/run.sh", os.X_OK) == (kind == "zip")
        assert not (bench.work_dir / "runs" / "run-1" / "archive").exists()

    def test_keeps_what_a_hard_link_names_twice_and_leaves_out_state(
        self, bench: Bench, make_order: Callable[..., Order], tmp_path: Path
    ) -> None:
        path = tar(
            tmp_path / "a.tar.gz", ("main.tf", SIMPLE), entry("same.tf", tarfile.LNKTYPE, "main.tf"),
            ("terraform.tfstate", "{}"), (".terraform/terraform.tfstate", "{}"), (".git/config", "x"),
        )  # fmt: skip
        module = bench.fetch(make_order(of(path)))
        assert tree(module) == {"main.tf", "same.tf"}
        assert (module / "same.tf").read_text() == SIMPLE
        assert "Not copied: terraform.tfstate. State" in "\n".join(bench.lines.texts)

    @pytest.mark.parametrize(
        ("entries", "said"),
        [
            ([("../evil.tf", "x")], "holds a file outside of it, '../evil.tf'"),
            ([("a/../../evil.tf", "x")], "holds a file outside of it"),
            ([("/tmp/evil.tf", "x")], "holds a file outside of it, '/tmp/evil.tf'"),
            ([link("out", "../..")], "a link that leads out of it, 'out' to '../..'"),
            ([link("out", "/etc/passwd")], "a link that leads out of it"),
            ([link("a", "."), link("b", "a/../..")], "a link that leads out of it, 'b'"),
            ([link("d/a", "."), link("d/b", "a/../../..")], "a link that leads out of it"),
            ([link("a", "b"), link("b", "../x")], "a link that leads out of it"),
            ([link("a", "/etc"), ("a/evil.tf", "x")], "holds 'a' twice, as a link and as something else"),
            ([link("a", "."), link("a/b", "..")], "holds 'a' twice"),
            ([entry("a", tarfile.LNKTYPE, "/etc/passwd")], "holds a file outside of it, '/etc/passwd'"),
            ([entry("a", tarfile.LNKTYPE, "../../x")], "holds a file outside of it"),
            ([link("a", "main.tf"), entry("b", tarfile.LNKTYPE, "a")], "holds a link to what it does not hold"),
            ([entry("pipe", tarfile.FIFOTYPE)], "holds a device or a pipe, 'pipe'"),
            ([entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3)], "holds a device or a pipe"),
            ([("a", "x"), ("a/b", "x")], "can't be unpacked"),
        ],
    )
    def test_is_refused_when_it_leaves_its_directory(
        self, tmp_path: Path, entries: list[tarfile.TarInfo], said: str
    ) -> None:
        assert said in refused(tar(tmp_path / "a.tar.gz", ("main.tf", SIMPLE), *entries))
        assert not list(tmp_path.glob("*evil*"))
        assert not Path("/tmp/evil.tf").exists()

    @pytest.mark.parametrize(("name", "mode"), [("../evil.tf", 0o100644), ("/tmp/evil.tf", 0o100644), ("l", 0o120777)])
    def test_is_refused_as_a_zip_too(self, tmp_path: Path, name: str, mode: int) -> None:
        said = refused(zipped(tmp_path / "a.zip", ("main.tf", SIMPLE, 0o100644), (name, "../../x", mode)))
        assert "leads out of it" in said or "outside of it" in said
        assert not list(tmp_path.glob("*evil*"))

    def test_is_refused_by_its_name_and_takes_nothing_of_the_agent(
        self, bench: Bench, make_order: Callable[..., Order], tmp_path: Path
    ) -> None:
        path = tar(tmp_path / "a.tar.gz", ("main.tf", SIMPLE), ("../evil.tf", "x"))
        assert f"The archive {path} holds a file outside of it, '../evil.tf'." in unavailable(
            bench, make_order(of(path))
        )

    @pytest.mark.parametrize("kind", ["file", "skipped", "zip", "sparse"])
    def test_is_refused_when_it_explodes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        for module in (archive_members, archive_reader):
            monkeypatch.setattr(module, "MAX_UNPACKED", 2**20)
        path, zeros = tmp_path / "a", "\0" * (2**20 + 1)
        match kind:
            case "zip":
                zipped(path, ("zeros", zeros, 0o100644))
            case "sparse":
                path.write_bytes(gzip.compress(_sparse("zeros", 2**33)))
            case _:
                tar(path, ("zeros" if kind == "file" else "x.tfstate", zeros))
        assert path.stat().st_size < 10_000
        assert refused(path) == "unpacks to more than 1 MiB"

    def test_is_refused_with_too_many_members_also_those_that_are_directories_on_the_way(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(archive_reader, "MAX_MEMBERS", 50)
        unpacked = archive_reader.Tree(tmp_path / "tree", ())
        with pytest.raises(Refused, match="more than 50 files and directories"):
            unpacked.add(Member("/".join("a" * 60), "directory"))
        skipped = archive_reader.Tree(tmp_path / "other", ("*.tfstate",))
        for number in range(50):
            skipped.add(Member(f"{number}.tfstate", "file"))
        with pytest.raises(Refused, match="more than 50"):
            skipped.add(Member("another.tfstate", "file"))

    @pytest.mark.parametrize("content", [b"", b"text", b"\x1f\x8b garbage", b"PK\x05\x06 garbage", b"\x1f\x8b\x08\0"])
    def test_is_refused_when_it_is_none(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a").write_bytes(content)
        said = refused(tmp_path / "a")
        assert said == "is neither a .tar.gz nor a .zip" or said.startswith("is damaged: ")

    def test_is_refused_when_a_password_is_needed(self, tmp_path: Path) -> None:
        path = zipped(tmp_path / "a.zip", ("main.tf", SIMPLE, 0o100644))
        content = bytearray(path.read_bytes())
        for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            struct.pack_into("<H", content, content.index(magic) + flags, 1)
        path.write_bytes(content)
        assert refused(path) == "is encrypted"

    def test_is_refused_with_another_checksum_before_it_is_unpacked(
        self, bench: Bench, make_order: Callable[..., Order], tmp_path: Path
    ) -> None:
        path = tar(tmp_path / "a.tar.gz", ("main.tf", SIMPLE))
        text = unavailable(bench, make_order(of(path, b"something else")))
        assert hashlib.sha256(path.read_bytes()).hexdigest() in text
        assert hashlib.sha256(b"something else").hexdigest() in text
        assert not (bench.work_dir / "runs" / "run-1" / "source").exists()

    def test_is_refused_when_it_is_not_there_or_no_file(
        self, bench: Bench, make_order: Callable[..., Order], tmp_path: Path
    ) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert "No such file" in unavailable(bench, make_order(of(tmp_path / "nowhere.zip")))
        assert "no regular file" in unavailable(bench, make_order(of(tmp_path / "pipe"), run="run-2"))


class Server:
    """An HTTP server of a few paths, with TLS where it is given certificates."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self.contents: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.hold = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append((self.path, self.headers["Authorization"]))
                if location := outer.redirects.get(self.path):
                    self.send_response(302)
                    self.send_header("Location", location)
                    self.end_headers()
                elif self.path == "/slow":
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(b"x")
                    outer.hold.wait(30)
                elif (content := outer.contents.get(self.path)) is None:
                    self.send_error(404)
                else:
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serving(certificate: tuple[Path, Path] | None = None) -> Iterator[Server]:
    server = Server(certificate)
    try:
        yield server
    finally:
        server.close()


class TestAnArchiveAtAUrl:
    def test_is_fetched_over_tls_with_a_private_ca_and_a_password_that_only_its_server_gets(
        self, bench: Bench, make_order: Callable[..., Order], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = certificates(tmp_path)
        content = tar(tmp_path / "a.tar.gz", ("main.tf", SIMPLE)).read_bytes()
        login = {"ARCHIVE_USERNAME": "me", "ARCHIVE_PASSWORD": "s@cret"}
        with serving((files["server.pem"], files["server.key"])) as server, serving() as other:
            server.redirects["/a"] = f"{server.url}/b"
            server.contents["/b"] = content
            untrusted = make_order(of(f"{server.url}/a?token=s@cret", content), environment=login)
            text = unavailable(bench, untrusted)
            assert "CERTIFICATE_VERIFY_FAILED" in text
            assert "s@cret" not in text + "\n".join(bench.lines.texts)
            monkeypatch.setenv("SSL_CERT_FILE", str(files["ca.pem"]))
            module = bench.fetch(make_order(of(f"{server.url}/a", content), environment=login, run="run-2"))
            assert (module / "main.tf").read_text() == SIMPLE
            assert server.seen == [("/a", f"Basic {b64encode(b'me:s@cret').decode()}"), ("/b", None)]
            server.redirects["/c"] = f"{other.url}/b"
            assert "redirected to where" in unavailable(bench, make_order(of(f"{server.url}/c", content), run="run-3"))
            assert not other.seen

    @pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:text/plain,x"])
    def test_is_not_fetched_from_elsewhere_than_the_web(
        self, bench: Bench, make_order: Callable[..., Order], to: str
    ) -> None:
        with serving() as server:
            server.redirects["/a"] = to
            assert "can't be fetched" in unavailable(bench, make_order(of(f"{server.url}/a", b"")))

    def test_is_refused_when_it_is_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive_reader, "MAX_ARCHIVE", 2**20)
        with serving() as server:
            server.contents["/a"] = bytes(2**20 + 1)
            given = {"url": f"{server.url}/a", "sha256": None, "password": None}
            with pytest.raises(Refused, match="is larger than 1 MiB"):
                archive_reader.fetch(given, tmp_path / "a")

    def test_is_refused_in_words_when_it_is_missing_or_another(
        self, bench: Bench, make_order: Callable[..., Order]
    ) -> None:
        with serving() as server:
            server.contents["/a"] = b"changed"
            for run, path, said in (
                ("run-1", "/gone", "the server answers 404 Not Found"),
                ("run-2", "/a", "has the SHA-256 checksum"),
            ):
                text = unavailable(bench, make_order(of(f"{server.url}{path}", b"as it was"), run=run))
                assert said in text
                assert f"{server.url}{path}" in text
            url = server.url
        assert "Connection refused" in unavailable(bench, make_order(of(f"{url}/a", b""), run="run-4"))

    def test_that_never_ends_is_stopped_with_its_run(self, bench: Bench, make_order: Callable[..., Order]) -> None:
        with serving() as server:
            order = make_order(of(f"{server.url}/slow", b""))
            execution = bench.execution(order)

            def stop() -> None:
                eventually(lambda: server.seen)
                execution.stop(StopCause.CANCELLED)

            stopper = threading.Thread(target=stop)
            stopper.start()
            with pytest.raises(Stopped):
                bench.fetch(order, execution)
            stopper.join()


def _sparse(name: str, size: int) -> bytes:
    """Return a tar with an old GNU sparse file: a few bytes that stand for many zeros."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:398], header[398:410] = b"%011o\0" % 0, b"%011o\0" % 0
    header[483:495] = b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)
